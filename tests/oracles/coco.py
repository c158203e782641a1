"""COCO's label maps pixel by pixel, and antialiased bilinear resizing as explicit matrices."""

from __future__ import annotations

import numpy as np

VOC_LABEL_OF = {5: 1, 2: 2, 16: 3, 9: 4, 44: 5, 6: 6, 3: 7, 17: 8, 62: 9, 21: 10, 67: 11, 18: 12, 19: 13, 4: 14}
VOC_LABEL_OF |= {1: 15, 64: 16, 20: 17, 63: 18, 7: 19, 72: 20}


def label_map(height: int, width: int, annotations: list[dict]) -> np.ndarray:
    """One object: its label. None: 0. Several, or a crowd: 255."""
    labels = np.zeros((height, width), np.uint8)
    for y in range(height):
        for x in range(width):
            here = [
                a for a in annotations if a["category_id"] in VOC_LABEL_OF and _covers(a["segmentation"], x, y, height)
            ]
            if len(here) == 1:
                labels[y, x] = VOC_LABEL_OF[here[0]["category_id"]]
            if len(here) > 1 or any(a["iscrowd"] for a in here):
                labels[y, x] = 255
    return labels


def _covers(segmentation, x: int, y: int, height: int) -> bool:
    if isinstance(segmentation, list):
        return any(inside(polygon, x + 0.5, y + 0.5) for polygon in segmentation)
    left = x * height + y
    for run, length in enumerate(segmentation["counts"]):
        if left < length:
            return run % 2 == 1
        left -= length
    raise AssertionError("run lengths end before the image does")


def inside(polygon: list[float], x: float, y: float) -> bool:
    """Count the edges to the right of a point."""
    points = list(zip(polygon[::2], polygon[1::2], strict=True))
    crossings = 0
    for (x1, y1), (x2, y2) in zip(points, points[1:] + points[:1], strict=True):
        if (y1 > y) != (y2 > y) and x < x1 + (y - y1) * (x2 - x1) / (y2 - y1):
            crossings += 1
    return crossings % 2 == 1


def antialiased_matrix(n_out: int, n_in: int) -> np.ndarray:
    """A tent as wide as an output pixel, or as an input pixel where the picture grows; weights sum to one."""
    scale = n_in / n_out
    reach = max(scale, 1.0)
    matrix = np.zeros((n_out, n_in))
    for i in range(n_out):
        for j in range(n_in):
            matrix[i, j] = max(0.0, 1 - abs((j + 0.5) - (i + 0.5) * scale) / reach)
        matrix[i] /= matrix[i].sum()
    return matrix
