"""Pictures of explanations as text for a page."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from misure.models.normalisation import without_normalisation
from misure.plotting import Pixels, brought_to, heat, outline, picture_uri

_LONGEST_SIDE = 384
"""Of an image in a picture, in pixels; larger ones are reduced."""

_OPACITY = 0.7
_BEHIND = 0.25
"""Grey in place of a photograph that may not be shown."""

_GAP = 4
_OUTLINES = {"sufficient_region": (230, 159, 0), "region": (86, 180, 233), "truth": (240, 228, 66)}
"""Okabe and Ito's orange, sky blue and yellow."""


@dataclass(frozen=True)
class Picture:
    """A picture that a page holds.

    Attributes:
        uri: A ``data:`` address.
        width: In pixels.
        height: In pixels.
    """

    uri: str
    width: int
    height: int

    @classmethod
    def of(cls, pixels: Pixels, *, photograph: bool) -> Picture:
        """Encode H x W x 3 pixels: as JPEG if they show a photograph, else as PNG."""
        return cls(picture_uri(pixels, photograph=photograph), pixels.shape[1], pixels.shape[0])


def drawn(
    image: NDArray[Any] | None,
    scaled: NDArray[Any],
    region: NDArray[np.bool_],
    sufficient_region: NDArray[np.bool_] | None = None,
    truth: NDArray[np.bool_] | None = None,
) -> Pixels:
    """Draw an image with its prediction and, beside it, its saliency map.

    Args:
        image: H x W or H x W x 3 in [0, 1]; None leaves grey.
        scaled: The map, H x W in [0, 1]; zeros are not drawn.
        region: The prediction, H x W.
        sufficient_region: Outlined on the map, H x W.
        truth: Outlined beside the prediction, H x W.

    Returns:
        uint8, H x W' x 3 with W' about twice the width.
    """
    size = _fitting(scaled.shape)
    behind = np.full(scaled.shape, _BEHIND) if image is None else image
    behind = behind if behind.ndim == 3 else np.repeat(behind[..., None], 3, axis=2)
    left = brought_to(np.round(behind * 255).astype(np.uint8), size)
    shown = brought_to(np.round(scaled * 255).astype(np.uint8), size)
    opacity = np.where(shown > 0, _OPACITY, 0.0)[..., None]
    right = np.round(left * (1 - opacity) + heat(shown) * opacity).astype(np.uint8)
    for pixels, name, mask in (
        (left, "truth", truth),
        (left, "region", region),
        (right, "sufficient_region", sufficient_region),
    ):
        if mask is not None:
            outline(pixels, brought_to(mask.astype(np.uint8) * 255, size) > 127, _OUTLINES[name])
    return np.concatenate([left, np.full((size[0], _GAP, 3), 255, np.uint8), right], axis=1)


def _fitting(shape: tuple[int, ...]) -> tuple[int, int]:
    factor = min(1.0, _LONGEST_SIDE / max(shape))
    return max(1, round(shape[0] * factor)), max(1, round(shape[1] * factor))


def displayable(image: NDArray[Any], mean: tuple[float, ...], std: tuple[float, ...]) -> NDArray[np.float64]:
    """Bring an image of a network's input space, C x H x W, to [0, 1] for display.

    Args:
        image: One channel, three, or others of which the first is shown.
        mean: Of the normalisation to undo, per channel; empty where the image has to be scaled by its own range.
        std: Of that normalisation.

    Returns:
        H x W x 3 for three channels or more, else H x W.
    """
    values = image.astype(np.float64)
    if mean:
        values = without_normalisation(torch.from_numpy(values), mean, std).numpy()
    elif values.max() > values.min():
        values = (values - values.min()) / (values.max() - values.min())
    values = np.clip(values, 0, 1)
    return values[:3].transpose(1, 2, 0) if len(values) >= 3 else values[0]
