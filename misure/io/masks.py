"""Masks in pictures and scans: which of the numbers that a file holds are the region."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from misure.io.pictures import numbers
from misure.io.reading import ImageFileError
from misure.io.volume import whole_numbers


def stored_numbers(path: Path, image: Image.Image) -> np.ndarray:
    """Decode the numbers of a mask.

    Args:
        path: For errors.
        image: As Pillow opened it.

    Returns:
        C x H x W, alpha last if there is one.

    Raises:
        ImageFileError: If its compression or its colours do not keep them.
    """
    compression = str(image.info.get("compression", image.format)).lower()
    if image.format not in ("PNG", "TIFF") or "jpeg" in compression:
        raise ImageFileError(f"{path} is compressed as JPEG, which changes the numbers of a mask: save it as PNG")
    if image.mode in ("CMYK", "YCbCr", "LAB"):
        raise ImageFileError(f"{path} has {image.mode} colours, which are no mask: save it as grey")
    return numbers(image)


def region_of(values: np.ndarray, path: Path) -> np.ndarray:
    """Say where a mask is set.

    Args:
        values: C x spatial: one number, three colours, or either with its alpha.
        path: For errors.

    Returns:
        bool, spatial.

    Raises:
        ImageFileError: If the numbers are no mask: negative, without a 0, or as varied as a photograph's.
    """
    colours, alpha = (values[:-1], values[-1]) if len(values) in (2, 4) else (values, None)
    if alpha is not None and alpha.min() < alpha.max():
        shown = alpha > 0
        drawn = colours[:, shown]
        if (drawn == drawn[:, :1]).all() or (drawn > 0).any(0).all():
            return _set(alpha, path)
        raise ImageFileError(
            f"{path} has both colours and transparency, either of which may be the mask: save it as grey"
        )
    if len(colours) == 3 and not (colours == colours[:1]).all():
        wide = whole_numbers(colours, f"{path}: ").astype(np.int64)
        return _set((wide[0] << 32) + (wide[1] << 16) + wide[2], path)
    return _set(colours[0], path)


def _set(values: np.ndarray, path: Path) -> np.ndarray:
    """Where numbers are not 0; those between 0 and the largest must fill regions, not stand alone as at soft edges."""
    labels = whole_numbers(values, f"{path}: ")
    least, most = labels.min(), labels.max()
    if least < 0 or 0 < least < most:
        raise ImageFileError(f"{path} is no mask: its numbers are {least:g} to {most:g}, and 0 means outside")
    between = (labels > 0) & (labels < most)
    alone = between.copy()
    for axis in range(labels.ndim):
        same = np.diff(labels, axis=axis) == 0
        along = np.moveaxis(alone, axis, 0)
        along[:-1] &= ~np.moveaxis(same, axis, 0)
        along[1:] &= ~np.moveaxis(same, axis, 0)
    if 2 * alone.sum() > between.sum():
        raise ImageFileError(
            f"{path} is no mask: {between.sum()} of its numbers lie between 0 and {most:g}, as in a photograph or at "
            "soft edges: save it with 0 and one other number"
        )
    region: np.ndarray = labels != 0
    return region
