"""COCO's segmentations: which of them can be drawn, and drawing them with pycocotools.

pycocotools trusts what it draws: a coordinate that is no number keeps it busy for ever, one far outside the image ends
the process, and run lengths that do not fill the image leave pixels as they were in memory. Hence the check before.
"""

from __future__ import annotations

import warnings
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask

from misure.datasets.coco.values import number, whole_number
from misure.validation import shown

Segmentation: TypeAlias = "list[list[float]] | dict[str, list[int]]"
"""Polygons (x, y, x, y, ...), or ``counts`` and ``size``: run lengths down the columns, background first."""

_FAR = 10
"""Points may be this many times the longer side away from the image's corner; what is further is damage."""

_FIRST, _MORE, _NEGATIVE, _MOST_BITS = 48, 32, 16, 30  # of packed run lengths below 2**31
_THIN = 1e-6
"""Area in pixels below which a polygon is a line: far above rounding, far below what any pixel's share is."""


def sound(segmentation: object, height: int, width: int) -> Segmentation:
    """Return the part of a segmentation that can be drawn: polygons with an area, or run lengths.

    Numbers may be text, a single polygon may stand without the list around it, and run lengths may be packed.

    Raises:
        ValueError: If there is none; the message says why.
    """
    if isinstance(segmentation, list):
        alone = bool(segmentation) and not any(isinstance(part, list | dict) for part in segmentation)
        given = [_numbers(part) for part in ([segmentation] if alone else segmentation)]
        polygons = [polygon for polygon in given if _covers_something(polygon, height, width)]
        if not polygons:
            raise ValueError("none of its polygons covers anything" if segmentation else "its segmentation is empty")
        return polygons
    if not isinstance(segmentation, dict):
        kind = f" but {shown(repr(segmentation))}" if segmentation is not None else ""
        raise ValueError(f"it has no segmentation{kind}")  # noqa: TRY004 - a fault of the file, as the others
    size = segmentation.get("size")
    if not isinstance(size, list) or [whole_number(side) for side in size] != [height, width]:
        raise ValueError("its run lengths are not of the image's size")
    counts = _run_lengths(segmentation.get("counts"))
    if counts is None:
        raise ValueError("its run lengths are no list of whole numbers")
    if sum(counts) != height * width:
        raise ValueError("its run lengths do not fill the image")
    if not any(counts[1::2]):
        raise ValueError("it covers nothing")
    return {"counts": counts, "size": [height, width]}


def _run_lengths(counts: object) -> list[int] | None:
    """Return run lengths as whole numbers of at least 0; None if they are none."""
    if isinstance(counts, str):
        return _unpacked(counts)
    if not isinstance(counts, list):
        return None
    lengths = [length for count in counts if (length := whole_number(count)) is not None and length >= 0]
    return lengths if len(lengths) == len(counts) else None


def _unpacked(text: str) -> list[int] | None:
    """Unpack COCO's compressed run lengths: five bits a character, lowest first; later ones are changes."""
    counts: list[int] = []
    value, shift = 0, 0
    for character in text.encode("ascii", "replace"):
        bits = character - _FIRST
        if not 0 <= bits < _MORE << 1 or shift > _MOST_BITS:
            return None
        value |= (bits & (_MORE - 1)) << shift
        shift += 5
        if bits & _MORE:
            continue
        if bits & _NEGATIVE:
            value -= 1 << shift
        value += counts[-2] if len(counts) > 2 else 0
        if value < 0:
            return None
        counts.append(value)
        value, shift = 0, 0
    return None if shift else counts


def drawn(segmentation: Any, height: int, width: int) -> NDArray[np.bool_]:
    """Draw a segmentation that :func:`sound` returned.

    Returns:
        H x W, true inside.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "__array__ implementation", DeprecationWarning)  # pycocotools with NumPy 2
        lengths = mask.frPyObjects(segmentation, height, width)
        inside = mask.decode(mask.merge(lengths) if isinstance(lengths, list) else lengths)
    return np.asarray(inside, np.bool_)


def _numbers(polygon: object) -> list[float]:
    if not isinstance(polygon, list):
        raise ValueError(f"its polygons hold {shown(repr(polygon))}")  # noqa: TRY004 - a fault of the file
    values = [number(value) for value in polygon]
    if None in values:
        raise ValueError(f"a coordinate of its polygons is {shown(repr(polygon[values.index(None)]))}, no number")
    return [value for value in values if value is not None]


def _covers_something(polygon: list[float], height: int, width: int) -> bool:
    farthest = _FAR * max(height, width)
    if len(polygon) < 6 or len(polygon) % 2 or not all(abs(value) <= farthest for value in polygon):
        return False
    x, y = np.array(polygon, np.float64).reshape(-1, 2).T
    if x.max() <= 0 or y.max() <= 0 or x.min() >= width or y.min() >= height:
        return False
    return bool(abs(x @ np.roll(y, 1) - y @ np.roll(x, 1)) / 2 > _THIN)
