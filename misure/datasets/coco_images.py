"""Reading photographs as RGB whatever they are stored as, and drawing COCO's annotations as label maps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from pycocotools.coco import COCO
from torch import Tensor
from torchvision.transforms.functional import InterpolationMode, resize, to_tensor

from misure.datasets.coco_protocol import COCO_IDS, CROWD
from misure.errors import MisureError

UNLABELLED = 255
"""Pixels of crowds and of overlapping objects: neither right nor wrong, as in torchvision's training."""

_SIXTEEN_BITS = ("I;16", "I;16B", "I;16L", "I;16N", "I")


class UnreadableImageError(MisureError):
    """An image file that is missing, damaged or of another size than its annotation says."""


def read_rgb(path: Path, size: tuple[int, int] | None = None) -> Image.Image:
    """Read an image upright, in 8-bit RGB: grey, CMYK, 16-bit, palette and transparent ones are converted.

    Args:
        path: The file.
        size: Width and height that its annotations are for, if they are to be checked.

    Raises:
        UnreadableImageError: If it is missing, damaged or of another size.
    """
    try:
        with Image.open(path) as image:
            image.load()
            upright = ImageOps.exif_transpose(image)
    except FileNotFoundError as error:
        raise UnreadableImageError(f"{path.name}: there is no such file") from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UnreadableImageError(f"{path.name}: it cannot be decoded ({error})") from error
    if size is not None and upright.size != size:
        found, wanted = (f"{width} x {height}" for width, height in (upright.size, size))
        raise UnreadableImageError(f"{path.name}: it is {found}, its annotations are for {wanted}")
    if upright.mode in _SIXTEEN_BITS:
        values = np.asarray(upright, dtype=np.float64)
        top = 255 if values.max(initial=0) <= 255 else 65535
        upright = Image.fromarray((values.clip(0, top) * (255 / top)).round().astype(np.uint8))
    return upright.convert("RGB")


def label_map(coco: COCO, image_id: int) -> NDArray[np.uint8]:
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
        inside = coco.annToMask(annotation).astype(bool)
        if annotation.get(CROWD):
            objects[inside] = 2
            continue
        labels[inside] = COCO_IDS.index(annotation["category_id"])
        objects[inside] = np.minimum(objects[inside] + 1, 2)
    labels[objects > 1] = UNLABELLED
    return labels


def fitted(image: Image.Image, size: Sequence[int]) -> Tensor:
    """Resize an image bilinearly, with antialiasing, to (height, width).

    Returns:
        float32, 3 x height x width in [0, 1].
    """
    pixels: Tensor = resize(to_tensor(image), list(size), InterpolationMode.BILINEAR, antialias=True)
    return pixels.clamp(0, 1)


def fitted_labels(labels: NDArray[np.uint8], size: Sequence[int]) -> NDArray[np.uint8]:
    """Resize a label map by nearest neighbours to (height, width)."""
    height, width = size
    return np.asarray(Image.fromarray(labels).resize((width, height), Image.Resampling.NEAREST))
