"""Silhouettes of a bus, a car, a train and a bicycle, seen from the side; each has its own draws of proportions."""

from __future__ import annotations

import itertools

import numpy as np

from misure.datasets.synthetic.scene_chance import Chance
from misure.datasets.synthetic.scene_shapes import Figure, ellipse, limb, panel


def bus(chance: Chance) -> Figure:
    """Draw a long box with a row of large windows, a door at the front and two wheels; some have two decks."""
    figure, length, double = Figure(), chance.number(2.0, 2.7), chance.happens(0.25)
    top = 1.62 if double else chance.number(1.05, 1.2)
    figure.add(panel(0, 0.14, length, top, 0.09), "body")
    figure.mark(panel(0.02, 0.36, length - 0.02, chance.number(0.42, 0.5)), "second")
    windows = chance.integer(4, 6)
    for sill in (0.6, 1.14)[: 1 + double]:
        edges = np.linspace(0.07, length - 0.42, windows + 1)
        for left, right in itertools.pairwise(edges.tolist()):
            figure.mark(panel(left + 0.025, sill, right - 0.025, sill + 0.36, 0.03), "glass")
        figure.mark(panel(length - 0.11, sill - 0.06, length - 0.015, sill + 0.4, 0.03), "glass", 0.9)
    figure.mark(panel(length - 0.38, 0.2, length - 0.17, 0.98, 0.03), "glass", 0.7)
    figure.mark(limb((length - 0.275, 0.22), (length - 0.275, 0.96), 0.025, 0.025), "body", 0.7)
    figure.mark(ellipse((length - 0.06, 0.3), 0.045), "light")
    figure.mark(panel(0.0, 0.26, 0.05, 0.4), "lamp")
    for x in (chance.number(0.18, 0.24) * length, 0.74 * length):
        _wheel(figure, x, 0.19)
    return figure


def car(chance: Chance) -> Figure:
    """Draw a low body with a cabin on it and two large wheels."""
    figure, length = Figure(), chance.number(2.1, 2.5)
    waist, roof = chance.number(0.56, 0.64), chance.number(0.98, 1.14)
    rear, front = chance.number(0.08, 0.42), chance.number(1.42, 1.6)
    cabin = np.array([(rear, waist - 0.08), (rear + 0.28, roof), (front - 0.34, roof), (front + 0.1, waist - 0.08)])
    figure.add(cabin, "body")
    figure.add(panel(0, 0.16, length, waist, 0.13), "body")
    nose = np.array([(front - 0.2, waist), (length - 0.35, waist + 0.01), (length - 0.02, 0.45), (front, 0.3)])
    figure.add(nose, "body")
    middle = (rear + front) / 2
    low, high = waist, roof - 0.09
    figure.mark(
        np.array([(rear + 0.14, low), (rear + 0.33, high), (middle - 0.03, high), (middle - 0.03, low)]), "glass"
    )
    figure.mark(
        np.array([(middle + 0.04, low), (middle + 0.04, high), (front - 0.38, high), (front - 0.03, low)]), "glass"
    )
    figure.mark(limb((middle, 0.22), (middle, waist), 0.025, 0.025), "body", 0.7)
    figure.mark(panel(middle - 0.2, waist - 0.12, middle - 0.07, waist - 0.08), "dark")
    figure.mark(panel(0.02, 0.2, length - 0.02, 0.27), "body", 0.7)
    figure.mark(ellipse((length - 0.09, 0.43), 0.065, 0.05), "light")
    figure.mark(panel(0.0, 0.4, 0.08, 0.5), "lamp")
    for x in (0.19 * length, 0.8 * length):
        _wheel(figure, x, 0.26)
    return figure


