"""Pictures for the page, as arrays: predictions, rings, masks and maps drawn over the image."""

from __future__ import annotations

import base64
import io
from colorsys import hsv_to_rgb
from functools import cache
from typing import Any

import numpy as np
import torch
from matplotlib import colormaps
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate, max_pool2d

from misure.app.scene import NOTHING
from misure.explainers.sufficient_region import dilate
from misure.plotting import MAP_COLOURS

Picture = NDArray[np.uint8]
"""H x W x 3."""

OUTLINE = (255, 255, 255)
"""Colour of the object's outline, on a dark rim."""

_SHOWN_SIDE = 448
"""Smaller images are enlarged by a whole factor to about this."""

_MOST_RINGS = 200
_JPEG_QUALITY = 88


def enlargement(pixels: Tensor) -> int:
    """By which whole factor an image, C x H x W, is enlarged to be shown."""
    return max(1, _SHOWN_SIDE // max(pixels.shape[1:]))


def photograph(pixels: Tensor) -> Picture:
    """Turn an image, C x H x W in [0, 1], into a picture, enlarged if it is small."""
    colours = pixels[:3] if len(pixels) >= 3 else pixels[:1].expand(3, -1, -1)
    array = (colours.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy()
    return _enlarged(array, enlargement(pixels))


def class_colour(class_id: int) -> tuple[int, int, int]:
    """Return a class's colour, the same in every image."""
    hue = (0.58 + 0.381966 * class_id) % 1  # golden angle: neighbours in number are far apart in colour
    red, green, blue = hsv_to_rgb(hue, 0.85 - 0.2 * (class_id % 2), 0.95 - 0.15 * (class_id % 3 == 2))
    return round(255 * red), round(255 * green), round(255 * blue)


def prediction_picture(pixels: Tensor, labels: Tensor, region: Tensor | None = None) -> Picture:
    """Draw predicted classes in colour; with a region, only it is coloured and the rest darkened.

    Args:
        pixels: float, C x H x W in [0, 1].
        labels: int64, H x W.
        region: bool, H x W: the target, or None.
    """
    picture, factor = photograph(pixels).astype(np.float32), enlargement(pixels)
    label_map = _enlarged(labels.numpy(), factor)
    for class_id in np.unique(label_map[label_map != NOTHING]).tolist():
        where = label_map == class_id
        picture[where] = 0.45 * picture[where] + 0.55 * np.array(class_colour(class_id))
    if region is not None:
        outside = ~_enlarged(region.numpy(), factor)
        picture[outside] *= 0.45
        return _outlined(_whole(picture), region, factor)
    return _whole(picture)


def rings_picture(pixels: Tensor, region: Tensor, reached: Tensor) -> Picture:
    """Draw stage 1: the object, and a line around each dilation up to the one reached.

    Args:
        pixels: float, C x H x W in [0, 1].
        region: bool, H x W: the object.
        reached: bool, H x W: how far it was dilated.
    """
    factor = enlargement(pixels)
    shown = photograph(pixels).astype(np.float32)
    shown[~_enlarged(reached.bool().numpy(), factor)] *= 0.35
    picture = _whole(shown)
    rings = dilations(region, reached)
    for place, ring in enumerate(rings[1:], start=1):
        colour = colormaps["plasma"](0.35 + 0.6 * place / len(rings))[:3]
        picture = _outlined(picture, ring, factor, tuple(round(255 * part) for part in colour))
    return _outlined(picture, region, factor)


def dilations(region: Tensor, reached: Tensor) -> list[Tensor]:
    """Dilate an object until it covers what was reached: the object first."""
    rings = [region]
    while bool((reached.bool() & ~rings[-1]).any()) and len(rings) < _MOST_RINGS:
        rings.append(dilate(rings[-1][None])[0])
    return rings


def mask_picture(pixels: Tensor, region: Tensor, mask: Tensor, sufficient: Tensor | None = None) -> Picture:
    """Draw what a mask keeps: the rest of the image fades into dark grey; the object is outlined.

    Args:
        pixels: float, C x H x W in [0, 1].
        region: bool, H x W: the object.
        mask: bool or float in [0, 1], H x W or smaller.
        sufficient: bool, H x W: the sufficient region, outlined too where given.
    """
    factor, size = enlargement(pixels), pixels.shape[1:]
    weight = _enlarged(_resized(mask.float(), size).clamp(0, 1).numpy(), factor)[..., None]
    photo = photograph(pixels).astype(np.float32)
    faded = 0.18 * photo + 24
    picture = _whole(photo * weight + faded * (1 - weight))
    if sufficient is not None:
        picture = _outlined(picture, sufficient.bool(), factor, (240, 180, 60))
    return _outlined(picture, region, factor)


def map_picture(pixels: Tensor, region: Tensor, saliency: Tensor) -> Picture:
    """Draw a map, scaled from its lowest to its highest value, over the grey image.

    Args:
        pixels: float, C x H x W in [0, 1].
        region: bool, H x W: the object.
        saliency: float, H x W or smaller.
    """
    factor = enlargement(pixels)
    values = _resized(saliency.float(), pixels.shape[1:])
    low, high = float(values.min()), float(values.max())
    scaled = (values - low) / (high - low) if high > low else torch.zeros_like(values)
    heat = colormaps[MAP_COLOURS](_enlarged(scaled.numpy(), factor))[..., :3] * 255
    grey = photograph(pixels).mean(2, keepdims=True)
    return _outlined(_whole(0.72 * heat + 0.28 * grey), region, factor)


def data_uri(picture: Picture) -> str:
    """Return a picture as the source of an HTML image."""
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, "JPEG", quality=_JPEG_QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode()}"


@cache
def map_scale() -> str:
    """Return the map's colours, low to high, as the colours of a CSS gradient."""
    colours = [colormaps[MAP_COLOURS](step / 8)[:3] for step in range(9)]
    return ", ".join("rgb({:.0f} {:.0f} {:.0f})".format(*(255 * part for part in colour)) for colour in colours)


def _resized(mask: Tensor, size: torch.Size) -> Tensor:
    if mask.shape == size:
        return mask
    return interpolate(mask[None, None], size=tuple(size), mode="bilinear", align_corners=False)[0, 0]


def _enlarged(array: NDArray[Any], factor: int) -> NDArray[Any]:
    return array if factor == 1 else array.repeat(factor, 0).repeat(factor, 1)


def _whole(picture: NDArray[np.floating]) -> Picture:
    return picture.clip(0, 255).astype(np.uint8)


def _outlined(picture: Picture, region: Tensor, factor: int, colour: tuple[int, ...] = OUTLINE) -> Picture:
    """Draw the outline of a boolean map: a line just inside it, on a dark one just outside."""
    large = torch.from_numpy(_enlarged(region.numpy(), factor).copy()).float()[None, None]
    grown = max_pool2d(large, 3, 1, 1)[0, 0] > 0
    shrunk = -max_pool2d(-large, 5, 1, 2)[0, 0] > 0
    inside = (large[0, 0] > 0).numpy()
    drawn = picture.copy()
    drawn[grown.numpy() & ~inside] = (16, 18, 24)
    drawn[inside & ~shrunk.numpy()] = colour
    return drawn
