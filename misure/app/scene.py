"""An image as one network sees it: read, brought to a size that the network takes, normalised, predicted."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from misure.app.sharing import SharedNetwork
from misure.errors import MisureError
from misure.explaining.work import side_lengths
from misure.io.images import InputFormat, WindowError, is_nifti, read_image, scan_shape
from misure.models.compute import Compute
from misure.models.normalisation import normalised
from misure.models.wrapper import SegmentationModel, frozen
from misure.regions import resized
from misure.target import has_background

LARGEST_SIDE = 512
"""Larger images are scaled down to this."""

MOST_VOXELS = 64_000_000
"""Larger scans are refused: one takes about a gigabyte while it is read."""

NOTHING = -1
"""Label of pixels without an object."""

_STRIDE = 32
"""Sides become multiples of this, which networks with up to five halvings need."""


@dataclass(frozen=True)
class Cut:
    """What is shown of a scan.

    Attributes:
        index: The axial slice, counted from the feet; None takes the middle one.
        window: Values that become black and white (Hounsfield units for CT); None takes the scan's own range.
    """

    index: int | None = None
    window: tuple[float, float] | None = None


@dataclass(frozen=True)
class Scene:
    """An image as one network sees it.

    Attributes:
        network: The network.
        path: The image's file.
        pixels: float, C x H x W in [0, 1], to be shown.
        image: float, C x H x W, in the network's input space.
        labels: int64, H x W: the predicted class, or :data:`NOTHING`.
        slice_index: Which slice of a scan this is; 0 for a picture.
        n_slices: How many the scan has; 1 for a picture.
        window: In which a scan is shown: the one asked for, where it is for such values.
    """

    network: SharedNetwork
    path: Path
    pixels: Tensor
    image: Tensor
    labels: Tensor
    slice_index: int = 0
    n_slices: int = 1
    window: tuple[float, float] | None = None

    def class_label(self, class_id: int) -> str:
        """Return a class's name, or its number where it has none."""
        return self.network.model.class_label(class_id)


def look(network: SharedNetwork, path: Path, cut: Cut) -> Scene:
    """Read an image and predict it.

    Raises:
        MisureError: If the file is no image or too large, or the network cannot take it.
    """
    try:
        read, index, count = _read(path, network.channels, cut)
    except WindowError:
        cut = Cut(cut.index, None)
        read, index, count = _read(path, network.channels, cut)
    pixels = _fitted(read, network.size)
    with network.visited() as model:
        image = normalised(pixels, model.mean, model.std)
        labels = predict(model, image)
    return Scene(network, path, pixels, image, labels, index, count, cut.window)


def _read(path: Path, channels: int, cut: Cut) -> tuple[Tensor, int, int]:
    """Decode a picture, or one slice of a scan: C x H x W in [0, 1], the slice's index and how many there are."""
    if not is_nifti(path):
        return read_image(path, InputFormat(channels)).pixels, 0, 1
    shape = scan_shape(path)
    if len(shape) < 3 or math.prod(shape[3:]) != 1 or math.prod(shape) > MOST_VOXELS:
        raise MisureError(f"{path.name} has shape {shape}: expected three axes and at most {MOST_VOXELS:,} voxels")
    if shape[2] == 1:
        return read_image(path, InputFormat(channels, slice_index=0, window=cut.window)).pixels, 0, 1
    volume = read_image(path, InputFormat(channels, dimensions=3, window=cut.window)).pixels
    count = volume.shape[1]
    index = count // 2 if cut.index is None else min(cut.index, count - 1)
    return volume[:, index].clone(), index, count


def _fitted(pixels: Tensor, size: int | list[int] | None) -> Tensor:
    """Scale an image to the sides that its network needs, or to multiples of 32 that are not too large."""
    sides = pixels.shape[1:]
    shrink = min(1.0, LARGEST_SIDE / max(sides))
    wanted = side_lengths(size, 2) or [max(1, round(side * shrink / _STRIDE)) * _STRIDE for side in sides]
    return resized(pixels[None], wanted, antialias=True)[0].clamp(0, 1)


@torch.no_grad()
def predict(model: SegmentationModel, image: Tensor) -> Tensor:
    """Return the class shown at every pixel of C x H x W; of several at one pixel (multi-label) the surest."""
    images = image[None].to(model.device or image.device, model.dtype or image.dtype)
    with frozen(model, Compute(), images.device) as network:
        logits = network(images, unperturbed=True)[0]
    surest, labels = logits.max(0)
    objects = surest > 0 if model.multi_label else labels >= int(has_background(model))
    return torch.where(objects, labels, NOTHING).cpu()
