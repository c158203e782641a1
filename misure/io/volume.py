"""CT volumes in patient axes (RAS), the view in which radiologists look at them, and the way back to a file's axes."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from misure.io.reading import ImageFileError

MOST_BYTES = 2 * 1024**3
"""Larger files, and folders of a series, are refused."""

GRID_TOLERANCE = 0.1
"""How far apart two grids may lie and still count as the same, in voxels."""

LABEL_TOLERANCE = 0.01
"""How far a label may lie from the whole number it stands for: 16 bits and a scale keep ids up to a thousand so."""


@dataclass(frozen=True)
class Volume:
    """A scan or its labels in patient axes.

    Attributes:
        voxels: X x Y x Z, indices growing to the patient's right, front and head. Integers where the
            file holds integers, otherwise float32; Hounsfield units for a scan.
        affine: 4 x 4, from voxel indices to millimetres (RAS).
        stored: 4 x 4, the affine of the file, whose axes may have another order.
        path: The file or folder it was read from.
    """

    voxels: np.ndarray
    affine: np.ndarray
    stored: np.ndarray
    path: Path

    @property
    def spacing(self) -> tuple[float, ...]:
        """Size of a voxel along each axis, in millimetres."""
        return tuple(float(size) for size in np.linalg.norm(self.affine[:3, :3], axis=0))


@dataclass(frozen=True)
class Grid:
    """Where a scan's pixels lie in the patient.

    Attributes:
        affine: 4 x 4, from indices of X x Y x Z voxels in patient axes to millimetres (RAS); of a single slice,
            Z is 1 and the affine that slice's own.
        stored: 4 x 4, the affine of the file: maps are written in its order of axes.
        axes: How the pixels were laid out from those voxels, see :class:`misure.io.images.InputFormat`.
    """

    affine: np.ndarray
    stored: np.ndarray
    axes: str

    def from_voxels(self, voxels: np.ndarray) -> np.ndarray:
        """Lay X x Y x Z voxels out as the network sees them; a single slice has two axes."""
        if self.axes == "ras":
            return voxels[..., 0] if voxels.shape[2] == 1 else voxels
        view = radiological(voxels)
        return view[0] if len(view) == 1 else view

    def to_file(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Turn a map in the image's layout into voxels and affine with the axes of the file."""
        import nibabel.orientations

        axes: Any = nibabel.orientations  # its functions carry no types
        view = values if values.ndim == 3 else values[..., None] if self.axes == "ras" else values[None]
        voxels = view if self.axes == "ras" else from_radiological(view)
        stored = axes.io_orientation(self.stored)  # for each stored axis, the patient axis and the direction
        back = np.empty_like(stored)
        for axis, (patient, direction) in enumerate(stored):
            back[int(patient)] = axis, direction
        return (
            np.ascontiguousarray(axes.apply_orientation(voxels, back)),
            self.affine @ axes.inv_ornt_aff(back, voxels.shape),
        )


def in_patient_axes(voxels: np.ndarray, stored: np.ndarray, path: Path) -> Volume:
    """Flip and permute axes so that they grow to the patient's right, front and head.

    Args:
        voxels: Three axes in any order and direction.
        stored: 4 x 4, from their indices to millimetres (RAS).
        path: Where it was read.
    """
    import nibabel.orientations

    axes: Any = nibabel.orientations  # its functions carry no types
    orientation = axes.io_orientation(stored)
    affine = stored @ axes.inv_ornt_aff(orientation, voxels.shape)
    return Volume(axes.apply_orientation(voxels, orientation), affine, stored, path)


def compact(values: np.ndarray) -> np.ndarray:
    """Integers as int16 where they fit, other numbers as float32."""
    if values.dtype.kind == "f":
        return values.astype(np.float32, copy=False)
    limits = np.iinfo(np.int16)
    fits = values.size == 0 or (values.min() >= limits.min and values.max() <= limits.max)
    return values.astype(np.int16, copy=False) if fits and values.dtype.itemsize > 1 else values


def whole_numbers(values: np.ndarray, place: str = "") -> np.ndarray:
    """Round labels that were stored with a scale or as fractions (0.9999999) to the numbers that they stand for.

    Args:
        values: Of any shape.
        place: What the error begins with, such as the file.

    Returns:
        The same as integers.

    Raises:
        ImageFileError: If some lie further from whole numbers than :data:`LABEL_TOLERANCE`, or are not finite.
    """
    if values.dtype.kind in "iub":
        return values
    rounded = np.rint(values)
    with np.errstate(invalid="ignore"):  # infinite ones, which are refused
        right = np.abs(values - rounded) <= LABEL_TOLERANCE
    if not right.all():
        raise ImageFileError(f"{place}{unknown_labels(values[~right])}: labels are whole numbers")
    whole: np.ndarray = rounded.astype(np.int32)
    return whole


def unknown_labels(values: np.ndarray) -> str:
    """Name and count labels that nothing is known of."""
    found = ", ".join(f"{value:g}" for value in np.unique(values)[:5])
    return f"unknown label value {found} ({values.size} voxels)"


def grid_difference(image: Volume, label: Volume) -> str | None:
    """Say how two volumes in patient axes differ in shape or position, or None if they do not."""
    shape = image.voxels.shape
    if label.voxels.shape != shape:
        return f"image has {_times(shape)} voxels, label {_times(label.voxels.shape)}"
    return affine_difference(image.affine, label.affine, shape)


def affine_difference(image: np.ndarray, label: np.ndarray, shape: Sequence[int]) -> str | None:
    """Say how far apart two grids of X x Y x Z voxels lie, given their affines, or None if they are the same."""
    corners = np.array([[*corner, 1] for corner in itertools.product(*((0, n - 1) for n in shape))])
    apart = np.linalg.norm(((image - label) @ corners.T)[:3], axis=0).max()
    if apart > GRID_TOLERANCE * np.linalg.norm(image[:3, :3], axis=0).min():
        return f"image and label have different affines: they lie up to {apart:.3g} mm apart"
    return None


def radiological(voxels: np.ndarray) -> np.ndarray:
    """View a volume in patient axes (X x Y x Z) the way radiologists look at it.

    Returns:
        Z x H x W: slices from feet to head, rows from front to back, columns from the patient's right to left.
    """
    return voxels.transpose(2, 1, 0)[:, ::-1, ::-1]


def from_radiological(view: np.ndarray) -> np.ndarray:
    """View slices (Z x H x W) of :func:`radiological` as a volume in patient axes (X x Y x Z) again."""
    return view[:, ::-1, ::-1].transpose(2, 1, 0)


def _times(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
