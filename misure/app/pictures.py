"""Pictures for the page, as arrays: predictions, rings, masks and maps drawn over the image."""

from __future__ import annotations

from colorsys import hsv_to_rgb
from functools import cache
from typing import Any

import numpy as np
from matplotlib import colormaps
from numpy.typing import NDArray
from torch import Tensor

from misure.app.scene import NOTHING
from misure.explainers.sufficient_region import dilate
from misure.metrics import min_max
from misure.plotting import Pixels, heat, outline
from misure.regions import resized

Colour = tuple[int, int, int]

OUTLINE = (255, 255, 255)
"""Colour of the object's outline, on a dark rim."""

_RIM = (16, 18, 24)
_SUFFICIENT = (240, 180, 60)
_LINE = 2  # pixels of an outline

_SHOWN_SIDE = 448
"""Smaller images are enlarged by a whole factor to about this."""

_MOST_RINGS = 200


def enlargement(size: tuple[int, ...]) -> int:
    """By which whole factor an image of H x W is enlarged to be shown."""
    return max(1, _SHOWN_SIDE // max(size))


def class_colour(class_id: int) -> Colour:
    """Return a class's colour, the same in every image."""
    hue = (0.58 + 0.381966 * class_id) % 1  # golden angle: neighbours in number are far apart in colour
    red, green, blue = hsv_to_rgb(hue, 0.85 - 0.2 * (class_id % 2), 0.95 - 0.15 * (class_id % 3 == 2))
    return round(255 * red), round(255 * green), round(255 * blue)


def prediction_picture(pixels: Tensor, labels: Tensor, region: Tensor | None = None) -> Pixels:
    """Draw predicted classes in colour; with a region, only it is coloured and the rest darkened.

    Args:
        pixels: float, C x H x W in [0, 1].
        labels: int64, H x W.
        region: bool, H x W: the target, or None.
    """
    colours, label_map = _colours(pixels), labels.numpy()
    for class_id in np.unique(label_map[label_map != NOTHING]).tolist():
        where = label_map == class_id
        colours[where] = 0.45 * colours[where] + 0.55 * np.array(class_colour(class_id))
    if region is None:
        return _shown(colours)
    colours[~region.numpy()] *= 0.45
    return _shown(colours, (region, OUTLINE))


def rings_picture(pixels: Tensor, region: Tensor, reached: Tensor) -> Pixels:
    """Draw stage 1: the object, and a line around each dilation up to the one reached.

    Args:
        pixels: float, C x H x W in [0, 1].
        region: bool, H x W: the object.
        reached: bool, H x W: how far it was dilated.
    """
    colours, rings = _colours(pixels), dilations(region, reached)
    colours[~reached.bool().numpy()] *= 0.35
    lines = []
    for place, ring in enumerate(rings[1:], start=1):
        red, green, blue = (round(255 * part) for part in colormaps["plasma"](0.35 + 0.6 * place / len(rings))[:3])
        lines.append((ring, (red, green, blue)))
    return _shown(colours, *lines, (region, OUTLINE))


def dilations(region: Tensor, reached: Tensor) -> list[Tensor]:
    """Dilate an object until it covers what was reached: the object first."""
    rings = [region]
    while bool((reached.bool() & ~rings[-1]).any()) and len(rings) < _MOST_RINGS:
        rings.append(dilate(rings[-1][None])[0])
    return rings


def mask_picture(pixels: Tensor, region: Tensor, mask: Tensor, sufficient: Tensor | None = None) -> Pixels:
    """Draw what a mask keeps: the rest of the image fades into dark grey; the object is outlined.

    Args:
        pixels: float, C x H x W in [0, 1].
        region: bool, H x W: the object.
        mask: bool or float in [0, 1], H x W or smaller.
        sufficient: bool, H x W: the sufficient region, outlined too where given.
    """
    colours = _colours(pixels)
    weight = resized(mask.float(), pixels.shape[1:]).clamp(0, 1).numpy()[..., None]
    lines = [] if sufficient is None else [(sufficient.bool(), _SUFFICIENT)]
    return _shown(colours * weight + (0.18 * colours + 24) * (1 - weight), *lines, (region, OUTLINE))


def map_picture(pixels: Tensor, region: Tensor, saliency: Tensor) -> Pixels:
    """Draw a map, scaled from its lowest to its highest value, over the grey image.

    Args:
        pixels: float, C x H x W in [0, 1].
        region: bool, H x W: the object.
        saliency: float, H x W or smaller.
    """
    scaled = min_max(resized(saliency.float(), pixels.shape[1:])[None])[0].numpy()
    return _shown(0.72 * heat(scaled) + 0.28 * _colours(pixels).mean(2, keepdims=True), (region, OUTLINE))


@cache
def map_scale() -> str:
    """Return the map's colours, low to high, as the colours of a CSS gradient."""
    return ", ".join("rgb({:.0f} {:.0f} {:.0f})".format(*colour) for colour in heat(np.linspace(0, 1, 9)))


def _colours(pixels: Tensor) -> NDArray[np.float32]:
    """Turn an image, C x H x W in [0, 1], into colours, H x W x 3 in [0, 255]."""
    three = pixels[:3] if len(pixels) >= 3 else pixels[:1].expand(3, -1, -1)
    colours: NDArray[np.float32] = (255 * three.float().clamp(0, 1)).permute(1, 2, 0).contiguous().cpu().numpy()
    return colours


def _shown(colours: NDArray[np.floating], *lines: tuple[Tensor, Colour]) -> Pixels:
    """Finish a picture: enlarge it if it is small and draw the outlines of boolean maps, H x W, into it."""
    factor = enlargement(colours.shape[:2])
    picture = _enlarged(colours.round().clip(0, 255).astype(np.uint8), factor)
    for region, colour in lines:
        outline(picture, _enlarged(region.numpy(), factor), colour, width=_LINE, rim=_RIM)
    return picture


def _enlarged(array: NDArray[Any], factor: int) -> NDArray[Any]:
    return array.repeat(factor, 0).repeat(factor, 1)
