"""Pixels in [0, 1] to a network's input space, and back."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from misure.errors import MisureError


def normalised(pixels: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Subtract the mean and divide by the standard deviation, channel by channel.

    Args:
        pixels: float, C x spatial, in [0, 1].
        mean: One number, or one per channel.
        std: Likewise.

    Raises:
        MisureError: If the normalisation is for another number of channels.
    """
    return (pixels - _per_channel(pixels, mean=mean)) / _per_channel(pixels, std=std)


def without_normalisation(image: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Undo :func:`normalised`; what lies outside [0, 1] is cut."""
    return (image * _per_channel(image, std=std) + _per_channel(image, mean=mean)).clamp(0, 1)


def _per_channel(image: Tensor, **values: Sequence[float]) -> Tensor:
    ((name, numbers),) = values.items()
    if len(numbers) not in (1, len(image)):
        raise MisureError(f"{name}={list(numbers)} is for {len(numbers)} channels, the image has {len(image)}")
    return image.new_tensor(numbers).view(-1, *(1,) * (image.ndim - 1))
