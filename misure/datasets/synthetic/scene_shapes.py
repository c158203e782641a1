"""Flat figures made of polygons: x to the right (where a figure looks), y up, the ground at y = 0."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]
"""Corners of a polygon, N x 2."""

Point = tuple[float, float]

_ANGLES = np.linspace(0, 2 * np.pi, 20, endpoint=False)
_CIRCLE = np.column_stack([np.cos(_ANGLES), np.sin(_ANGLES)])
_ACROSS = np.linspace(-np.pi / 2, np.pi / 2, 5)
_HALF_CIRCLE = np.column_stack([np.cos(_ACROSS), np.sin(_ACROSS)])
_QUARTERS = (np.arange(4)[:, None] * np.pi / 2 + np.linspace(0, np.pi / 2, 4)).ravel()
_INWARDS = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]).repeat(4, axis=0)
_ROUNDED = np.column_stack([np.cos(_QUARTERS), np.sin(_QUARTERS)]) + _INWARDS  # of a corner of radius 1
_TIMES = np.arange(4)[:, None, None] / 4  # places on a curve between two points of it
_WEIGHTS = (
    -_TIMES + 2 * _TIMES**2 - _TIMES**3,
    2 - 5 * _TIMES**2 + 3 * _TIMES**3,
    _TIMES + 4 * _TIMES**2 - 3 * _TIMES**3,
    _TIMES**3 - _TIMES**2,
)


@dataclass(frozen=True)
class Part:
    """A polygon of one colour.

    Attributes:
        points: Its corners.
        tone: Name of its colour.
        shade: Factor on the colour's brightness.
        opacity: Below 1, what lies behind the figure shines through.
        detail: Whether it lies on other parts, so that it does not change the figure's outline.
    """

    points: Points
    tone: str
    shade: float = 1.0
    opacity: float = 1.0
    detail: bool = False


@dataclass
class Figure:
    """Parts in the order in which they are drawn."""

    parts: list[Part] = field(default_factory=list)

    def add(self, points: Points, tone: str, shade: float = 1.0) -> None:
        """Add a part of the silhouette."""
        self.parts.append(Part(points, tone, shade))

    def mark(self, points: Points, tone: str, shade: float = 1.0, opacity: float = 1.0) -> None:
        """Add a detail on what is there already."""
        self.parts.append(Part(points, tone, shade, opacity, detail=True))

    def line(self, course: Sequence[Point], start: float, end: float, tone: str, shade: float = 1.0) -> None:
        """Add straight limbs along a course whose width goes from ``start`` to ``end``."""
        widths = np.linspace(start, end, len(course))
        for (a, wide), (b, narrow) in itertools.pairwise(zip(course, widths.tolist(), strict=True)):
            self.add(limb(a, b, wide, narrow), tone, shade)

    def mapped(self, matrix: Points, shift: Point) -> Figure:
        """The same figure elsewhere: its points (as rows) times a matrix, plus a shift."""
        moved = (
            Part(part.points @ matrix + shift, part.tone, part.shade, part.opacity, part.detail) for part in self.parts
        )
        return Figure(list(moved))

    @property
    def outline(self) -> list[Points]:
        """Polygons that together are the silhouette."""
        return [part.points for part in self.parts if not part.detail]


def ellipse(centre: Point, rx: float, ry: float | None = None, turn: float = 0.0) -> Points:
    """Ellipse (a circle without ``ry``), turned by degrees."""
    return (_CIRCLE * (rx, ry or rx)) @ rotation(turn) + centre


def panel(left: float, bottom: float, right: float, top: float, corner: float = 0.0) -> Points:
    """Upright rectangle; its corners may be rounded."""
    corners = np.array([(right, top), (left, top), (left, bottom), (right, bottom)], np.float64)
    return corners.repeat(4, axis=0) + corner * _ROUNDED if corner else corners


def limb(start: Point, end: Point, start_width: float, end_width: float) -> Points:
    """Straight limb with round ends."""
    (x, y), (u, v) = start, end
    length = math.hypot(u - x, v - y)
    along = np.array([(u - x, v - y), (y - v, u - x)]) / length
    cap = _HALF_CIRCLE @ along
    return np.concatenate([start - cap * (start_width / 2), end + cap * (end_width / 2)])


def curve(*knots: Point) -> Points:
    """Closed smooth curve through points (Catmull and Rom's)."""
    points = np.array(knots, np.float64)
    around = (np.roll(points, shift, axis=0) for shift in (1, 0, -1, -2))
    fine = np.sum([weight * knot for weight, knot in zip(_WEIGHTS, around, strict=True)], axis=0) / 2
    closed: Points = fine.transpose(1, 0, 2).reshape(-1, 2)
    return closed


def rotation(degrees: float) -> NDArray[np.float64]:
    """Matrix that turns rows of points anticlockwise."""
    angle = np.deg2rad(degrees)
    return np.array([(np.cos(angle), np.sin(angle)), (-np.sin(angle), np.cos(angle))])
