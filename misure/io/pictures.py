"""Photographs and microscope pictures: PNG, JPEG and TIFF, decoded with limits, as fractions or as stored numbers."""

from __future__ import annotations

import contextlib
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from misure.io.reading import ImageFileError, check_file, reading

PICTURES = (".png", ".jpg", ".jpeg", ".tif", ".tiff")
MOST_PIXELS = 50_000_000
"""Larger pictures are refused before they are decoded; all pages of a TIFF together."""
MOST_BYTES = 512 * 1024**2
MOST_PAGES = 4096
"""Of a TIFF; counting them takes time."""

_DECODERS = ("PNG", "JPEG", "TIFF")
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_PHOTOMETRIC, _SAMPLES, _BITS, _FORMAT, _EXTRA = 262, 277, 258, 339, 338  # tags of TIFF
_ORIENTATION = 0x0112
_WHITE_IS_ZERO, _ALPHA, _UNSIGNED, _SIGNED, _FLOAT = 0, {1, 2}, 1, 2, 3
_COLOURS = {0: 1, 1: 1, 2: 3, 3: 1, 5: 4, 6: 3}
"""Channels of the ways in which a TIFF has colours: white is zero, black is zero, RGB, palette, inks, YCbCr."""

_ONE_AT_A_TIME = threading.Lock()  # silencing warnings is no thread's own affair


def is_picture(path: Path) -> bool:
    """Say whether a file has the ending of a picture."""
    return path.name.lower().endswith(PICTURES)


