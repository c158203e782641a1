"""A patient being drawn: coordinates in a template's millimetres, and primitives with smooth, uneven surfaces."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator
from scipy.spatial.transform import Rotation

AIR = -1000.0

Volume = NDArray[np.float32]
Mask = NDArray[np.bool_]
Box = tuple[slice, slice, slice]
Part = tuple[Box, Volume]
"""Where a part may lie, and there the depth below its surface in millimetres (negative outside)."""
Triple = Sequence[float]
Course = Sequence[Sequence[float]]
"""x, y, z and radius along a tube."""


class Canvas:
    """Where a patient is drawn, part after part; later parts displace earlier ones.

    Args:
        axes: Scanner coordinates of the voxels along x, y and z in millimetres.
        rng: The patient's; it is asked for the same numbers however fine the sampling.

    Attributes:
        x, y, z: Template coordinates of each voxel.
        hu: Hounsfield units so far.
        label: BTCV's ids so far.
        rough: Smooth field of unit variance, with structure of about 25 mm.
        grain: The same with structure of about 8 mm.
        room: Where abdominal organs may lie.
    """

    def __init__(self, axes: tuple[NDArray[np.float64], ...], rng: np.random.Generator) -> None:
        self.rng = rng
        scale = rng.normal((1, 1, 1), (0.03, 0.04, 0.02)).clip(0.93, 1.07)
        turn = Rotation.from_euler("zxy", rng.normal(0, (2.5, 1.5, 1.5)).clip(-5, 5), degrees=True)
        shift = rng.normal(0, (4, 4, 0))
        grid = [_along(k, axis - shift[k]) for k, axis in enumerate(axes)]
        matrix = turn.as_matrix() / scale[:, None]
        warped = []
        for row in matrix:
            straight = sum(weight * part for weight, part in zip(row, grid, strict=True))
            warped.append((straight + 3.5 * _smooth_field(rng, axes, 48)).astype(np.float32))
        self.x, self.y, self.z = warped
        self.rough, self.grain = _smooth_field(rng, axes, 22), _smooth_field(rng, axes, 8)
        self.hu = np.full(self.x.shape, AIR, np.float32)
        self.label = np.zeros(self.x.shape, np.uint8)
        self.room = np.ones(self.x.shape, np.bool_)
        self._lines = [warped[k].mean(tuple({0, 1, 2} - {k})) for k in range(3)]
        self._slack = [float(np.abs(warped[k] - _along(k, self._lines[k])).max()) for k in range(3)]

    def box(self, low: Iterable[float], high: Iterable[float]) -> Box:
        """Voxels that may lie between two corners of the template."""
        bounds = zip(self._lines, self._slack, low, high, strict=True)
        x, y, z = (slice(*np.searchsorted(line, (a - slack, b + slack))) for line, slack, a, b in bounds)
        return x, y, z

    @property
    def everywhere(self) -> Box:
        """The box of all voxels."""
        return slice(None), slice(None), slice(None)

    def ellipsoid(self, centre: Triple, radii: Triple, turn: Triple = (0, 0, 0), box: Box | None = None) -> Part:
        """Ellipsoid whose axes are turned about x, y and z by degrees, in a box of its own or a given one."""
        reach = max(radii) if any(turn) else np.array(radii)
        box = box or self.box(np.array(centre) - 1.15 * reach, np.array(centre) + 1.15 * reach)
        offsets = [field[box] - np.float32(c) for field, c in zip((self.x, self.y, self.z), centre, strict=True)]
        matrix = Rotation.from_euler("xyz", turn, degrees=True).as_matrix().T / np.array(radii)[:, None]
        squares = np.zeros_like(offsets[0])
        for row in matrix.astype(np.float32):
            squares += (row[0] * offsets[0] + row[1] * offsets[1] + row[2] * offsets[2]) ** 2
        smallest = float(min(radii))
        return box, (1 - np.sqrt(squares)) * smallest + self.rough[box] * min(0.07 * smallest, 2)

    def tube(self, course: Course) -> Part:
        """Smooth tube along points with radii."""
        points = np.array(course, np.float64)
        fine = PchipInterpolator(np.arange(len(points)), points)(np.linspace(0, len(points) - 1, 4 * len(points) - 3))
        reach = fine[:, 3].max() + 3
        box = self.box((fine[:, :3] - reach).min(0), (fine[:, :3] + reach).max(0))
        depth = np.full_like(self.x[box], -np.inf)
        for start, end in itertools.pairwise(fine):
            reached = max(start[3], end[3]) + 3
            near = self.box(np.minimum(start, end)[:3] - reached, np.maximum(start, end)[:3] + reached)
            view = depth[_inside(near, box)]
            np.maximum(view, self._segment(near, start.astype(np.float32), end.astype(np.float32)), out=view)
        return box, depth + self.rough[box] * np.float32(min(0.07 * points[:, 3].mean(), 1.5))

    def _segment(self, box: Box, start: Volume, end: Volume) -> Volume:
        """Depth below the surface of a straight tube between two points with radii."""
        offsets = [field[box] - start[k] for k, field in enumerate((self.x, self.y, self.z))]
        along = end[:3] - start[:3]
        share = sum(offset * part for offset, part in zip(offsets, along / (along @ along), strict=True))
        share = np.clip(share, 0, 1)
        apart = sum((offset - share * part) ** 2 for offset, part in zip(offsets, along, strict=True))
        depth: Volume = start[3] + share * (end[3] - start[3]) - np.sqrt(apart)
        return depth

    def union(self, *parts: Part) -> Part:
        """Put parts together."""
        x, y, z = (
            slice(min(s.start for s in sides), max(s.stop for s in sides))
            for sides in zip(*(part[0] for part in parts), strict=True)
        )
        depth = np.full_like(self.x[x, y, z], -np.inf)
        for box, part in parts:
            view = depth[_inside(box, (x, y, z))]
            np.maximum(view, part, out=view)
        return (x, y, z), depth

    def paint(self, box: Box, mask: Mask, hu: float, label: int = 0, *, grain: float = 4) -> None:
        """Give voxels of a box a value, with some grain, and a label."""
        self.hu[box][mask] = hu + grain * self.grain[box][mask]
        self.label[box][mask] = label

    def solid(self, part: Part, hu: float, label: int = 0, *, grain: float = 4, anywhere: bool = False) -> None:
        """Draw a part of one tissue."""
        box, depth = part
        self.paint(box, (depth > 0) if anywhere else (depth > 0) & self.room[box], hu, label, grain=grain)

    def hollow(
        self, part: Part, wall: float, content: float, gas_above: float, label: int = 0, *, thick: float
    ) -> None:
        """Draw a part with a wall, contents, and gas in front of a level."""
        self.solid(part, wall, label)
        box, depth = part
        lumen = (depth > thick) & self.room[box]
        self.paint(box, lumen, content, label, grain=10)
        self.paint(box, lumen & (self.y[box] > gas_above), -940, label)


def _along(axis: int, values: np.ndarray) -> np.ndarray:
    """Turn a line into a volume of that length along one axis."""
    return np.expand_dims(values, tuple({0, 1, 2} - {axis}))


def _inside(box: Box, outer: Box) -> Box:
    """A box's indices within an array that covers a larger box."""
    x, y, z = (slice(part.start - whole.start, part.stop - whole.start) for part, whole in zip(box, outer, strict=True))
    return x, y, z


def _smooth_field(rng: np.random.Generator, axes: Sequence[NDArray[np.float64]], spacing: float) -> Volume:
    """Cubic B-spline with random coefficients ``spacing`` millimetres apart, of about unit variance."""
    low, cells = -260.0, int(520 / spacing) + 4
    field = rng.standard_normal((cells, cells, cells), np.float32) * np.float32(3)
    for axis in axes:
        knot, t = np.divmod((axis - low) / spacing, 1)
        basis = np.stack([(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3], 1) / 6
        weights = np.zeros((len(axis), cells), np.float32)
        np.put_along_axis(weights, knot.astype(np.int64)[:, None] + np.arange(4), basis.astype(np.float32), 1)
        field = np.tensordot(field, weights, (0, 1))
    return field
