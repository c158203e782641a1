"""Generated scenes of eight object classes in COCO's layout: the stand-in for a machine without photographs.

A class is an outline and a texture; colours and backgrounds are drawn alike for all classes, unless typical colours
are asked for, which a network learns in minutes. Objects of a scene never overlap; plain shapes lie among them.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from colorsys import hsv_to_rgb
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter

from misure.datasets.coco.protocol import COCO_IDS, CROWD, VOC_NAMES
from misure.datasets.coco.shapes import drawn
from misure.datasets.synthetic.cache import check_ranges, generate_once, generator_id

VERSION = 1
"""Raised with every change of what is drawn: scenes of another version lie in another folder."""

MOST_OBJECTS = 4
_COUNTS = (1, 1, 2, 2, 2, 3, 3, 4)
_SMALLEST, _LARGEST = 0.03, 0.4  # share of the scene's area
_FILL = 0.94  # of the scene's side that an object reaches at most
_TRIES = 40  # sizes and places for one object
_QUALITY = 90
_SPLITS = ("train", "val")

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
Texture = Callable[[Array, Array], Array]
"""From x and y (in the outline's units) to brightness, about -1 to 1."""


def _star(*radii: float, repeat: int, turn: float = 0.0, squash: float = 1.0) -> Array:
    """Polygon (N x 2) whose corners have the repeated distances from the centre, at even angles from a first one."""
    distances = np.tile(radii, repeat)
    angles = 2 * np.pi * (np.arange(len(distances)) / len(distances) + turn)
    corners: Array = np.stack([np.cos(angles), squash * np.sin(angles)], axis=1) * distances[:, None]
    return corners


CLASSES: dict[str, tuple[Array, Texture]] = {
    "bus": (_star(1, repeat=4, turn=1 / 8, squash=0.6), lambda x, _: np.sin(12 * x)),
    "car": (np.array([(-1, 0.4), (-0.5, -0.4), (0.5, -0.4), (1, 0.4)]), lambda _, y: np.sin(12 * y)),
    "cat": (_star(1, repeat=3, turn=-1 / 4), lambda x, y: 2 * np.sin(8 * x) * np.sin(8 * y)),
    "bicycle": (_star(1, 0.35, repeat=2), lambda x, y: np.sin(9 * (x + y))),
    "cow": (_star(1, repeat=24, squash=0.7), lambda x, y: np.sin(7 * x) + np.sin(7 * y)),
    "dog": (_star(1, 0.45, repeat=5, turn=-1 / 4), lambda x, y: np.cos(12 * np.hypot(x, y))),
    "person": (_star(1, repeat=24, squash=2.5), lambda x, y: np.sin(8 * np.abs(x) + 6 * y)),
    "train": (_star(1, 0.5, 1, repeat=4, turn=1 / 24), lambda x, y: np.sin(6 * np.arctan2(y, x))),
}
"""Outline (N x 2, y down) and texture of each class."""

_PLAIN = (_star(1, repeat=4), _star(1, repeat=24), _star(1, 0.6, repeat=3))


@dataclass(frozen=True)
class SceneSpec:
    """What is generated.

    Attributes:
        train_images: Scenes to train on.
        val_images: Scenes to explain.
        size: Side of a scene.
        seed: Same seed, same scenes.
        typical_colours: Whether each class has a colour of its own and everything else is grey.
    """

    train_images: int = 600
    val_images: int = 120
    size: int = 224
    seed: int = 0
    typical_colours: bool = False

    def __post_init__(self) -> None:
        images, seeds = (1, 100_000), (0, 2**63 - 1)
        check_ranges("scenes", self, {"train_images": images, "val_images": images, "size": (48, 1024), "seed": seeds})


@dataclass(frozen=True)
class SceneObject:
    """A shape in a scene.

    Attributes:
        name: Its class; empty for a plain shape.
        outline: Corners (N x 2) of its polygon, x and y in pixels.
        inside: Boolean map (H x W) of the pixels that COCO's own tools find inside the polygon.
        local: x and y of each pixel (2 x H x W) in the units of the class's outline.
    """

    name: str
    outline: Array
    inside: Mask
    local: Array


def generated(folder: Path, spec: SceneSpec) -> Path:
    """Generate scenes once for each specification and each version of the generator.

    Args:
        folder: Where generated scenes are kept.
        spec: What they look like.

    Returns:
        A folder inside it with ``annotations``, ``train2017`` and ``val2017``, complete.

    Raises:
        MisureError: If the disk does not take them.
    """

    def write(unfinished: Path) -> None:
        for split in range(len(_SPLITS)):
            _write_split(unfinished, split, spec)

    return generate_once(home(folder, spec), write)


def home(folder: Path, spec: SceneSpec) -> Path:
    """Where scenes of a specification lie, or will."""
    return folder / f"scenes-{generator_id(spec, VERSION)}"


def make_scene(spec: SceneSpec, split: int, number: int) -> tuple[Image.Image, list[SceneObject]]:
    """Draw a scene: a picture, and the objects in it.

    Args:
        spec: Size, seed and colours.
        split: 0 for training, 1 for validation.
        number: Of the scene; it does not matter how many others there are.
    """
    rng = np.random.default_rng((spec.seed, split, number))
    pixels = _clouds(rng, spec.size)
    nowhere = np.zeros((spec.size, spec.size), np.bool_)
    for shape in rng.integers(len(_PLAIN), size=rng.integers(4)):
        if plain := _placed("", _PLAIN[shape], rng, nowhere, largest=2 * _SMALLEST):
            _paint(pixels, plain, _colour(rng), rng)
    if spec.typical_colours:
        pixels[:] = pixels.mean(2, keepdims=True)
    taken, objects = nowhere.copy(), list[SceneObject]()
    count = _COUNTS[rng.integers(len(_COUNTS))]
    for name in _names(spec.seed, split, number)[:count]:
        if placed := _placed(name, CLASSES[name][0], rng, taken, largest=_LARGEST / np.sqrt(count)):
            hue = list(CLASSES).index(name) / len(CLASSES)
            _paint(
                pixels, placed, 230 * np.array(hsv_to_rgb(hue, 0.8, 1)) if spec.typical_colours else _colour(rng), rng
            )
            taken |= placed.inside
            objects.append(placed)
    return Image.fromarray(pixels.clip(0, 255).round().astype(np.uint8)), objects


def _names(seed: int, split: int, number: int) -> list[str]:
    """Classes of a scene's objects: within eight scenes in a row, each comes once in every place of this list."""
    block, row = divmod(number, len(CLASSES))
    orders = np.random.default_rng((seed, split, block, MOST_OBJECTS)).permuted([list(CLASSES)] * MOST_OBJECTS, axis=1)
    return [str(name) for name in orders[:, row]]


def _placed(name: str, shape: Array, rng: np.random.Generator, taken: Mask, largest: float) -> SceneObject | None:
    """Turn, mirror and scale a shape into a place where nothing is taken; None where there is none."""
    size, turn = len(taken), rng.uniform(-0.2, 0.2)
    pose = np.array([(np.cos(turn), np.sin(turn)), (-np.sin(turn), np.cos(turn))]) * (rng.choice((-1, 1)), 1)
    turned = shape @ pose
    x, y = turned.T
    area, extent = abs(x @ np.roll(y, 1) - y @ np.roll(x, 1)) / 2, np.ptp(turned, axis=0).max()
    share = _SMALLEST * (largest / _SMALLEST) ** rng.uniform()
    for smaller in np.geomspace(share, _SMALLEST, _TRIES):
        scale = size * min(np.sqrt(smaller / area), _FILL / extent)
        centre = rng.uniform(-scale * turned.min(0), size - scale * turned.max(0))
        outline = (scale * turned + centre).round(2)
        inside = drawn([outline.ravel().tolist()], size, size)
        if not (inside & taken).any():
            grid = np.stack(np.meshgrid(np.arange(size), np.arange(size)), axis=-1) + 0.5
            return SceneObject(name, outline, inside, ((grid - centre) / scale @ pose.T).transpose(2, 0, 1))
    return None


def _paint(pixels: Array, shape: SceneObject, colour: Array, rng: np.random.Generator) -> None:
    """Draw a shape with its class's texture and some grain; its edge is a pixel wide."""
    texture = CLASSES[shape.name][1](*shape.local).clip(-1, 1) if shape.name else 0
    light = 0.75 + 0.25 * texture + rng.normal(0, 0.05, shape.inside.shape)
    share = gaussian_filter(shape.inside.astype(float), 0.5)[..., None]
    pixels += share * (colour * light[..., None] - pixels)


def _clouds(rng: np.random.Generator, size: int) -> Array:
    """Two colours mixed by noise of a coarse and a fine scale (H x W x 3, 0 to 255)."""
    coarse, fine = (gaussian_filter(rng.standard_normal((size, size)), size / cells) for cells in (12, 60))
    share = 0.5 + 0.3 * coarse / coarse.std() + 0.1 * fine / fine.std()
    first, second = _colour(rng), _colour(rng)
    clouds: Array = first + share[..., None].clip(0, 1) * (second - first) + rng.normal(0, 5, (size, size, 1))
    return clouds


def _colour(rng: np.random.Generator) -> Array:
    """Draw a colour: the same ones for all classes and for backgrounds."""
    return 255 * np.array(hsv_to_rgb(rng.uniform(), rng.uniform(0, 0.7), rng.uniform(0.3, 1)))


def _write_split(folder: Path, split: int, spec: SceneSpec) -> None:
    """Write the images of a split, then the file that describes them."""
    pictures, annotations = folder / f"{_SPLITS[split]}2017", folder / "annotations"
    for place in (pictures, annotations):
        place.mkdir(parents=True, exist_ok=True)
    images: list[dict[str, Any]] = []
    instances: list[dict[str, Any]] = []
    for number in range((spec.train_images, spec.val_images)[split]):
        picture, objects = make_scene(spec, split, number)
        image_id = len(_SPLITS) * number + split + 1  # no two splits share an id, as in COCO
        name = f"{image_id:012d}.jpg"
        picture.save(pictures / name, quality=_QUALITY)
        entry = {"id": image_id, "file_name": name, "width": spec.size, "height": spec.size, "license": 0}
        images.append({**entry, "coco_url": ""})
        first = MOST_OBJECTS * image_id
        instances += [_annotation(first + slot, image_id, drawn) for slot, drawn in enumerate(objects)]
    content = {
        "info": {"description": "generated scenes", "version": str(VERSION), "contributor": "misure", "url": ""},
        "licenses": [{"id": 0, "name": "generated", "url": ""}],
        "categories": [{"id": number, "name": name} for number, name in sorted((_category(n), n) for n in CLASSES)],
        "images": images,
        "annotations": instances,
    }
    (annotations / f"instances_{_SPLITS[split]}2017.json").write_text(json.dumps(content))


def _annotation(number: int, image_id: int, drawn: SceneObject) -> dict[str, Any]:
    corner, extent = drawn.outline.min(0), np.ptp(drawn.outline, axis=0)
    return {
        "id": number,
        "image_id": image_id,
        "category_id": _category(drawn.name),
        "segmentation": [drawn.outline.ravel().tolist()],
        "area": float(drawn.inside.sum()),
        "bbox": [*corner.tolist(), *extent.round(2).tolist()],
        CROWD: 0,
    }


def _category(name: str) -> int:
    return COCO_IDS[VOC_NAMES.index(name)]