def read_pages(
    path: Path,
    chosen: Callable[[int], int | None],
    decoded: Callable[[Image.Image], np.ndarray] | None = None,
) -> tuple[np.ndarray, int | None]:
    """Decode a PNG, JPEG (upright, as EXIF says) or TIFF file, or the page of a TIFF that is meant.

    Args:
        path: The file.
        chosen: From the number of pages to the one that is meant; None means all of them.
        decoded: How a page becomes C x H x W; by default :func:`fractions`.

    Returns:
        C x H x W of a page or C x pages x H x W of all; and the page.

    Raises:
        ImageFileError: If it is missing, damaged, too large or of another type, or its pages differ in size.
    """
    if not is_picture(path):
        raise ImageFileError(f"{path} is no image: {', '.join(PICTURES)}, .nii, .nii.gz or a DICOM series are read")
    with opened(path) as image:
        n_pages = _count_pages(path, image)
        index = chosen(n_pages)
        numbers = range(n_pages) if index is None else (index,)
        pages, n_pixels = list[np.ndarray](), 0
        for number in numbers:
            with _quietly():
                image.seek(number)
            n_pixels += image.width * image.height
            check_pixels(path, n_pixels, MOST_PIXELS)
        for number in numbers:
            with _quietly():
                image.seek(number)
            pages.append((decoded or fractions)(image))
    if len({page.shape for page in pages}) > 1:
        raise ImageFileError(f"{path} has pages of different sizes: choose one with slice=<number>")
    return (np.stack(pages, axis=1) if index is None else pages[0]), index


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Image.Image]:
    """Open a PNG, JPEG or TIFF file without warnings; nothing is decoded yet.

    Raises:
        ImageFileError: If it is missing, empty, too large or no such image, or if decoding it in the block fails.
    """
    check_file(path, MOST_BYTES)
    with reading(path, "copy it again", ImageFileError), path.open("rb") as stream:  # a path would be mapped: Pillow
        try:  # confuses width and height of such a TIFF that is turned
            with _quietly():
                image = Image.open(stream, formats=_DECODERS)
        except UnidentifiedImageError as error:
            stream.seek(0)
            is_tiff = stream.read(4) in _TIFF
            what = "is a TIFF of a kind that is not read: save it with 8 or 16 bits, grey or RGB"
            raise ImageFileError(
                f"{path} {what if is_tiff else 'holds no PNG, JPEG or TIFF image, whatever its name says'}"
            ) from error
        with image:
            _check_kind(path, image)
            yield image


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Leave out remarks on metadata, which do not concern the pixels; no pixel is decoded meanwhile."""
    with _ONE_AT_A_TIME, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def check_pixels(path: Path, n_pixels: int, most: int) -> None:
    """Raise an ImageFileError if there are more than ``most`` pixels to decode."""
    if n_pixels > most:
        raise ImageFileError(f"{path} has more than {most / 1e6:.0f} million pixels: make it smaller")


def fractions(image: Image.Image, *, upright: bool = True) -> np.ndarray:
    """Decode what Pillow opened: each number is divided by the largest that its bits can hold; transparency is dropped.

    Args:
        image: As it was opened, not a copy, which does not know how the file holds its numbers.
        upright: Whether it is turned as EXIF says.

    Returns:
        float32, 1 or 3 x H x W, in [0, 1]; palettes become colours.

    Raises:
        ValueError: If the file has fractions that lie elsewhere, or numbers whose largest is not known.
    """
    stored = _raw_mode(image)
    if image.mode == "I" and not stored.startswith("I;16B"):  # a PNG's, in earlier versions of Pillow
        raise ValueError("its largest possible number is not known: save it with 8 or 16 bits without a sign")
    if image.mode[0] in "IF" or "16" in stored:
        values, largest = numbers(image, upright=upright), 4095.0 if stored == "I;12" else 65535.0
        values = values[:3] if len(values) >= 3 else values[:1]
    else:
        image.info.pop("transparency", None)  # of palettes: it is dropped, and Pillow would remark on it
        mode = "L" if image.mode in ("L", "1", "LA") else "RGB"
        values, largest = _planes(image if image.mode == mode else image.convert(mode)), 255.0
        values = _upright(values, image) if upright else values
    if image.mode == "F":
        largest = 1.0
        if not (values >= 0).all() or not (values <= 1).all():
            raise ValueError("its fractions do not lie in 0 to 1: scale them")
    scaled: np.ndarray = np.empty(values.shape, np.float32)
    np.divide(values, np.float32(largest), out=scaled, dtype=np.float32)  # without a second copy of a large picture
    return scaled


def numbers(image: Image.Image, *, upright: bool = True) -> np.ndarray:
    """Decode the numbers that a file holds: indices of a palette, not its colours.

    Args:
        image: As it was opened, not a copy.
        upright: Whether it is turned as EXIF says.

    Returns:
        C x H x W, its alpha among the channels; black is 0, also where the file has it the other way round.

    Raises:
        ValueError: If the file is of a kind that is not decoded in full.
    """
    tags, stored = getattr(image, "tag_v2", {}), _raw_mode(image)
    inverted = tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO and image.mode not in ("1", "L")  # which Pillow inverts
    largest = (1 << tags[_BITS][0]) - 1 if inverted else 0
    values = _sixteen_bits(image) if "16" in stored and image.mode[0] != "I" else _planes(image)
    if inverted:
        values = (1 if image.mode == "F" else largest) - values
    return _upright(values, image) if upright else values


def _planes(image: Image.Image) -> np.ndarray:
    values = np.asarray(image)
    return values.transpose(2, 0, 1) if values.ndim == 3 else values[None]


def _sixteen_bits(image: Any) -> np.ndarray:
    """Decode a PNG whose colours have 16 bits, of which Pillow keeps the upper 8: twice, once for the others."""
    stored, stream = _raw_mode(image), image.fp
    if not stored.startswith("RGB"):
        raise ValueError("it has 16 bits of grey with transparency: save it without")
    upper = _planes(image).astype(np.uint16)
    stream.seek(0)
    with _quietly():
        again: Any = Image.open(stream, formats=("PNG",))
    again.tile = [(*tile[:3], stored[:-1] + "L") for tile in again.tile]
    upper <<= 8
    upper |= _planes(again)
    return upper


def _upright(planes: np.ndarray, image: Image.Image) -> np.ndarray:
    """Turn C x H x W as EXIF says; asked when pixels are decoded, as Pillow turns a TIFF itself meanwhile."""
    with _quietly():
        orientation = image.getexif().get(_ORIENTATION, 1)
    if orientation in (5, 6, 7, 8):
        planes = planes.swapaxes(1, 2)
    return planes[:, :: -1 if orientation in (3, 4, 7, 8) else 1, :: -1 if orientation in (2, 3, 6, 7) else 1]


def _count_pages(path: Path, image: Image.Image) -> int:
    if image.format != "TIFF":
        return 1
    for number in range(MOST_PAGES + 1):
        try:
            with _quietly():
                image.seek(number)
        except EOFError:
            return number
        _check_kind(path, image)
    raise ImageFileError(f"{path} has more than {MOST_PAGES} pages: take it apart")


def _check_kind(path: Path, image: Image.Image) -> None:
    """Raise an ImageFileError for a page that Pillow would decode in part, or with other numbers than it holds."""
    tags = getattr(image, "tag_v2", {})  # of a TIFF
    samples, colours = tags.get(_SAMPLES, 1), _COLOURS.get(tags.get(_PHOTOMETRIC, 1))
    formats, bits, extra = (set(tags.get(tag, ())) for tag in (_FORMAT, _BITS, _EXTRA))
    has_alpha = colours is not None and samples == colours + 1 and len(extra) == 1 and extra <= _ALPHA
    if tags and samples != colours and not has_alpha:
        raise ImageFileError(f"{path} has {samples} channels that are not grey or RGB: save those that are needed")
    depth, signed = max(bits, default=1), formats - {_UNSIGNED, _FLOAT}
    if (
        len(formats) > 1
        or len(bits) > 1
        or (samples > 1 and depth > 8)
        or (signed and depth <= 8)
        or signed - {_SIGNED}
    ):
        raise ImageFileError(
            f"{path} has {samples} x {depth} bits{' with a sign' * bool(signed)}, of which not all are read: "
            "save it with 8 bits, or as grey with 16"
        )


def _raw_mode(image: Any) -> str:
    """How the file holds its pixels, in Pillow's words, such as RGB;16B; empty once it is decoded."""
    arguments = image.tile[0][3] if image.tile else ""
    return str(arguments[0] if isinstance(arguments, tuple) else arguments)