def train(chance: Chance) -> Figure:
    """Draw a locomotive with a sloping nose, a coach behind it, many small windows and wheels, and a pantograph."""
    figure, length, coach = Figure(), chance.number(2.3, 2.7), chance.number(0.9, 1.6)
    nose, roof = chance.number(0.55, 0.95), 0.98
    front = [(length - nose, roof), (length - 0.55 * nose, 0.9), (length - 0.2 * nose, 0.64), (length, 0.34)]
    figure.add(panel(-0.14, 0.25, 0.1, 0.85), "dark")
    figure.add(np.array([(0, 0.14), (0, roof), *front, (length - 0.04, 0.14)]), "body")
    figure.add(panel(-coach - 0.08, 0.14, -0.08, roof, 0.03), "body")
    stripe = chance.number(0.3, 0.38)
    for left, right in ((-coach - 0.08, -0.08), (0.0, length - 0.08)):
        figure.mark(panel(left, stripe, right, stripe + 0.12), "second")
        figure.mark(panel(left, 0.14, right - 0.02, 0.22), "body", 0.5)
    _train_windows(figure, -coach - 0.02, -0.14)
    _train_windows(figure, 0.1, length - nose - 0.12)
    pane = np.array([(-0.72, 0.6), (-0.62, 0.86), (-0.52, 0.84), (-0.26, 0.6)]) * (nose, 1) + (length, 0)
    figure.mark(pane, "glass", 0.8)
    figure.mark(ellipse((length - 0.1, 0.36), 0.05), "light")
    for x in (0.24, 0.46, length - nose - 0.1, length - nose + 0.12, -0.3, -0.5, -coach + 0.12, -coach + 0.32):
        _wheel(figure, x, 0.1)
    base = chance.number(0.4, 0.8)
    figure.line([(base, roof), (base + 0.24, 1.13), (base + 0.02, 1.3)], 0.08, 0.07, "dark")
    figure.add(limb((base - 0.16, 1.31), (base + 0.2, 1.31), 0.08, 0.08), "dark")
    return figure


def _train_windows(figure: Figure, left: float, right: float) -> None:
    count = max(2, round((right - left) / 0.27))
    for start in np.linspace(left, right, count, endpoint=False).tolist():
        figure.mark(panel(start + 0.05, 0.58, start + 0.05 + 0.6 * (right - left) / count, 0.82, 0.03), "glass")


def bicycle(chance: Chance) -> Figure:
    """Draw two spoked wheels, a frame of tubes, saddle and handlebar.

    What is behind shines through the wheels, which belong to the object as a whole, as annotators draw them.
    """
    figure, base = Figure(), chance.number(1.32, 1.5)
    rear, front = (0.5, 0.5), (0.5 + base, 0.5)
    for hub in (rear, front):
        figure.add(ellipse(hub, 0.5), "dark")
        figure.mark(ellipse(hub, 0.4), "rim", 1.0, 0.6)
        phase = chance.number(0, 45)
        for angle in np.deg2rad(np.arange(4) * 45 + phase).tolist():
            tip = 0.4 * np.array([np.cos(angle), np.sin(angle)])
            ends = [(hub[0] + sign * float(tip[0]), hub[1] + sign * float(tip[1])) for sign in (-1, 1)]
            figure.mark(limb(ends[0], ends[1], 0.03, 0.03), "light")
    pedals, head = (0.5 + 0.45 * base, 0.48), (front[0] - 0.24, chance.number(1.12, 1.22))
    seat = (pedals[0] - 0.22, head[1] - chance.number(0.0, 0.08))
    for start, end in ((rear, pedals), (rear, seat), (pedals, seat), (pedals, head), (seat, head), (head, front)):
        figure.add(limb(start, end, 0.1, 0.1), "body")
    post, stem = (seat[0] - 0.03, seat[1] + 0.14), (head[0] - 0.05, head[1] + 0.2)
    figure.add(limb(seat, post, 0.08, 0.08), "dark")
    figure.add(ellipse((post[0] - 0.04, post[1] + 0.03), 0.22, 0.075), "dark")
    bar = (stem[0] + chance.number(0.12, 0.24), stem[1] + chance.number(-0.1, 0.1))
    figure.line([head, stem, bar], 0.09, 0.1, "dark")
    figure.add(ellipse(pedals, 0.13), "dark")
    figure.line([pedals, (pedals[0] + 0.16, pedals[1] - 0.2)], 0.08, 0.08, "dark")
    return figure


def _wheel(figure: Figure, x: float, radius: float) -> None:
    """A tyre that stands on the ground, with a light hub."""
    figure.add(ellipse((x, radius), radius), "dark")
    figure.mark(ellipse((x, radius), 0.55 * radius), "rim")
    figure.mark(ellipse((x, radius), 0.2 * radius), "dark")
