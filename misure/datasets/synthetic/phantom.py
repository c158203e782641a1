"""Generated CT-like abdominal volumes in BTCV's own names and label ids: a stand-in for the registered data.

Organs are ellipsoids in millimetres: x to the patient's right, y to the front, z to the head, the origin between the
kidneys. Every patient has its own scale, warp, organ sizes and contrast. The number of pixels and slices only changes
how finely one and the same patient is sampled.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from misure.datasets.synapse.protocol import TRAIN_SLICES, VAL_CASES, official_paths
from misure.datasets.synthetic.cache import check_ranges
from misure.io.nifti import write_nifti

VERSION = 1
"""Raised with every change of what is drawn: volumes of another version lie in another folder."""

_AIR, _LUNG, _FAT, _FLUID, _MUSCLE, _BONE = -1000, -850, -100, 10, 55, 500

Field = NDArray[np.float64]
Triple = tuple[float, float, float]


@dataclass(frozen=True)
class Ellipsoid:
    """A part of the body.

    Attributes:
        label: BTCV's id; 0 for what has none.
        hu: Hounsfield units, in the mean of all patients.
        centre: x, y and z in millimetres.
        radii: Along x, y and z in millimetres, before turning.
        turn: Degrees about z, from the patient's right towards the front.
    """

    label: int
    hu: float
    centre: Triple
    radii: Triple
    turn: float = 0.0


_LONG = 1000.0  # of what reaches through all slices
_REACH = 40.0  # more than scale, shift and warp move anything along z

BODY = (
    Ellipsoid(0, _FAT, (0, 0, 0), (160, 122, _LONG)),
    Ellipsoid(0, _MUSCLE, (0, 0, 0), (147, 106, _LONG)),
    Ellipsoid(0, _FAT, (0, 2, 0), (135, 92, _LONG)),
    Ellipsoid(0, _LUNG, (68, 5, 165), (62, 75, 70)),
    Ellipsoid(0, _LUNG, (-68, 5, 160), (62, 75, 70)),
    *(Ellipsoid(0, _MUSCLE, (side * 42, -75, 0), (38, 24, _LONG)) for side in (1, -1)),
    *(Ellipsoid(0, 40, (side * 95, 15, -75), (24, 24, 75)) for side in (1, -1)),  # ascending and descending colon
    *(Ellipsoid(0, hu, (x, y, -60), (20, 16, 45)) for x, y, hu in ((55, 50, 45), (0, 55, 30), (-50, 45, 90))),
    Ellipsoid(6, 105, (62, 8, 62), (76, 76, 58)),  # liver
    Ellipsoid(6, 105, (2, 48, 78), (52, 30, 30)),  # its left lobe
    Ellipsoid(1, 118, (-98, -38, 66), (24, 42, 46), 25),  # spleen
    Ellipsoid(7, 45, (-58, 28, 62), (36, 46, 46), -20),  # stomach
    Ellipsoid(7, _FLUID, (-58, 20, 60), (28, 36, 38), -20),  # its contents
    Ellipsoid(4, _FLUID, (48, 50, 12), (17, 24, 26)),  # gallbladder
    Ellipsoid(2, 160, (64, -44, -8), (27, 25, 55), 30),  # right kidney
    Ellipsoid(3, 160, (-64, -44, 6), (27, 25, 55), -30),  # left kidney
    *(Ellipsoid(0, _FAT, (side * 48, -34, -1), (13, 9, 22), side * 30) for side in (1, -1)),  # their sinus
    Ellipsoid(12, 75, (36, -38, 58), (12, 5, 16), 30),  # right adrenal
    Ellipsoid(13, 75, (-40, -38, 58), (12, 5, 16), -30),  # left adrenal
    Ellipsoid(11, 90, (-22, 14, 26), (58, 14, 18), 20),  # pancreas
    Ellipsoid(10, 145, (14, 8, 40), (30, 9, 10), 20),  # portal vein
    Ellipsoid(0, _BONE, (0, -54, 0), (24, 18, _LONG)),
    Ellipsoid(0, 190, (0, -54, 0), (20, 14, _LONG)),
    Ellipsoid(0, _BONE - 150, (0, -86, 0), (9, 16, _LONG)),
    Ellipsoid(0, 30, (0, -75, 0), (9, 7, _LONG)),  # spinal canal
    Ellipsoid(9, 150, (20, -18, 0), (12, 12, _LONG)),  # vena cava
    Ellipsoid(8, 170, (-10, -18, 0), (12, 12, _LONG)),  # aorta
    Ellipsoid(5, 55, (-30, -6, 130), (10, 10, 48)),  # oesophagus
)
"""Parts in the order in which they are drawn: later ones displace earlier ones."""


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
        volumes = {"train_volumes": (1, len(TRAIN_SLICES)), "val_volumes": (1, len(VAL_CASES))}
        check_ranges("phantom", self, {**volumes, "size": (48, 1024), "slices": (10, 500), "seed": (0, 2**63 - 1)})

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


def make_phantom(spec: PhantomSpec, case: int) -> tuple[NDArray[np.int16], NDArray[np.uint8], Field]:
    """Make one patient.

    Args:
        spec: Sampling and seed.
        case: Id of the patient; it does not matter which others are made.

    Returns:
        Hounsfield units (X x Y x Z, indices growing to the patient's right, front and head), BTCV's label ids 0 to
        13 on the same grid, and the 4 x 4 affine from indices to millimetres.
    """
    rng = np.random.default_rng((spec.seed, case))
    extent = np.array([rng.uniform(376, 400), 0, rng.uniform(245, 285)])[[0, 0, 2]]
    spacing = extent / spec.shape
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = (spacing - extent) / 2 + (0, 0, rng.uniform(-5, 15))
    patient = _Patient(rng)
    x, y = np.meshgrid(*(affine[k, 3] + spacing[k] * np.arange(spec.size) for k in (0, 1)), indexing="ij")
    image, label = np.empty(spec.shape, np.int16), np.empty(spec.shape, np.uint8)
    for number in range(spec.slices):
        hu, label[..., number] = patient.slice(x, y, affine[2, 3] + spacing[2] * number)
        noise = np.random.default_rng((spec.seed, case, number + 1)).normal(0, 32, hu.shape)
        scanned = gaussian_filter(hu + noise, 0.6)
        image[..., number] = scanned.round().clip(-1024, 3071)
    return image, label, affine


class _Patient:
    """Parts of one body with sizes, contrast and a smooth warp of their own.

    Args:
        rng: The patient's; it is asked for the same numbers however fine the sampling.
    """

    def __init__(self, rng: np.random.Generator) -> None:
        self._scale, self._shift = rng.normal(1, 0.03, 3), rng.normal(0, (4, 4, 0))
        self._waves, self._phases = rng.normal(0, 1 / 40, (2, 3, 3)), rng.uniform(0, 2 * np.pi, (2, 3))
        contrast = {label: rng.normal(1, 0.1) for label in range(1, 14)}
        self._parts = [
            Ellipsoid(
                part.label,
                part.hu * contrast.get(part.label, 1),
                tuple(np.array(part.centre) + rng.normal(0, 3 if part.label else 0, 3)),
                tuple(np.array(part.radii) * rng.normal(1, 0.07 if part.label else 0.02, 3).clip(0.8, 1.2)),
                part.turn + rng.normal(0, 5),
            )
            for part in BODY
        ]

    def slice(self, x: Field, y: Field, z: float) -> tuple[Field, NDArray[np.uint8]]:
        """Hounsfield units and labels at places (H x W each, millimetres) of one height."""
        grid = np.stack([x, y, np.full_like(x, z)]) / self._scale[:, None, None] - self._shift[:, None, None]
        warps = np.sin(np.tensordot(self._waves, grid, 1) + self._phases[..., None, None])
        grid += 4 * warps.sum(0)
        hu, label = np.full(x.shape, float(_AIR)), np.zeros(x.shape, np.uint8)
        for part in self._parts:
            if abs(z - part.centre[2]) > part.radii[2] + _REACH:
                continue
            angle = np.deg2rad(part.turn)
            across, along, up = grid - np.array(part.centre)[:, None, None]
            right = np.cos(angle) * across + np.sin(angle) * along
            front = np.cos(angle) * along - np.sin(angle) * across
            inside = (right / part.radii[0]) ** 2 + (front / part.radii[1]) ** 2 + (up / part.radii[2]) ** 2 < 1
            hu[inside], label[inside] = part.hu, part.label
        return hu, label
