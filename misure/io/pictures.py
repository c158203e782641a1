"""Photographs and microscope pictures: PNG, JPEG and TIFF, decoded with limits."""

from __future__ import annotations

import contextlib
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError

from misure.io.loaded import ImageFileError, InputFormat, LoadedImage, in_channels
from misure.io.reading import reading

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


def read_picture(path: Path, name: str, wanted: InputFormat) -> LoadedImage:
    """Read a PNG, JPEG (upright, as EXIF says) or TIFF file; the pages of a TIFF are slices of a volume.

    Eight bits are divided by 255, sixteen by 65535; fractions have to lie in [0, 1]. Transparency is dropped.

    Args:
        path: The file.
        name: What it is called.
        wanted: What the network takes.

    Raises:
        ImageFileError: If it is missing, damaged, too large, of another type or does not fit the network.
    """
    check_file(path, MOST_BYTES)
    if not is_picture(path):
        raise ImageFileError(f"{path} is no image: {', '.join(PICTURES)}, .nii, .nii.gz or a DICOM series are read")
    with opened(path) as image:
        pages, index = _pages(path, image, wanted)
    pixels = pages[0] if index is not None else np.stack(pages, axis=1)
    return LoadedImage(
        name,
        torch.from_numpy(np.ascontiguousarray(in_channels(pixels, wanted.channels, path))),
        path,
        slice_index=index if wanted.slice_index is not None else None,
    )


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
    """Decode what Pillow opened.

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


def check_file(path: Path, most_bytes: int) -> None:
    """Raise an ImageFileError unless a path is a file of at most ``most_bytes``, and not an empty one."""
    if not path.is_file():
        raise ImageFileError(f"{path} does not exist, or is no file")
    size = path.stat().st_size
    if not size:
        raise ImageFileError(f"{path} is empty: copy it again")
    if size > most_bytes:
        raise ImageFileError(f"{path} has {size / 1e6:.0f} MB, more than the {most_bytes / 1e6:.0f} MB that are read")


def _pages(path: Path, image: Image.Image, wanted: InputFormat) -> tuple[list[np.ndarray], int | None]:
    """Decode the page that is meant, or all of them with None."""
    n_pages = int(getattr(image, "n_frames", 1)) if image.format == "TIFF" else 1
    index = wanted.chosen(n_pages, f"{path} has pages")
    chosen = range(n_pages) if index is None else (index,)
    total = 0
    for page in chosen:
        image.seek(page)
        total += image.width * image.height
        check_pixels(path, total, MOST_PIXELS)
    pages = []
    for page in chosen:
        image.seek(page)
        pages.append(fractions(ImageOps.exif_transpose(image)))
    if len({page.shape for page in pages}) > 1:
        raise ImageFileError(f"{path} has pages of different sizes: choose one with slice=<number>")
    return pages, index
