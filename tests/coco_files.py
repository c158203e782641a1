"""A miniature COCO folder: JPEG or PNG files and their annotations as polygons and run lengths, with licences."""

from __future__ import annotations

import json
from itertools import groupby
from pathlib import Path

import numpy as np
from PIL import Image

CATEGORIES = {1: "person", 2: "bicycle", 3: "car", 4: "motorcycle", 6: "bus", 7: "train", 17: "cat", 18: "dog"}
CATEGORIES |= {21: "cow", 27: "backpack"}
"""Names by id; a backpack is none of Pascal VOC's objects."""

VOC_CLASSES = {"bus": 6, "car": 3, "cat": 17, "bicycle": 2, "cow": 21, "dog": 18, "person": 1, "train": 7}
"""COCO's ids of the eight explained classes, by VOC label."""

LICENCES = {1: "by-nc-sa", 2: "by-nc", 3: "by-nc-nd", 4: "by", 5: "by-sa", 6: "by-nd"}
"""Creative Commons' short names by COCO's number."""


def picture(width=24, height=18, seed=0):
    """A smooth photograph, H x W x 3, no two corners alike; smooth, so that JPEG changes it little."""
    corners = np.random.default_rng(seed).integers(0, 256, (2, 2, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(corners).resize((width, height), Image.Resampling.BILINEAR))


def box(left, top, right, bottom):
    """A rectangle as a polygon: pixels left to right - 1 and top to bottom - 1."""
    return [[left, top, right, top, right, bottom, left, bottom]]


def run_lengths(mask):
    """COCO's uncompressed run lengths of a mask: down the columns, background first."""
    column_wise = np.asarray(mask, bool).ravel(order="F").tolist()
    counts = [len(list(group)) for _, group in groupby(column_wise)]
    return {"counts": [0, *counts] if column_wise[0] else counts, "size": list(np.shape(mask))}


class CocoFolder:
    """``<data_root>/coco`` in the official layout; call ``write`` after the last change of ``content``."""

    def __init__(self, data_root: Path) -> None:
        self.data_root = data_root
        self.images = data_root / "coco" / "val2017"
        self.annotations = data_root / "coco" / "annotations" / "instances_val2017.json"
        self.content = {
            "info": {},
            "licenses": [
                {"id": number, "name": name, "url": rf"http:\/\/creativecommons.org\/licenses\/{name}\/2.0\/"}
                for number, name in LICENCES.items()
            ],
            "categories": [{"id": i, "name": name} for i, name in CATEGORIES.items()],
            "images": [],
            "annotations": [],
        }
        self.images.mkdir(parents=True)
        self.annotations.parent.mkdir(parents=True)

    def add(self, objects=(), crowds=(), pixels=None, *, size=None, licence=4, name=None, **saving):
        """Add an image, by default :func:`picture`; return its file.

        Args:
            objects: Pairs of a category and a segmentation.
            crowds: The same for crowds.
            pixels: A PIL image or an array.
            size: Width and height in the annotations; None means those of the pixels.
            licence: Its id.
            name: Of the file; its ending decides on the format.
            **saving: Of PIL's ``save``.
        """
        number = 1 + len(self.content["images"])
        pixels = picture(seed=number) if pixels is None else pixels
        image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
        path = self.images / (name or f"{number:012d}.jpg")
        image.save(path, **{"quality": 95} | saving)
        width, height = size or image.size
        entry = {"id": number, "file_name": path.name, "width": width, "height": height, "license": licence}
        self.content["images"].append(entry | {"flickr_url": f"http://example.org/{number}.jpg"})
        for crowd, shapes in enumerate((objects, crowds)):
            for category, segmentation in shapes:
                self.annotate(number, category, segmentation, iscrowd=crowd)
        return path

    def annotate(self, image, category, segmentation, **fields):
        """Add an annotation to an image that was added before."""
        number = 1 + len(self.content["annotations"])
        entry = {"id": number, "image_id": image, "category_id": category, "segmentation": segmentation, "iscrowd": 0}
        self.content["annotations"].append(entry | fields)

    def write(self) -> Path:
        """Write the annotations and return the data root."""
        self.annotations.write_text(json.dumps(self.content), encoding="utf-8")
        return self.data_root


def miniature(data_root: Path, per_class: int = 1, width: int = 24, height: int = 18) -> Path:
    """Write images of every explained class, each with a person's crowd and a licence of 1 to 6; return the root."""
    folder = CocoFolder(data_root)
    crowd = np.zeros((height, width), bool)
    crowd[:2, -4:] = True
    middle = box(width // 4, height // 4, 3 * width // 4, 3 * height // 4)
    for number in range(per_class * len(VOC_CLASSES)):
        category = list(VOC_CLASSES.values())[number % len(VOC_CLASSES)]
        pixels = picture(width, height, seed=number)
        folder.add([(category, middle)], [(1, run_lengths(crowd))], pixels, licence=1 + number % 6)
    return folder.write()
