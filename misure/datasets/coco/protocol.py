"""COCO-2017 as the paper uses it: eight classes of a network with Pascal VOC's 21 labels, and which images to take."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pycocotools.coco import COCO

from misure.datasets.coco.shapes import sound
from misure.datasets.credit import LICENCE_TEXTS, UNKNOWN_LICENCE, Credit
from misure.errors import MisureError
from misure.io.reading import reading
from misure.randomness import permutation

_VOC = """background aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse motorbike person
    pottedplant sheep sofa train tvmonitor"""

VOC_NAMES = tuple(_VOC.split())
"""Pascal VOC's labels, in the order of the logits."""

COCO_IDS = (0, 5, 2, 16, 9, 44, 6, 3, 17, 62, 21, 67, 18, 19, 4, 1, 64, 20, 63, 7, 72)
"""COCO's category of every VOC label; 0 for the background."""

_COCO_NAMES = {
    "aeroplane": "airplane",
    "diningtable": "dining table",
    "motorbike": "motorcycle",
    "pottedplant": "potted plant",
    "sofa": "couch",
    "tvmonitor": "tv",
}

CROWD = "iscrowd"
_CLASS_KEY = 15485863  # keeps the draw of images apart from everything else keyed by the seed


def read_annotations(path: Path) -> tuple[COCO, list[str]]:
    """Read a COCO annotation file, without annotations that belong to no image or cannot be drawn.

    Returns:
        The annotations, and a reason for each one that is left out.

    Raises:
        MisureError: If it is missing, damaged or something else.
    """
    with reading(path, "place COCO's annotation file there"):
        content = json.loads(path.read_text(encoding="utf-8"))
    _check_kind(path, content)
    images, faults = _without_faults("image", content["images"], _image_fault)
    sizes = {image["id"]: (image["height"], image["width"]) for image in images}
    annotations, more = _without_faults("annotation", content["annotations"], lambda a: _annotation_fault(a, sizes))
    faults += more
    if not annotations:
        raise MisureError(f"{path} has no annotation that can be used: {'; '.join(faults[:1]) or 'the list is empty'}")
    coco = COCO()
    coco.dataset = content | {"images": images, "annotations": annotations, "categories": _categories(content)}
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools reports on every step
        coco.createIndex()
    return coco, faults


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
    categories = {a["category_id"] for a in coco.imgToAnns[image_id] if not a.get(CROWD)}
    return {label for label, category in enumerate(COCO_IDS) if label and category in categories}


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
        images = [image for image, labels in annotated.items() if label in labels]
        order = permutation(len(images), seed, _CLASS_KEY, label)
        chosen.update(images[i] for i in order[:per_class])
    return sorted(chosen)


def credit_of(coco: COCO, image: Mapping[str, Any]) -> Credit:
    """Say who made an image, as far as the annotation file knows.

    A number stands for COCO's licence only if the file gives the text that COCO gives: other files number licences
    in other ways, and many lack them.
    """
    number = image.get("license")
    entries = coco.dataset.get("licenses")
    listed = [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []
    entry = next((entry for entry in listed if number is not None and entry.get("id") == number), {})
    text = str(entry.get("url", "")).replace("\\", "")
    url = str(image.get("flickr_url") or image.get("coco_url") or "")
    licences = [n for n, address in LICENCE_TEXTS.items() if n == number and address in text]
    return Credit(licences[0] if licences else UNKNOWN_LICENCE, str(entry.get("name", "unknown")), text, url)


def _check_kind(path: Path, content: Any) -> None:
    """Refuse files that are no instance annotations with COCO's categories."""
    lists = content if isinstance(content, dict) else {}
    missing = [key for key in ("images", "annotations", "categories") if not isinstance(lists.get(key), list)]
    if missing:
        raise MisureError(f"{path} holds no COCO instances: it has no list of {' and of '.join(missing)}")
    names = {category["id"]: category.get("name") for category in _categories(content)}
    for voc_name, category in zip(VOC_NAMES[1:], COCO_IDS[1:], strict=True):
        name = names.get(category)
        if isinstance(name, str) and name not in {voc_name, _COCO_NAMES.get(voc_name)}:
            raise MisureError(f"{path} has other categories than COCO: {category} is {name!r}, not {voc_name!r}")


def _categories(content: dict[str, Any]) -> list[dict[str, Any]]:
    listed = [category for category in content["categories"] if isinstance(category, dict)]
    return [category for category in listed if isinstance(category.get("id"), int)]


def _without_faults(
    kind: str, entries: list[Any], fault: Callable[[dict[str, Any]], str | None]
) -> tuple[list[dict[str, Any]], list[str]]:
    """Return the entries without a fault, and the faults of the others."""
    sound, faults = [], []
    for place, entry in enumerate(entries):
        reason = fault(entry) if isinstance(entry, dict) else "it is no list of properties"
        if reason is None:
            sound.append(entry)
        else:
            number = entry.get("id") if isinstance(entry, dict) else None
            faults.append(f"{kind} {f'at place {place}' if number is None else number}: {reason}")
    return sound, faults


def _lacking(entry: Mapping[str, Any], **kinds: type) -> str | None:
    return next((f"it has no {key}" for key, kind in kinds.items() if not isinstance(entry.get(key), kind)), None)


def _image_fault(image: dict[str, Any]) -> str | None:
    if lacking := _lacking(image, file_name=str, id=int, height=int, width=int):
        return lacking
    return None if min(image["height"], image["width"]) > 0 else "it has no pixels"


def _annotation_fault(annotation: dict[str, Any], sizes: Mapping[int, tuple[int, int]]) -> str | None:
    """Say why an annotation cannot be used; of one that can, what cannot be drawn is removed."""
    if lacking := _lacking(annotation, id=int, image_id=int, category_id=int):
        return lacking
    if annotation["image_id"] not in sizes:
        return f"image {annotation['image_id']} is not listed"
    if annotation["category_id"] in COCO_IDS[1:]:  # others are never drawn
        try:
            annotation["segmentation"] = sound(annotation.get("segmentation"), *sizes[annotation["image_id"]])
        except ValueError as error:
            return str(error)
    return None
