"""One generated scene: which objects, where, their outlines as COCO's polygons, and the picture."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from colorsys import hsv_to_rgb
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter
from pycocotools import mask as rle

from misure.datasets.synthetic.scene_animals import cat, cow, dog, person
from misure.datasets.synthetic.scene_chance import Chance
from misure.datasets.synthetic.scene_shapes import Figure, Point, Points, curve, ellipse, panel, rotation
from misure.datasets.synthetic.scene_texture import Colour, Field, Pixels, background, noise, random_colour
from misure.datasets.synthetic.scene_vehicles import bicycle, bus, car, train
from misure.randomness import uniform

FIGURES: dict[str, Callable[[Chance], Figure]] = {
    "bus": bus, "car": car, "cat": cat, "bicycle": bicycle, "cow": cow, "dog": dog, "person": person, "train": train
}  # fmt: skip
"""How each class is drawn."""

MOST_OBJECTS = 4

_SMALLEST, _LARGEST = 0.03, 0.4  # share of the scene's area
_LEAST = 0.024  # of it after shrinking for want of room
_FILL = 0.94  # of the scene's side that an object reaches at most
_TRIES = 12  # places for one size
_SHRINK = 0.8
_TRIAL = 100  # side in pixels at which a figure's area is measured
_SAMPLES, _CANVAS = (4, 8), 400  # least and most along each axis of a pixel; pixels that a drawing may have
_COUNTS = (1, 1, 2, 2, 2, 3, 3, 4)
_BACKGROUND, _CLASSES = 100, 101  # keys beside the objects' own 0 to 3


Box = tuple[float, float, float, float]
"""Left, top, right and bottom."""


@dataclass(frozen=True)
class SceneObject:
    """An object as it was drawn.

    Attributes:
        name: Its class.
        polygons: Corners (x, y) in pixels of polygons that together are its outline.
        alpha: How much of each pixel it covers, 0 to 255, H x W.
    """

    name: str
    polygons: list[Points]
    alpha: NDArray[np.uint8]

    @property
    def extent(self) -> Box:
        """Left, top, right and bottom of the outline in pixels."""
        return _extent(self.polygons)


@dataclass(frozen=True)
class Scene:
    """A picture and the objects in it, none of which overlap."""

    image: Image.Image
    objects: list[SceneObject]


def make_scene(size: int, seed: int, split: int, number: int, *, typical_colours: bool = False) -> Scene:
    """Draw a scene.

    Args:
        size: Side in pixels.
        seed: Of everything.
        split: 0 for training, 1 for validation.
        number: Of the scene; it does not matter how many others there are.
        typical_colours: Whether each class has a colour of its own and everything else is grey.
    """
    key = (seed, split, number)
    chance = Chance(*key, _BACKGROUND)
    grain = noise(chance, size, 8, 0.8)
    pixels = background(chance, grain)
    _add_clutter(pixels, grain, chance)
    if typical_colours:
        pixels[:] = pixels.mean(2, keepdims=True)
    count, boxes, objects = chance.pick(_COUNTS), list[Box](), list[SceneObject]()
    for slot, name in enumerate(_classes(*key)[:count]):
        own = Chance(*key, slot)
        figure = _placed(FIGURES[name](own), size, own, boxes, _LARGEST / np.sqrt(count))
        if figure is not None:
            alpha = _paint(pixels, figure, grain, own, _typical_tones(name) if typical_colours else {})
            objects.append(SceneObject(name, [part.round(2) for part in figure.outline], alpha))
    return Scene(Image.fromarray(pixels.clip(0, 255).round().astype(np.uint8)), objects)


def outline_area(polygons: list[Points], size: int) -> float:
    """Pixels of a scene that COCO's own tools find inside some polygons."""
    corners: Any = [part.ravel().tolist() for part in polygons]
    return float(rle.area(rle.merge(rle.frPyObjects(corners, size, size))))


def _classes(seed: int, split: int, number: int) -> list[str]:
    """Classes of a scene's objects: within eight scenes in a row, each comes once in every place of this list."""
    block, row = divmod(number, len(FIGURES))
    slots, ranks = torch.arange(MOST_OBJECTS)[:, None], torch.arange(len(FIGURES))
    order = uniform(seed, split, block, _CLASSES, slots, ranks).argsort(stable=True, dim=1)
    return [list(FIGURES)[rank] for rank in order[:, row].tolist()]


def _pose(chance: Chance) -> Points:
    """Mirror, stretch, shear and turn, as a matrix; y points down from here on."""
    side, wide, lean = chance.pick((-1, 1)), chance.number(0.9, 1.12), chance.number(-0.08, 0.08)
    pose: Points = np.array([(side * wide, 0.0), (lean, -1.0)]) @ rotation(chance.number(-10, 10))
    return pose


def _extent(polygons: list[Points]) -> Box:
    points = np.concatenate(polygons)
    (left, top), (right, bottom) = points.min(0).tolist(), points.max(0).tolist()
    return left, top, right, bottom


