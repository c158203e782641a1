"""Images and maps as text for a page: each different picture once."""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

LEVELS = 200
"""Steps of a saved map: every threshold that is a multiple of 0.005 selects exactly the pixels it should."""

JPEG_QUALITY = 88


class Pictures:
    """Pictures by a short name; equal ones share it."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}
        self._uris: dict[str, str] = {}

    @property
    def uris(self) -> Mapping[str, str]:
        """``data:`` addresses by name, in the order of their arrival."""
        return self._uris

    @property
    def size(self) -> int:
        """Characters of all addresses together."""
        return sum(map(len, self._uris.values()))

    def keep_first(self, n: int) -> None:
        """Forget all but the first ``n``."""
        while len(self._uris) > n:
            self._names.popitem()
            self._uris.popitem()

    def add_image(self, image: NDArray[Any], *, photograph: bool) -> str:
        """Keep an image, H x W or H x W x 3 in [0, 1], at 8 bits: as JPEG if it is a photograph, else as PNG."""
        array = np.round(np.clip(image, 0, 1) * 255).astype(np.uint8)
        kind, options = ("jpeg", {"quality": JPEG_QUALITY}) if photograph else ("png", {})
        return self._add(Image.fromarray(array), kind, options)

    def add_mask(self, mask: NDArray[Any]) -> str:
        """Keep a boolean map, H x W, as a PNG of 1 bit."""
        return self._add(Image.fromarray(mask.astype(np.uint8) * 255).convert("1"), "png", {})

    def add_levels(self, levels: NDArray[np.uint8]) -> str:
        """Keep the result of :func:`to_levels` as a grey PNG."""
        return self._add(Image.fromarray(levels), "png", {})

    def _add(self, image: Image.Image, kind: str, options: Mapping[str, Any]) -> str:
        pixels = f"{kind}{image.mode}{image.size}".encode() + image.tobytes()
        digest = hashlib.sha256(pixels).hexdigest()
        if digest not in self._names:
            stream = io.BytesIO()
            image.save(stream, kind, optimize=True, **options)
            name = self._names[digest] = f"p{len(self._names)}"
            self._uris[name] = data_uri(stream.getvalue(), f"image/{kind}")
        return self._names[digest]


def data_uri(content: bytes, kind: str) -> str:
    """Return content as an address that holds it; ``kind`` is its media type."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def to_levels(scaled: NDArray[Any]) -> NDArray[np.uint8]:
    """Round a map in [0, 1] to steps such that ``scaled > k / LEVELS`` is ``levels > k`` for every k.

    Returns:
        How many of the bounds ``0 / LEVELS, 1 / LEVELS, ...`` lie below each value: 0 for zero, up to ``LEVELS``.
    """
    bounds = np.arange(LEVELS) / LEVELS
    return np.searchsorted(bounds, scaled, side="left").astype(np.uint8)


def from_levels(levels: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return the middle of each step: within half a step of the map, and zero where it was zero."""
    return np.where(levels > 0, (levels - 0.5) / LEVELS, 0.0)


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
        values = values * np.reshape(std, (-1, 1, 1)) + np.reshape(mean, (-1, 1, 1))
    elif values.max() > values.min():
        values = (values - values.min()) / (values.max() - values.min())
    values = np.clip(values, 0, 1)
    return values[:3].transpose(1, 2, 0) if len(values) >= 3 else values[0]
