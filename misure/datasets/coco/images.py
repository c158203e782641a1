"""Reading photographs as RGB whatever they are stored as, and drawing COCO's annotations as label maps."""

from __future__ import annotations

import contextlib
import struct
import warnings
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from pycocotools.coco import COCO
from torch import Tensor
from torchvision.transforms.functional import InterpolationMode, resize, to_tensor

from misure.datasets.coco.protocol import COCO_IDS, CROWD
from misure.datasets.coco.shapes import drawn
from misure.errors import MisureError

UNLABELLED = 255
"""Pixels of crowds and of overlapping objects: neither right nor wrong, as in torchvision's training."""

MOST_PIXELS = 25_000_000
"""Larger images are refused: an entry of the dataset takes about 35 bytes a pixel, 0.9 GB here."""

_SIXTEEN_BITS = ("I;16", "I;16B", "I;16L", "I;16N", "I")
_ORIENTATION, _SIDEWAYS = 0x0112, (5, 6, 7, 8)  # EXIF's tag, and its values that exchange width and height
_CHECKED_AT = 8  # times smaller, which a JPEG can be decoded to directly
_DECODING_ERRORS = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    LookupError,
    TypeError,
    ArithmeticError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,  # an error in here
)
"""What Pillow raises on damaged files."""


class UnreadableImageError(MisureError):
    """An image file that is missing, damaged, too large or of another size than its annotation says."""


def read_rgb(path: Path, size: tuple[int, int]) -> Image.Image:
    """Read an image in 8-bit RGB: grey, CMYK, 16-bit, palette and transparent ones are converted.

    Where the camera was turned (EXIF), the pixels are taken as they are stored if that is the size of the
    annotations, else upright if that is. Both fit a square and a half turn: then they are taken as stored, since
    the annotations' size, their polygons and the usual loaders (pycocotools, torchvision) follow the stored pixels.
    Colours behind transparent pixels are kept.

    Args:
        path: The file.
        size: Width and height that its annotations are for.

    Raises:
        UnreadableImageError: If it is missing, damaged, too large or of another size.
    """
    with _opened(path, size) as image:
        return _in_rgb(image if image.size == size else ImageOps.exif_transpose(image))


def check_image(path: Path, size: tuple[int, int]) -> None:
    """Raise what :func:`read_rgb` would, faster and with less memory: a JPEG is decoded at an eighth of its size."""
    with _opened(path, size) as image:
        image.draft(None, (max(1, image.width // _CHECKED_AT), max(1, image.height // _CHECKED_AT)))
        _in_rgb(image)


@contextlib.contextmanager
def _opened(path: Path, size: tuple[int, int]) -> Iterator[Image.Image]:
    """Open an image whose size, stored or upright, is that of its annotations; name what goes wrong inside."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # remarks on metadata, which do not concern the pixels
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                _check_size(path, image, size)
                yield image
    except FileNotFoundError as error:
        raise UnreadableImageError(f"{path.name}: there is no such file") from error
    except UnidentifiedImageError as error:
        reason = "it is no image" if path.stat().st_size else "it is empty"
        raise UnreadableImageError(f"{path.name}: {reason}") from error
    except _DECODING_ERRORS as error:
        raise UnreadableImageError(f"{path.name}: it cannot be decoded ({error})") from error


def _check_size(path: Path, image: Image.Image, size: tuple[int, int]) -> None:
    """Compare sizes before anything is decoded."""
    if image.width * image.height > MOST_PIXELS:
        raise UnreadableImageError(f"{path.name}: it has more than {MOST_PIXELS / 1e6:.0f} million pixels")
    turned = image.size[::-1] == size and image.getexif().get(_ORIENTATION) in _SIDEWAYS
    if image.size != size and not turned:
        found, wanted = (f"{width} x {height}" for width, height in (image.size, size))
        raise UnreadableImageError(f"{path.name}: it is {found}, its annotations are for {wanted}")


def _in_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        raise ValueError("its pixels are fractions of an unknown whole")
    if image.mode in _SIXTEEN_BITS:
        values = np.asarray(image).astype(np.uint32).clip(0, 65535)
        image = Image.fromarray(((values + 128) // 257).astype(np.uint8))  # 65535 = 255 * 257
    return image.convert("RGB")


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
        inside = drawn(annotation["segmentation"], *labels.shape)
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
