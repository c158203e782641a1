"""Reading photographs at the size of their annotations, and drawing COCO's annotations as label maps."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from pycocotools.coco import COCO
from torch import Tensor
from torchvision.transforms.functional import InterpolationMode, resize

from misure.datasets.coco.protocol import COCO_IDS, CROWD
from misure.datasets.coco.shapes import drawn
from misure.datasets.coco.values import Identity
from misure.io.images import in_channels
from misure.io.pictures import check_pixels, fractions, opened
from misure.io.reading import ImageFileError

UNLABELLED = 255
"""Pixels of crowds and of overlapping objects: neither right nor wrong, as in torchvision's training.

A record's Dice with the truth counts them as no object of any class.
"""

MOST_PIXELS = 25_000_000
"""Larger images are refused: an entry of the dataset takes about 35 bytes a pixel, 0.9 GB here."""

_ORIENTATION, _SIDEWAYS = 0x0112, (5, 6, 7, 8)  # EXIF's tag, and its values that exchange width and height
_CHECKED_AT = 8  # times smaller, which a JPEG can be decoded to directly


def read_rgb(path: Path, size: tuple[int, int]) -> Tensor:
    """Read an image as RGB: grey, CMYK, 16-bit, palette and transparent ones are converted.

    Where the camera was turned (EXIF), the pixels are taken as they are stored if that is the size of the
    annotations, else upright if that is. Both fit a square and a half turn: then they are taken as stored, since
    the annotations' size, their polygons and the usual loaders (pycocotools, torchvision) follow the stored pixels.
    Colours behind transparent pixels are kept.

    Args:
        path: The file.
        size: Width and height that its annotations are for.

    Returns:
        float32, 3 x H x W in [0, 1].

    Raises:
        ImageFileError: If it is missing, damaged, too large or of another size.
    """
    with _opened(path, size) as image:
        pixels = fractions(image, upright=image.size != size)
    return torch.from_numpy(np.ascontiguousarray(in_channels(pixels, 3, path)))


def check_image(path: Path, size: tuple[int, int]) -> None:
    """Raise what :func:`read_rgb` would, faster and with less memory: a JPEG is decoded at an eighth of its size."""
    with _opened(path, size) as image:
        image.draft(None, (max(1, image.width // _CHECKED_AT), max(1, image.height // _CHECKED_AT)))
        fractions(image)


@contextlib.contextmanager
def _opened(path: Path, size: tuple[int, int]) -> Iterator[Image.Image]:
    """Open an image whose size, stored or upright, is that of its annotations: compared before anything is decoded."""
    with opened(path) as image:
        check_pixels(path, image.width * image.height, MOST_PIXELS)
        turned = image.size[::-1] == size and image.getexif().get(_ORIENTATION) in _SIDEWAYS
        if image.size != size and not turned:
            stored, annotated = (f"{width} x {height}" for width, height in (image.size, size))
            raise ImageFileError(f"{path} is {stored}, its annotations are for {annotated}")
        yield image


def label_map(coco: COCO, image_id: Identity) -> NDArray[np.uint8]:
    """Draw an image's annotations: VOC labels, :data:`UNLABELLED` where objects overlap and on crowds.

    Categories without a VOC label count as background.

    Returns:
        H x W at the image's own size.
    """
    entry = coco.imgs[image_id]
    labels = np.zeros((entry["height"], entry["width"]), np.uint8)
    objects = np.zeros(labels.shape, np.uint8)
    for annotation in coco.imgToAnns[image_id]:
        if annotation["category_id"] not in COCO_IDS[1:]:
            continue
        inside = drawn(annotation["segmentation"], *labels.shape)
        if annotation.get(CROWD):
            objects[inside] = 2
            continue
        labels[inside] = COCO_IDS.index(annotation["category_id"])
        objects[inside] = np.minimum(objects[inside] + 1, 2)
    labels[objects > 1] = UNLABELLED
    return labels


def fitted(image: Tensor, size: Sequence[int]) -> Tensor:
    """Resize an image bilinearly, with antialiasing.

    Args:
        image: float32, 3 x H x W in [0, 1].
        size: Height and width.

    Returns:
        float32, 3 x height x width in [0, 1].
    """
    pixels: Tensor = resize(image, list(size), InterpolationMode.BILINEAR, antialias=True)
    return pixels.clamp(0, 1)


def fitted_labels(labels: NDArray[np.uint8], size: Sequence[int]) -> NDArray[np.uint8]:
    """Resize a label map by nearest neighbours to (height, width)."""
    height, width = size
    return np.asarray(Image.fromarray(labels).resize((width, height), Image.Resampling.NEAREST))
