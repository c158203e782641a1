"""Generated scenes of eight object classes in COCO's layout: the stand-in for a machine without photographs.

The classes are silhouettes with parts and details that tell them apart; colours, textures and backgrounds are drawn
alike for all of them, so that no colour or brightness gives a class away, unless typical colours are asked for, which
a network learns in minutes. Objects of a scene never overlap.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from misure.datasets.coco.protocol import COCO_IDS, CROWD, VOC_NAMES
from misure.datasets.synthetic.cache import generate_once, generator_id
from misure.datasets.synthetic.scene_drawing import FIGURES, MOST_OBJECTS, SceneObject, make_scene, outline_area
from misure.errors import MisureError

_QUALITY = 90
_SPLITS = ("train", "val")


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
        ranges = {
            "train_images": (1, 100_000),
            "val_images": (1, 100_000),
            "size": (48, 1024),
            "seed": (0, 2**63 - 1),
        }
        for name, (low, high) in ranges.items():
            if not low <= getattr(self, name) <= high:
                raise MisureError(f"scenes.{name}={getattr(self, name)} is not a number from {low} to {high}")


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
        for split in _SPLITS:
            _write_split(unfinished, split, spec)

    return generate_once(home(folder, spec), write, "scenes")


def home(folder: Path, spec: SceneSpec) -> Path:
    """Where scenes of a specification lie, or will."""
    return folder / f"scenes-{generator_id(spec, Path(__file__).parent.glob('scene*.py'))}"


def _write_split(folder: Path, split: str, spec: SceneSpec) -> None:
    """Write the images of a split, then the file that describes them."""
    pictures, annotations = folder / f"{split}2017", folder / "annotations"
    for place in (pictures, annotations):
        place.mkdir(parents=True, exist_ok=True)
    images: list[dict[str, Any]] = []
    objects: list[dict[str, Any]] = []
    for number in range(spec.train_images if split == "train" else spec.val_images):
        scene = make_scene(spec.size, spec.seed, _SPLITS.index(split), number, typical_colours=spec.typical_colours)
        image_id = len(_SPLITS) * number + _SPLITS.index(split) + 1  # no two splits share an id, as in COCO
        name = f"{image_id:012d}.jpg"
        scene.image.save(pictures / name, quality=_QUALITY)
        entry = {"id": image_id, "file_name": name, "width": spec.size, "height": spec.size, "license": 0}
        images.append({**entry, "coco_url": ""})
        first = MOST_OBJECTS * image_id
        objects += [_annotation(first + slot, image_id, found, spec.size) for slot, found in enumerate(scene.objects)]
    content = {
        "info": {"description": "generated scenes", "version": "1", "contributor": "misure", "url": ""},
        "licenses": [{"id": 0, "name": "generated", "url": ""}],
        "categories": [{"id": number, "name": name} for number, name in sorted((_category(n), n) for n in FIGURES)],
        "images": images,
        "annotations": objects,
    }
    (annotations / f"instances_{split}2017.json").write_text(json.dumps(content))


def _annotation(number: int, image_id: int, found: SceneObject, size: int) -> dict[str, Any]:
    left, top, right, bottom = found.extent
    return {
        "id": number,
        "image_id": image_id,
        "category_id": _category(found.name),
        "segmentation": [part.ravel().tolist() for part in found.polygons],
        "area": outline_area(found.polygons, size),
        "bbox": [round(value, 2) for value in (left, top, right - left, bottom - top)],
        CROWD: 0,
    }


def _category(name: str) -> int:
    return COCO_IDS[VOC_NAMES.index(name)]
