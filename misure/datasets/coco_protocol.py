"""COCO-2017 as the paper uses it: eight classes of a network with Pascal VOC's 21 labels, and which images to take."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from pycocotools.coco import COCO

from misure.datasets.credit import Credit
from misure.errors import MisureError
from misure.randomness import permutation

_VOC = """background aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse motorbike person
    pottedplant sheep sofa train tvmonitor"""

VOC_NAMES = tuple(_VOC.split())
"""Pascal VOC's labels, in the order of the logits."""

COCO_IDS = (0, 5, 2, 16, 9, 44, 6, 3, 17, 62, 21, 67, 18, 19, 4, 1, 64, 20, 63, 7, 72)
"""COCO's category of every VOC label; 0 for the background."""

CROWD = "iscrowd"
_CLASS_KEY = 15485863  # keeps the draw of images apart from everything else keyed by the seed


def load_annotations(path: Path) -> COCO:
    """Read a COCO annotation file.

    Raises:
        MisureError: If it is missing, damaged or something else.
    """
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # pycocotools reports on every step
            coco = COCO(str(path))
            missing = {"images", "annotations", "categories"} - set(coco.dataset)
    except (OSError, json.JSONDecodeError, UnicodeDecodeError, AssertionError, KeyError, TypeError) as error:
        reason = "there is no such file" if isinstance(error, FileNotFoundError) else f"it is damaged ({error})"
        raise MisureError(f"{path} cannot be read: {reason}; place COCO's annotation file there") from error
    if missing:
        raise MisureError(f"{path} is no COCO annotation file: it lacks {', '.join(sorted(missing))}")
    return coco


def class_ids(names: Sequence[str]) -> tuple[int, ...]:
    """Return the logits' indices of some VOC labels.

    Raises:
        MisureError: If there is no such label.
    """
    for name in names:
        if name not in VOC_NAMES[1:]:
            raise MisureError(f"dataset.classes: {name!r} is none of Pascal VOC's classes: {', '.join(VOC_NAMES[1:])}")
    return tuple(VOC_NAMES.index(name) for name in names)


def annotated_classes(coco: COCO, image_id: int) -> set[int]:
    """Return the VOC labels with at least one object of their own in an image (a crowd is not one)."""
    found = {a["category_id"] for a in coco.imgToAnns[image_id] if not a.get(CROWD)}
    return {label for label, category in enumerate(COCO_IDS) if label and category in found}


def choose_images(coco: COCO, classes: Sequence[int], per_class: int, seed: int) -> list[int]:
    """Draw the images that the protocol needs, from annotations alone.

    For every class at most ``per_class`` images in which it is annotated, in an order keyed by (seed, class).

    Args:
        coco: The annotations.
        classes: VOC labels.
        per_class: Images for each of them; twice what is explained leaves room for classes that the network misses.
        seed: Same seed, same images.

    Returns:
        Ids of the images, sorted, each once.
    """
    chosen: set[int] = set()
    annotated = {image: annotated_classes(coco, image) for image in sorted(coco.imgs)}
    for label in classes:
        images = [image for image, found in annotated.items() if label in found]
        order = permutation(len(images), seed, _CLASS_KEY, label)
        chosen.update(images[i] for i in order[:per_class])
    return sorted(chosen)


def credit_of(coco: COCO, image: Mapping[str, Any]) -> Credit:
    """Say who made an image, as far as the annotation file knows."""
    licences = {entry["id"]: entry for entry in cast("list[dict[str, Any]]", coco.dataset.get("licenses", []))}
    number = int(image.get("license", 0))
    entry = licences.get(number, {})
    url = str(image.get("flickr_url") or image.get("coco_url") or "")
    return Credit(number, str(entry.get("name", "unknown")), str(entry.get("url", "")).replace("\\", ""), url)