def _placed(figure: Figure, size: int, chance: Chance, taken: list[Box], largest: float) -> Figure | None:
    """Give a figure a pose, a size and a place where it overlaps no other; None where there is none."""
    pose = _pose(chance)
    outline = [points @ pose for points in figure.outline]
    left, top, right, bottom = _extent(outline)
    width, height = right - left, bottom - top
    unit = _TRIAL / max(width, height)
    fill = outline_area([(points - (left, top)) * unit for points in outline], _TRIAL) / unit**2
    share = _SMALLEST * (largest / _SMALLEST) ** chance.number()
    scale = size * min(np.sqrt(share / fill), _FILL / max(width, height))
    while fill * scale**2 >= _LEAST * size**2:
        for _ in range(_TRIES):
            x, y = (chance.number(1, size - 1 - extent * scale) for extent in (width, height))
            box = (x - 1, y - 1, x + width * scale + 1, y + height * scale + 1)
            if not any(_overlap(box, other) for other in taken):
                taken.append(box)
                return figure.mapped(pose * scale, (x - left * scale, y - top * scale))
        scale *= _SHRINK
    return None


def _overlap(first: Box, second: Box) -> bool:
    return first[0] < second[2] and second[0] < first[2] and first[1] < second[3] and second[1] < first[3]


def _add_clutter(pixels: Pixels, grain: Field, chance: Chance) -> None:
    """Put some plain shapes into the background: a box or a disc alone is no object."""
    size = len(pixels)
    for _ in range(chance.integer(0, 4)):
        figure, kind = Figure(), chance.integer(0, 2)
        w, h = chance.number(0.06, 0.3) * size, chance.number(0.06, 0.3) * size
        if kind == 0:
            shape = panel(-w / 2, -h / 2, w / 2, h / 2)
        elif kind == 1:
            shape = ellipse((0, 0), w / 2, h / 2)
        else:
            shape = curve(*((chance.number(-w, w) / 2, chance.number(-h, h) / 2) for _ in range(4)))
        centre = np.array([chance.number(0, size - 1), chance.number(0, size - 1)])
        figure.add(shape @ rotation(chance.number(0, 180)) + centre, chance.pick(("body", "second", "dark", "glass")))
        _paint(pixels, figure, grain, chance)


def _paint(
    pixels: Pixels, figure: Figure, grain: Field, chance: Chance, own_tones: Mapping[str, Colour] = MappingProxyType({})
) -> NDArray[np.uint8]:
    """Draw a figure into a picture with light, shadow and grain, and return how much it covers of each pixel."""
    size = len(pixels)
    left, top, right, bottom = _extent(figure.outline)
    rows = slice(max(0, int(top) - 1), min(size, int(bottom) + 2))
    columns = slice(max(0, int(left) - 1), min(size, int(right) + 2))
    view = pixels[rows, columns]
    tones = {**_tones(chance, view.mean((0, 1))), **own_tones}
    small = _rendered(figure, (columns.start, rows.start), view.shape, tones)
    height, width, _ = view.shape
    drawn = np.asarray(small, np.float32)
    soft = small.getchannel("A").filter(ImageFilter.BoxBlur(0.06 * max(width, height)))
    light = 0.78 + np.asarray(soft, np.float32) * (0.22 / 255)  # darker towards the edge, as on round things
    light += np.linspace(0.12, -0.12, height, dtype=np.float32)[:, None]
    light += chance.number(0.03, 0.15) * grain[rows, columns]
    view += drawn[..., 3:] / 255 * (drawn[..., :3] * light[..., None] - view)
    alpha = np.zeros((size, size), np.uint8)
    alpha[rows, columns] = drawn[..., 3]
    return alpha


def _rendered(figure: Figure, corner: Point, shape: Sequence[int], tones: Mapping[str, Colour]) -> Image.Image:
    """Draw a figure alone: RGBA of a part of the scene whose upper left corner is given."""
    samples = int(np.clip(_CANVAS // max(shape), *_SAMPLES))  # Pillow widens polygons by half a sample
    large = Image.new("RGBA", (shape[1] * samples, shape[0] * samples))
    draw = ImageDraw.Draw(large)
    for part in figure.parts:
        corners = ((part.points - corner) * samples - 0.5).ravel().tolist()  # Pillow counts from samples' centres
        red, green, blue = (tones[part.tone] * part.shade).astype(int).tolist()
        draw.polygon(corners, fill=(red, green, blue, round(255 * part.opacity)))
    return large.reduce(samples)


def _typical_tones(name: str) -> dict[str, Colour]:
    """Colours of a class's own: hues at equal distances."""
    red, green, blue = hsv_to_rgb(list(FIGURES).index(name) / len(FIGURES), 0.8, 230)
    body = np.array((red, green, blue), np.float32)
    return {"body": body, "second": 0.8 * body}


def _tones(chance: Chance, behind: Colour) -> dict[str, Colour]:
    """Colours of a figure: any, but not that of what is behind it."""
    body, second = (
        max((random_colour(chance) for _ in range(3)), key=lambda c: float(np.abs(c - behind).sum())) for _ in range(2)
    )
    skin = np.array((236, 196, 168), np.float32) * chance.number(0.4, 1)
    hair = np.array(chance.pick(((40, 30, 25), (95, 60, 35), (200, 165, 95), (130, 130, 130))), np.float32)
    glass = np.array(chance.pick(((45, 55, 70), (165, 200, 220), (90, 120, 140))), np.float32)
    bright = float(body.mean()) > 120
    patch = np.array((50, 40, 35) if bright else (240, 235, 225), np.float32)
    return {
        "body": body,
        "second": second,
        "skin": skin,
        "hair": hair,
        "glass": glass,
        "patch": patch,
        "dark": np.array((32, 32, 36), np.float32),
        "rim": np.array((185, 185, 185), np.float32),
        "light": np.array((245, 240, 215), np.float32),
        "lamp": np.array((190, 40, 35), np.float32),
        "pink": np.array((226, 160, 150), np.float32),
        "eye": np.array((215, 215, 90), np.float32),
    }
