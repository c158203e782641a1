"""Generated CT-like abdominal volumes in BTCV's own names and label ids: a stand-in for the registered data.

Anatomy is drawn in millimetres of a template patient: x to the patient's right, y to the front, z to the head, the
origin between the kidneys. Every case has its own scale, tilt, smooth warp, organ sizes and contrast. The number of
pixels and slices only changes how finely one and the same patient is sampled.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from misure.datasets.synapse.own_ct import official_paths
from misure.datasets.synapse.protocol import TRAIN_SLICES, VAL_CASES
from misure.datasets.synthetic.phantom_anatomy import DOME, draw_patient
from misure.datasets.synthetic.phantom_canvas import Canvas, Volume
from misure.errors import MisureError
from misure.io.nifti import write_nifti

_SLAB_VOXELS = 1 << 22


@dataclass(frozen=True)
class PhantomSpec:
    """How many volumes, and how finely they are sampled.

    Attributes:
        train_volumes: Number of volumes with ids of the published training split, at most 18.
        val_volumes: Number with ids of the published validation split, at most 12.
        size: Rows and columns of a slice.
        slices: Axial slices of a volume.
        seed: Same seed, same patients.
    """

    train_volumes: int = 5
    val_volumes: int = 3
    size: int = 256
    slices: int = 48
    seed: int = 0

    def __post_init__(self) -> None:
        ranges = {
            "train_volumes": (1, len(TRAIN_SLICES)),
            "val_volumes": (1, len(VAL_CASES)),
            "size": (48, 1024),
            "slices": (10, 500),
            "seed": (0, 2**63 - 1),
        }
        for name, (low, high) in ranges.items():
            if not low <= getattr(self, name) <= high:
                raise MisureError(f"phantom.{name}={getattr(self, name)} is not a number from {low} to {high}")

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels of one volume along x, y and z."""
        return self.size, self.size, self.slices

    @property
    def cases(self) -> tuple[int, ...]:
        """Case ids, training first."""
        return (*tuple(TRAIN_SLICES)[: self.train_volumes], *VAL_CASES[: self.val_volumes])


def write_phantoms(folder: Path, spec: PhantomSpec) -> None:
    """Write images and labels under BTCV's names into ``folder``, one volume in memory at a time.

    Raises:
        MisureError: If the disk does not take them.
    """
    for case in spec.cases:
        image, label, affine = make_phantom(spec, case)
        image_path, label_path = official_paths(folder, case)
        write_nifti(image_path, image, affine)
        write_nifti(label_path, label, affine)


def make_phantom(spec: PhantomSpec, case: int) -> tuple[NDArray[np.int16], NDArray[np.uint8], NDArray[np.float64]]:
    """Make one patient.

    Args:
        spec: Sampling and seed.
        case: Id of the patient; it does not matter which others are made.

    Returns:
        Hounsfield units (X x Y x Z, indices growing to the patient's right, front and head), BTCV's label ids 0 to
        13 on the same grid, and the 4 x 4 affine from indices to millimetres.
    """
    rng = np.random.default_rng((spec.seed, case))
    width, height, above_dome = rng.uniform(376, 400), rng.uniform(245, 285), rng.uniform(12, 32)
    spacing = np.array([width / spec.size, width / spec.size, height / spec.slices])
    first = np.array([(spacing[0] - width) / 2, (spacing[0] - width) / 2, DOME + above_dome - height])
    axes = [start + step * np.arange(n) for start, step, n in zip(first, spacing, spec.shape, strict=True)]
    image, label = np.empty(spec.shape, np.int16), np.empty(spec.shape, np.uint8)
    thickness = max(1, _SLAB_VOXELS // spec.size**2)
    for start in range(0, spec.slices, thickness):
        slab = slice(start, start + thickness)
        canvas = Canvas((axes[0], axes[1], axes[2][slab]), np.random.default_rng((spec.seed, case, 1)))
        draw_patient(canvas)
        label[..., slab] = canvas.label
        image[..., slab] = _scan(canvas.hu, np.random.default_rng((spec.seed, case, 2, start)))
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = first
    return image, label, affine


def _scan(hu: Volume, rng: np.random.Generator) -> NDArray[np.int16]:
    """What a scanner makes of true values: in-plane blur and slightly correlated noise."""
    noise = gaussian_filter(rng.standard_normal(hu.shape, np.float32), (0.6, 0.6, 0))
    noise *= rng.uniform(12, 18) / noise.std()
    blurred = gaussian_filter(hu, (0.6, 0.6, 0)) + noise
    scanned: NDArray[np.int16] = np.clip(np.rint(blurred), -1024, 3071).astype(np.int16)
    return scanned
