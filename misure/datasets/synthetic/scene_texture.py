"""Colours, noise of many scales, and the backgrounds of generated scenes."""

from __future__ import annotations

import colorsys
import functools
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from misure.datasets.synthetic.scene_chance import Chance

Field = NDArray[np.float32]
"""One number for each pixel, H x W."""

Pixels = NDArray[np.float32]
"""RGB from 0 to 255, H x W x 3."""

Colour = NDArray[np.float32]
"""RGB from 0 to 255."""


def random_colour(chance: Chance) -> Colour:
    """Draw a colour: the same ones for all classes and for backgrounds."""
    hue, saturation, value = chance.number(), chance.number(), chance.number(0.2, 0.95)
    return np.array(colorsys.hsv_to_rgb(hue, 0.04 + 0.7 * saturation**2, value), np.float32) * 255


def noise(chance: Chance, size: int, coarsest: int = 3, persistence: float = 0.6) -> Field:
    """Draw noise of many octaves, of zero mean and unit variance."""
    octaves = [coarsest * 2**number for number in range(12) if coarsest * 2**number <= size / 2]
    ends = np.cumsum([cells**2 for cells in octaves])
    total, numbers = np.zeros((size, size), np.float32), np.split(chance.many(int(ends[-1])), ends[:-1])
    for octave, (cells, values) in enumerate(zip(octaves, numbers, strict=True)):
        enlarge = _enlargement(cells, size)
        total += np.float32(persistence**octave) * (enlarge @ values.reshape(cells, cells) @ enlarge.T)
    centred: Field = (total - total.mean()) / total.std()
    return centred


@functools.lru_cache(maxsize=64)
def _enlargement(cells: int, size: int) -> Field:
    """Matrix (size x cells) that enlarges a column of cells bicubically."""
    unit = Image.fromarray(np.eye(cells, dtype=np.float32))
    return np.asarray(unit.resize((cells, size), Image.Resampling.BICUBIC))


def background(chance: Chance, grain: Field) -> Pixels:
    """Draw one of several kinds of background, with grain and uneven light."""
    size = len(grain)
    share = chance.pick(_KINDS)(chance, size)
    first, second = random_colour(chance), random_colour(chance)
    mixed = first + np.clip(share, 0, 1)[..., None] * (second - first)
    light = 1 + chance.number(0.03, 0.1) * grain + chance.number(0.05, 0.2) * gradient(chance, size)
    pixels: Pixels = mixed * light[..., None]
    return pixels


def gradient(chance: Chance, size: int) -> Field:
    """A ramp from -1 to 1 in any direction."""
    angle = chance.number(0, 2 * np.pi)
    steps = np.linspace(-0.7, 0.7, size, dtype=np.float32)
    ramp: Field = np.cos(angle) * steps[None, :] + np.sin(angle) * steps[:, None]
    return ramp.astype(np.float32)


def _clouds(chance: Chance, size: int) -> Field:
    return 0.5 + chance.number(0.2, 0.4) * noise(chance, size, 3, 0.55)


def _gravel(chance: Chance, size: int) -> Field:
    return 0.5 + 0.3 * noise(chance, size, 12, 0.9)


def _blotches(chance: Chance, size: int) -> Field:
    return 0.5 + 1.5 * noise(chance, size, 4, 0.45)


def _stripes(chance: Chance, size: int) -> Field:
    count, bent = chance.number(6, 32), chance.number(0, 1.5)
    waves: Field = np.sin(count * gradient(chance, size) + bent * noise(chance, size, 3, 0.4))
    return 0.5 + chance.number(0.3, 1.2) * waves


def _slope(chance: Chance, size: int) -> Field:
    return 0.5 + 0.6 * gradient(chance, size) + 0.1 * noise(chance, size)


def _horizon(chance: Chance, size: int) -> Field:
    """Ground below, sky above, each with its own grain."""
    rows = np.linspace(0, 1, size, dtype=np.float32)[:, None]
    edge = chance.number(0.3, 0.7) + 0.03 * noise(chance, size, 3, 0.5)[:1]
    ground = (rows > edge).astype(np.float32)
    return 0.8 * ground + 0.12 * noise(chance, size, 6, 0.7) * (0.4 + ground)


def _tiles(chance: Chance, size: int) -> Field:
    """Bricks with joints between them."""
    columns, rows = chance.integer(3, 8), chance.integer(4, 12)
    steps = np.linspace(0, 1, size, endpoint=False, dtype=np.float32)
    row = np.floor(steps * rows)
    across = steps[None, :] * columns + 0.5 * (row % 2)[:, None]
    joint = (across % 1 < 0.09) | ((steps * rows % 1)[:, None] < 0.13)
    tones = chance.many(rows * (columns + 1)).reshape(rows, columns + 1)
    brick = tones[row.astype(int)[:, None], across.astype(int)]
    return np.where(joint, np.float32(0.95), 0.3 + 0.2 * brick).astype(np.float32)


_KINDS: Sequence[Callable[[Chance, int], Field]] = (
    _clouds, _gravel, _blotches, _stripes, _slope, _horizon, _tiles
)  # fmt: skip
