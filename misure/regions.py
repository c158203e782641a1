"""Spatial operations in two and three dimensions: resizing, the component at a point, the border of an object."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from misure.errors import MisureError
from misure.validation import plain, plain_tensor, shown, whole

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
    numbers = plain(point)
    place = tuple(whole(i) for i in numbers) if isinstance(numbers, Sequence) and not isinstance(numbers, str) else ()
    if len(place) != len(size) or None in place:
        raise MisureError(f"the point {shown(point)} is not a {name} of whole numbers")
    found = tuple(i for i in place if i is not None)
    if not all(0 <= i < side for i, side in zip(found, size, strict=True)):
        raise MisureError(
            f"the point {shown(found)} lies outside the image of {' x '.join(map(str, size))}: give {name}"
        )
    return found


def as_region(value: Any, name: str = "region") -> Tensor:
    """Return a region of interest as truth values: what is not zero is inside.

    Args:
        value: A tensor or an array of truth values or numbers, or nested lists of them.
        name: What an error calls it.

    Raises:
        MisureError: If it is anything else, or holds values between 0 and 1, below 0 or NaN, so that it is no mask.
    """
    try:
        region = plain_tensor(name, np.array(value) if isinstance(value, list | tuple) else value)
    except ValueError as error:
        raise MisureError(f"{name} is a list of rows of different lengths: give an array") from error
    if region.dtype == torch.bool:
        return region
    if region.is_complex() or not bool(((region == 0) | (region >= 1)).all()):
        raise MisureError(f"{name} holds values between 0 and 1, below 0 or NaN: make it a mask, such as {name} > 0.5")
    return region != 0


def regions_of(value: Any, images: Tensor) -> Tensor:
    """Return the region of interest of each image, bool, N x spatial, on the images' device.

    Args:
        value: Of spatial, N x spatial or N x 1 x spatial, what :func:`as_region` takes; one is for all images.
        images: N x C x spatial.

    Raises:
        MisureError: If it has another shape, or there is not one for each image.
    """
    region, sides = as_region(value), images.shape[2:]
    each = region[:, 0] if region.ndim == images.ndim and region.shape[1] == 1 else region
    each = each if each.ndim == images.ndim - 1 else each[None]
    if each.shape[1:] != sides:
        raise MisureError(f"the region has shape {tuple(region.shape)}, the image {tuple(sides)}")
    if len(each) not in {1, len(images)}:
        raise MisureError(f"{len(images)} images but {len(each)} regions: pass one for all, or one per image")
    return each.expand(len(images), *sides).to(images.device)


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
    from scipy.ndimage import distance_transform_cdt

    steps = whole(width)
    if steps is None or steps < 1:
        raise MisureError(f"border={shown(width)} is not a whole number of at least 1")
    outside_too = np.pad(mask.cpu().numpy(), 1)
    distances = distance_transform_cdt(outside_too, "chessboard")[(slice(1, -1),) * mask.ndim]
    return torch.from_numpy((distances > 0) & (distances <= min(steps, max(mask.shape)))).to(mask.device)


def predicted_as(logits: Tensor, class_ids: tuple[int, ...]) -> Tensor:
    """Return where each image's class has the largest logit, the first of equal ones: bool, N x spatial.

    That is ``logits.argmax(1) == class_ids``, which takes many times as long on a CPU; where a logit is NaN, nothing is
    predicted.

    Args:
        logits: N x L x spatial.
        class_ids: One an image, or one for all.
    """
    if len({*class_ids}) != 1:
        each = [predicted_as(logits[row : row + 1], (number,)) for row, number in enumerate(class_ids)]
        return torch.cat([*each, torch.zeros_like(logits[:0, 0], dtype=torch.bool)])
    number = class_ids[0]
    own = logits[:, number]
    largest = own >= logits[:, number:].amax(1)
    return largest & (own > logits[:, :number].amax(1)) if number else largest
