"""Spatial operations in two and three dimensions: resizing, the component at a point, the border of an object."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate, pad

from misure.errors import MisureError

_LINEAR = {2: "bilinear", 3: "trilinear"}


def resized(maps: Tensor, size: Sequence[int], *, antialias: bool = False) -> Tensor:
    """Resize maps linearly along every axis; pixels are areas, not points (``align_corners=False``).

    Args:
        maps: float, spatial, N x spatial or N x C x spatial.
        size: H x W or D x H x W.
        antialias: Average over all pixels that a new one covers, where it is larger; of pictures alone.

    Returns:
        The same with that size; the maps themselves where they have it already.
    """
    leading, old = maps.shape[: -len(size)], maps.shape[-len(size) :]
    if tuple(old) == tuple(size):
        return maps
    planes = maps if len(leading) == 2 else maps.reshape(-1, 1, *old)
    larger = interpolate(planes, size=tuple(size), mode=_LINEAR[len(size)], align_corners=False, antialias=antialias)
    return larger.reshape(*leading, *size)


def point_within(point: Any, size: Sequence[int]) -> tuple[int, ...]:
    """Return a point as plain integers.

    Args:
        point: (row, column), or (slice, row, column) in a volume, counted from 0.
        size: H x W or D x H x W.

    Raises:
        MisureError: If it is no such point or lies outside.
    """
    name = "(row, column)" if len(size) == 2 else "(slice, row, column)"
    whole = isinstance(point, Sequence) and all(isinstance(i, Integral) and not isinstance(i, bool) for i in point)
    if not whole or len(point) != len(size):
        raise MisureError(f"the point {point} is not a {name} of whole numbers")
    place = tuple(int(i) for i in point)
    if not all(0 <= i < side for i, side in zip(place, size, strict=True)):
        raise MisureError(f"the point {place} lies outside the image of {' x '.join(map(str, size))}: give {name}")
    return place


def component_at(mask: Tensor, point: Any) -> Tensor:
    """Return the connected component of a mask at a point.

    Pixels are connected when they share a side or a corner (8 neighbours; 26 in a volume).

    Args:
        mask: bool, H x W or D x H x W.
        point: (row, column) or (slice, row, column).

    Returns:
        bool, the mask's shape.

    Raises:
        MisureError: If the point lies outside or is not set.
    """
    from scipy.ndimage import generate_binary_structure, label

    place = point_within(point, mask.shape)
    labels, _ = label(mask.cpu().numpy(), generate_binary_structure(mask.ndim, mask.ndim))
    if labels[place] == 0:
        raise MisureError(f"the point {place} is not on the object: choose a point inside what is predicted")
    return torch.from_numpy(labels == labels[place]).to(mask.device)


def border_of(mask: Tensor, width: Any) -> Tensor:
    """Return the inner rim of an object: its pixels within ``width`` steps of a pixel outside.

    A step goes to one of the 8 neighbours (26 in a volume), and beyond the image is outside, so the
    rim of an object that is not empty is never empty.

    Args:
        mask: bool, H x W or D x H x W.
        width: At least 1.

    Returns:
        bool, the mask's shape.

    Raises:
        MisureError: If the width is no whole number of at least 1.
    """
    if isinstance(width, bool) or not isinstance(width, Integral) or int(width) < 1:
        raise MisureError(f"border={width} is not a whole number of at least 1")
    inside = pad(mask, [int(width)] * (2 * mask.ndim))
    for axis in range(mask.ndim):
        inside = inside.unfold(axis, 2 * int(width) + 1, 1).all(-1)
    return mask & ~inside
