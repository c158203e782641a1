"""Photographs and microscope pictures: PNG, JPEG and TIFF, decoded with limits."""

from __future__ import annotations

import contextlib
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from misure.io.reading import ImageFileError, check_file, reading

PICTURES = (".png", ".jpg", ".jpeg", ".tif", ".tiff")
MOST_PIXELS = 50_000_000
"""Larger pictures are refused before they are decoded; all pages of a TIFF together."""
MOST_BYTES = 512 * 1024**2

_DECODERS = ("PNG", "JPEG", "TIFF")
_SIXTEEN_BITS = ("I;16", "I;16B", "I;16L", "I;16N", "I")
_ONE_AT_A_TIME = threading.Lock()  # silencing warnings is no thread's own affair


def is_picture(path: Path) -> bool:
    """Say whether a file has the ending of a picture."""
    return path.name.lower().endswith(PICTURES)


def read_pages(path: Path, chosen: Callable[[int], int | None]) -> tuple[np.ndarray, int | None]:
    """Decode a PNG, JPEG (upright, as EXIF says) or TIFF file, or the page of a TIFF that is meant.

    Args:
        path: The file.
        chosen: From the number of pages to the one that is meant; None means all of them.

    Returns:
        float32, C x H x W of a page or C x pages x H x W of all, in [0, 1], see :func:`fractions`; and the page.

    Raises:
        ImageFileError: If it is missing, damaged, too large or of another type, or its pages differ in size.
    """
    if not is_picture(path):
        raise ImageFileError(f"{path} is no image: {', '.join(PICTURES)}, .nii, .nii.gz or a DICOM series are read")
    with opened(path) as image:
        n_pages = int(getattr(image, "n_frames", 1)) if image.format == "TIFF" else 1
        index = chosen(n_pages)
        numbers = range(n_pages) if index is None else (index,)
        n_pixels = 0
        for number in numbers:
            image.seek(number)
            n_pixels += image.width * image.height
            check_pixels(path, n_pixels, MOST_PIXELS)
        pages = []
        for number in numbers:
            image.seek(number)
            pages.append(fractions(ImageOps.exif_transpose(image)))
    if len({page.shape for page in pages}) > 1:
        raise ImageFileError(f"{path} has pages of different sizes: choose one with slice=<number>")
    return (np.stack(pages, axis=1) if index is None else pages[0]), index


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Image.Image]:
    """Open a PNG, JPEG or TIFF file without warnings, one thread at a time; nothing is decoded yet.

    Raises:
        ImageFileError: If it is missing, empty, too large or no such image, or if decoding it in the block fails.
    """
    check_file(path, MOST_BYTES)
    with _ONE_AT_A_TIME, reading(path, "copy it again", ImageFileError), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # remarks on metadata, which do not concern the pixels
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            image = Image.open(path, formats=_DECODERS)
        except UnidentifiedImageError as error:
            raise ImageFileError(f"{path} holds no PNG, JPEG or TIFF image, whatever its name says") from error
        with image:
            yield image


def check_pixels(path: Path, n_pixels: int, most: int) -> None:
    """Raise an ImageFileError if there are more than ``most`` pixels to decode."""
    if n_pixels > most:
        raise ImageFileError(f"{path} has more than {most / 1e6:.0f} million pixels: make it smaller")


def fractions(image: Image.Image) -> np.ndarray:
    """Decode what Pillow opened: eight bits are divided by 255, sixteen by 65535; transparency is dropped.

    Returns:
        float32, 1 or 3 x H x W, in [0, 1]; palettes become colours.

    Raises:
        ValueError: If the file has fractions that lie elsewhere.
    """
    if image.mode in _SIXTEEN_BITS:
        return (np.asarray(image).astype(np.float32) / 65535).clip(0, 1)[None]
    if image.mode == "F":
        values = np.asarray(image)
        if not (values >= 0).all() or not (values <= 1).all():
            raise ValueError("its fractions do not lie in 0 to 1: scale them")
        return values[None].astype(np.float32)
    grey = image.mode in ("L", "1", "LA")
    values = np.asarray(image.convert("L" if grey else "RGB"), dtype=np.float32) / 255
    return values[None] if grey else values.transpose(2, 0, 1)
