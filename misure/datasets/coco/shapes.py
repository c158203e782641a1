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

Segmentation: TypeAlias = "list[list[float]] | dict[str, list[int]]"
"""Polygons (x, y, x, y, ...), or ``counts`` and ``size``: run lengths down the columns, background first."""

_FAR = 10
"""Points may be this many times the longer side away from the image's corner; what is further is damage."""

_THIN = 1e-6
"""Area in pixels below which a polygon is a line: far above rounding, far below what any pixel's share is."""


def sound(segmentation: object, height: int, width: int) -> Segmentation:
    """Return the part of a segmentation that can be drawn: polygons with an area, or run lengths.

    Raises:
        ValueError: If there is none; the message says why.
    """
    if isinstance(segmentation, list):
        polygons = [part for part in segmentation if _covers_something(part, height, width)]
        if not polygons:
            raise ValueError("none of its polygons covers anything" if segmentation else "its segmentation is empty")
        return polygons
    if not isinstance(segmentation, dict):
        raise ValueError("it has no segmentation")  # noqa: TRY004 - a fault of the file, as the others
    counts = segmentation.get("counts")
    if segmentation.get("size") != [height, width]:
        raise ValueError("its run lengths are not of the image's size")
    if not isinstance(counts, list) or not all(isinstance(n, int) and n >= 0 for n in counts):
        raise ValueError("its run lengths are no list of whole numbers")
    if sum(counts) != height * width:
        raise ValueError("its run lengths do not fill the image")
    if not any(counts[1::2]):
        raise ValueError("it covers nothing")
    return {"counts": counts, "size": [height, width]}


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


def _covers_something(polygon: object, height: int, width: int) -> bool:
    if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
        return False
    farthest = _FAR * max(height, width)
    if not all(isinstance(value, int | float) and abs(value) <= farthest for value in polygon):
        return False
    x, y = np.array(polygon, np.float64).reshape(-1, 2).T
    if x.max() <= 0 or y.max() <= 0 or x.min() >= width or y.min() >= height:
        return False
    return bool(abs(x @ np.roll(y, 1) - y @ np.roll(x, 1)) / 2 > _THIN)
