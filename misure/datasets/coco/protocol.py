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
from misure.datasets.coco.values import Identity, file_name_of, flag_of, identity_of, whole_number, whole_of
from misure.datasets.credit import LICENCE_TEXTS, UNKNOWN_LICENCE, Credit
from misure.errors import MisureError
from misure.io.reading import reading
from misure.randomness import permutation
from misure.validation import shown

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
        content = json.loads(path.read_bytes())
    _check_kind(path, content)
    images, faults = _without_faults("image", content["images"], _read_image)
    images, ambiguous = _of_one_identity(images)
    sizes = {image["id"]: (image["height"], image["width"]) for image in images}
    annotations, more = _without_faults("annotation", content["annotations"], lambda a: _read_annotation(a, sizes))
    faults += ambiguous + more
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


def annotated_classes(coco: COCO, image_id: Identity) -> set[int]:
    """Return the VOC labels with at least one object of their own in an image (a crowd is not one)."""
    categories = {a["category_id"] for a in coco.imgToAnns[image_id] if not a.get(CROWD)}
    return {label for label, category in enumerate(COCO_IDS) if label and category in categories}


def choose_images(coco: COCO, classes: Sequence[int], per_class: int, seed: int) -> list[Identity]:
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
    chosen: set[Identity] = set()
    annotated = {image: annotated_classes(coco, image) for image in sorted(coco.imgs, key=_numbers_first)}
    for label in classes:
        images = [image for image, labels in annotated.items() if label in labels]
        order = permutation(len(images), seed, _CLASS_KEY, label)
        chosen.update(images[i] for i in order[:per_class])
    return sorted(chosen, key=_numbers_first)


def _numbers_first(identity: Identity) -> tuple[bool, Identity]:
    return isinstance(identity, str), identity


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
    numbers = [whole_number(category.get("id")) for category in listed]
    return [category | {"id": n} for category, n in zip(listed, numbers, strict=True) if n is not None]


def _without_faults(
    kind: str, entries: list[Any], read: Callable[[dict[str, Any]], None]
) -> tuple[list[dict[str, Any]], list[str]]:
    """Return the entries that can be read, and the faults of the others."""
    sound, faults = [], []
    for place, entry in enumerate(entries):
        name = entry.get("id") if isinstance(entry, dict) else None
        called = f"{kind} {f'at place {place}' if name is None else shown(name)}"
        if not isinstance(entry, dict):
            faults.append(f"{called}: it is no list of properties")
            continue
        try:
            read(entry)
        except ValueError as error:
            faults.append(f"{called}: {error}")
        else:
            sound.append(entry)
    return sound, faults


def _read_image(image: dict[str, Any]) -> None:
    """Put plain values into an image's entry, or raise a ValueError that says what is wrong with it."""
    image["file_name"] = file_name_of(image, "file_name")
    image["id"] = identity_of(image, "id")
    image |= {side: whole_of(image, side) for side in ("height", "width")}
    if min(image["height"], image["width"]) < 1:
        raise ValueError("it has no pixels")


def _of_one_identity(images: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[str]]:
    """Return images each once, without those that share their identity with another, and the faults of these."""
    by_identity: dict[Identity, list[dict[str, Any]]] = {}
    for image in images:
        by_identity.setdefault(image["id"], []).append(image)
    what = ("file_name", "height", "width")
    kinds = {identity: {tuple(map(image.get, what)) for image in same} for identity, same in by_identity.items()}
    faults = [f"image {identity}: {len(of)} images have this id" for identity, of in kinds.items() if len(of) > 1]
    return [same[0] for identity, same in by_identity.items() if len(kinds[identity]) == 1], faults


def _read_annotation(annotation: dict[str, Any], sizes: Mapping[Identity, tuple[int, int]]) -> None:
    """Put plain values into an annotation, without what cannot be drawn, or raise a ValueError that says why."""
    annotation["id"] = identity_of(annotation, "id")
    annotation["image_id"] = identity_of(annotation, "image_id")
    annotation["category_id"] = whole_of(annotation, "category_id")
    annotation[CROWD] = int(flag_of(annotation, CROWD))
    if annotation["image_id"] not in sizes:
        raise ValueError(f"image {annotation['image_id']} is not listed")
    if annotation["category_id"] in COCO_IDS[1:]:  # others are never drawn
        annotation["segmentation"] = sound(annotation.get("segmentation"), *sizes[annotation["image_id"]])
