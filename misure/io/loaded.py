"""An image that was read, what is asked of it, and how a map gets back onto the grid of the scan that it came from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from misure.errors import MisureError
from misure.io.volume import from_radiological, radiological
from misure.regions import resized

AXES = ("radiological", "ras")


class ImageFileError(MisureError):
    """One image cannot be used; others can."""


@dataclass(frozen=True)
class InputFormat:
    """What a network takes.

    Attributes:
        channels: Image channels: colours become grey and grey ones are repeated; None keeps what the file has.
        dimensions: 2 for pictures and slices, 3 for volumes.
        slice_index: Of a scan, the axial slice counted from the feet; of a TIFF, the page; both begin with 0.
        window: Values of a scan that become 0 and 1 (Hounsfield units for CT); None takes the scan's own range.
        axes: Of a scan: ``radiological`` (slices from feet to head, rows from front to back, columns from the
            patient's right to left) or ``ras`` (to the patient's right, front and head, as MONAI has them).
    """

    channels: int | None = None
    dimensions: int = 2
    slice_index: int | None = None
    window: tuple[float, float] | None = None
    axes: str = "radiological"

    def __post_init__(self) -> None:
        if self.dimensions not in (2, 3):
            raise MisureError(f"dimensions={self.dimensions} is neither 2 nor 3")
        if self.axes not in AXES:
            raise MisureError(f"axes={self.axes} is not known: choose {' or '.join(AXES)}")
        if self.window is not None and not self.window[0] < self.window[1]:
            raise MisureError(f"window={list(self.window)} is empty: give its lower end first, such as [-125, 275]")
        if self.slice_index is not None and self.dimensions == 3:
            raise MisureError("slice=... is for networks that take single slices; this one takes whole volumes")

    def chosen(self, n_slices: int, what: str) -> int | None:
        """Return which slice is meant, or None for the whole volume.

        Args:
            n_slices: How many there are.
            what: The file and what its slices are, for the error.

        Raises:
            ImageFileError: If a network for slices is given several, or the slice does not exist.
        """
        if self.dimensions == 3:
            return None
        index = 0 if self.slice_index is None and n_slices == 1 else self.slice_index
        if index is None:
            raise ImageFileError(
                f"{what} 0 to {n_slices - 1} and the network takes one at a time: choose it with slice=<number>"
            )
        if not 0 <= index < n_slices:
            raise ImageFileError(f"{what} 0 to {n_slices - 1}: there is no slice={index}")
        return index


@dataclass(frozen=True)
class Grid:
    """Where a scan's pixels lie in the patient.

    Attributes:
        affine: 4 x 4, from indices of X x Y x Z voxels in patient axes to millimetres (RAS); of a single slice,
            Z is 1 and the affine that slice's own.
        stored: 4 x 4, the affine of the file: maps are written in its order of axes.
        axes: How the pixels were laid out from those voxels, see :class:`InputFormat`.
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


@dataclass(frozen=True)
class LoadedImage:
    """One image as it is in its file.

    Attributes:
        name: The file's name without its ending.
        pixels: float32, C x H x W or C x D x H x W, in [0, 1].
        path: The file or folder.
        grid: Where a scan lies in the patient; None for a photograph.
        slice_index: The slice or page that was taken, if one was.
    """

    name: str
    pixels: Tensor
    path: Path
    grid: Grid | None = None
    slice_index: int | None = None

    @property
    def affine(self) -> np.ndarray | None:
        """The 4 x 4 affine of the file a scan came from, in millimetres (RAS)."""
        return None if self.grid is None else self.grid.stored

    def restored(self, values: Tensor) -> Tensor:
        """Resize a map (spatial axes only) to the image's own size, linearly."""
        size = self.pixels.shape[1:]
        return values if values.shape == size else resized(values.float(), size)


def in_channels(pixels: np.ndarray, channels: int | None, path: Path) -> np.ndarray:
    """Bring C x spatial pixels to a number of channels: grey is repeated, colours are weighed as the eye does.

    Raises:
        ImageFileError: If the numbers of channels do not go together.
    """
    if channels is None or len(pixels) == channels:
        return pixels
    if len(pixels) == 1:
        return np.repeat(pixels, channels, axis=0)
    if channels == 1 and len(pixels) == 3:
        return np.tensordot(np.array([0.299, 0.587, 0.114], pixels.dtype), pixels, axes=1)[None]  # ITU-R 601
    raise ImageFileError(f"{path} has {len(pixels)} channels, the network takes {channels}")
