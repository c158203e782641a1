"""Silhouettes of a cat, a dog, a cow and a person; each has its own draws of proportions and pose."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from misure.datasets.synthetic.scene_chance import Chance
from misure.datasets.synthetic.scene_shapes import Figure, Point, curve, ellipse, limb, panel


@dataclass(frozen=True)
class _Legs:
    """Where legs of a quadruped start, and how long and wide they are."""

    rear: float
    front: float
    hip: float
    wide: float
    narrow: float


def cat(chance: Chance) -> Figure:
    """Draw a cat that walks or sits: round head that faces the viewer, pointed ears, long thin tail."""
    figure = Figure()
    head = _sitting_cat(figure, chance) if chance.happens(0.45) else _walking_cat(figure, chance)
    (x, y), radius = head, chance.number(0.23, 0.27)
    for side in (-1, 1):
        ear = np.array([(0.95 * side, 0.15), (0.92 * side, 1.5), (0.1 * side, 0.88)]) * radius + (x, y)
        figure.add(ear, "body")
        figure.mark(ear * 0.55 + 0.45 * (ear.mean(0) - np.array((0, 0.05 * radius))), "pink")
    figure.add(ellipse(head, 1.1 * radius, 0.95 * radius), "body")
    figure.mark(ellipse((x, y - 0.42 * radius), 0.5 * radius, 0.34 * radius), "patch")
    for side in (-1, 1):
        figure.mark(ellipse((x + 0.45 * side * radius, y + 0.12 * radius), 0.22 * radius, 0.25 * radius), "eye")
        figure.mark(ellipse((x + 0.45 * side * radius, y + 0.12 * radius), 0.09 * radius, 0.22 * radius), "dark")
        for rise in (-0.1, 0.1):
            start, end = (x + 0.3 * side * radius, y - 0.4 * radius), (x + side * radius, y - (0.4 - rise) * radius)
            figure.mark(limb(start, end, 0.012, 0.012), "light")
    nose = np.array([(-0.14, -0.2), (0.14, -0.2), (0, -0.38)]) * radius + (x, y)
    figure.mark(nose, "pink")
    return figure


def _walking_cat(figure: Figure, chance: Chance) -> Point:
    length, stripes = chance.number(0.95, 1.15), chance.happens(0.6)
    lift = chance.number(-0.1, 0.15)
    tail = [(0.1, 0.62), (-0.12, 0.66), (-0.3, 0.85 + lift), (-0.33, 1.1 + lift), (-0.22, 1.28 + lift)]
    figure.line(tail, 0.1, 0.08, "body")
    _legs(figure, chance, _Legs(0.14, length - 0.1, 0.4, 0.16, 0.09))
    figure.add(
        curve((0.0, 0.58), (0.14, 0.72), (length / 2, 0.68), (length, 0.74), (length + 0.06, 0.55),
              (length - 0.1, 0.36), (length / 2, 0.36), (0.1, 0.36)),
        "body",
    )  # fmt: skip
    for x in np.linspace(0.22, length - 0.15, 5).tolist() if stripes else ():
        figure.mark(limb((x, 0.66), (x + 0.03, 0.5), 0.05, 0.02), "body", 0.55)
    return length + 0.14, chance.number(0.82, 0.9)


def _sitting_cat(figure: Figure, chance: Chance) -> Point:
    side = chance.pick((-1, 1))
    tail = [(0.2 * side, 0.1), (0.48 * side, 0.07), (0.64 * side, 0.22), (0.62 * side, 0.45), (0.7 * side, 0.6)]
    figure.line(tail, 0.1, 0.08, "body")
    figure.add(
        curve(
            (-0.34, 0.0), (-0.4, 0.22), (-0.24, 0.6), (-0.17, 0.85), (0.17, 0.85), (0.24, 0.6), (0.4, 0.22), (0.34, 0)
        ),
        "body",
    )
    figure.mark(ellipse((0, 0.6), 0.1, 0.16), "patch")
    for x in (-0.1, 0.1):
        figure.mark(limb((x, 0.42), (x, 0.05), 0.12, 0.13), "body", 0.8)
        figure.mark(ellipse((x, 0.04), 0.09, 0.05), "patch")
    return 0.0, chance.number(0.98, 1.04)


def dog(chance: Chance) -> Figure:
    """Draw a dog in profile: long legs, deep chest, long snout, hanging ear, tail up, collar."""
    figure, length, leg = Figure(), chance.number(1.05, 1.25), chance.number(0.46, 0.58)
    back, wag = leg + 0.36, chance.number(-0.1, 0.1)
    figure.line([(0.1, back - 0.1), (-0.12, back + 0.1), (-0.2 + wag, back + 0.36)], 0.15, 0.07, "body")
    _legs(figure, chance, _Legs(0.15, length - 0.12, leg, 0.2, 0.11))
    figure.add(
        curve((0.0, back - 0.14), (0.16, back), (length / 2, back - 0.02), (length - 0.05, back + 0.03),
              (length + 0.08, back - 0.2), (length - 0.12, leg - 0.1), (length / 2, leg + 0.03), (0.1, leg)),
        "body",
    )  # fmt: skip
    x, y = length + 0.2, back + chance.number(0.26, 0.36)
    figure.add(limb((length - 0.06, back - 0.12), (x - 0.03, y), 0.36, 0.24), "body")
    figure.mark(limb((length - 0.02, back + 0.13), (length + 0.2, back + 0.02), 0.07, 0.07), "second")
    droop = chance.number(-0.14, 0.02)
    figure.add(ellipse((x, y + 0.02), 0.2, 0.17), "body")
    figure.add(limb((x + 0.08, y - 0.04), (x + 0.38, y - 0.06 + droop), 0.2, 0.13), "body")
    figure.mark(ellipse((x + 0.42, y - 0.04 + droop), 0.05, 0.05), "dark")
    figure.add(ellipse((x - 0.1, y - 0.08), 0.09, 0.21, turn=-8), "body", 0.55)
    figure.mark(ellipse((x + 0.09, y + 0.07), 0.035), "dark")
    figure.mark(limb((x + 0.2, y - 0.12 + 0.5 * droop), (x + 0.4, y - 0.1 + droop), 0.02, 0.02), "dark")
    if chance.happens(0.5):
        figure.mark(ellipse((length * 0.4, back - 0.13), 0.24, 0.11), "patch")
    return figure


def cow(chance: Chance) -> Figure:
    """Draw a cow: heavy box of a body with large patches, horns, low head with a pale muzzle, udder, tufted tail."""
    figure, length, leg = Figure(), chance.number(1.55, 1.8), chance.number(0.42, 0.52)
    back = leg + chance.number(0.66, 0.76)
    figure.line([(0.06, back - 0.06), (-0.1, back - 0.2), (-0.13, leg + 0.1)], 0.07, 0.06, "body")
    figure.add(ellipse((-0.13, leg + 0.02), 0.07, 0.14), "dark")
    figure.add(ellipse((0.44, leg - 0.02), 0.17, 0.13), "pink")
    _legs(figure, chance, _Legs(0.2, length - 0.2, leg + 0.1, 0.24, 0.13))
    figure.add(
        curve((0.0, back - 0.2), (0.08, back), (length / 2, back - 0.05), (length - 0.1, back + 0.02),
              (length + 0.08, back - 0.25), (length - 0.1, leg - 0.02), (length / 2, leg - 0.06), (0.12, leg + 0.02),
              (0.0, leg + 0.3)),
        "body",
    )  # fmt: skip
    middle = (leg + back) / 2
    for centre in np.linspace(0.26, length - 0.3, 3).tolist():
        x, y = centre + chance.number(-0.06, 0.06), middle + chance.number(-0.12, 0.12)
        w, h = chance.number(0.1, 0.22), chance.number(0.1, 0.18)
        spot = curve((x - w, y), (x - 0.3 * w, y + h), (x + 0.8 * w, y + 0.7 * h), (x + w, y - 0.3 * h), (x, y - h))
        figure.mark(spot, "patch")
    _cow_head(figure, (length + 0.22, back + chance.number(-0.12, 0.12)), (length - 0.1, back - 0.22))
    return figure


def _cow_head(figure: Figure, head: Point, shoulder: Point) -> None:
    x, y = head
    figure.add(limb(shoulder, (x - 0.04, y - 0.02), 0.46, 0.3), "body")
    for side in (0.0, 0.15):
        figure.line(
            [(x - 0.1 + side, y + 0.1), (x - 0.14 + 1.6 * side, y + 0.24), (x - 0.06 + side, y + 0.34)],
            0.09,
            0.05,
            "light",
        )
    figure.add(limb((x, y + 0.02), (x + 0.2, y - 0.32), 0.36, 0.24), "body")
    figure.add(ellipse((x + 0.22, y - 0.36), 0.16, 0.13, turn=-30), "pink")
    figure.mark(ellipse((x + 0.28, y - 0.33), 0.03), "dark")
    figure.add(ellipse((x - 0.18, y + 0.03), 0.16, 0.075, turn=20), "body", 0.7)
    figure.mark(ellipse((x + 0.06, y - 0.02), 0.045), "dark")


def person(chance: Chance) -> Figure:
    """Draw a person from the front, standing, walking or with an arm raised, in a shirt and trousers or a skirt."""
    figure, stride = Figure(), chance.number(0.02, 0.3)
    hip, shoulder = chance.number(0.92, 1.02), chance.number(1.52, 1.6)
    skirt = chance.happens(0.3)
    for side in (-1, 1):
        knee = (0.11 * side + 0.55 * stride * side, 0.5)
        foot = (0.11 * side + stride * side, 0.07)
        figure.line([(0.1 * side, hip), knee, foot], 0.23, 0.15, "skin" if skirt else "second", 1 - 0.12 * (side < 0))
        figure.add(ellipse((foot[0] + 0.06, 0.06), 0.14, 0.065), "dark")
    for side in (-1, 1):
        _arm(figure, chance, (0.25 * side, shoulder - 0.04), side)
    torso = (
        (-0.28, shoulder),
        (0.28, shoulder),
        (0.2, hip + 0.2),
        (0.22, hip - 0.05),
        (-0.22, hip - 0.05),
        (-0.2, hip + 0.2),
    )
    figure.add(limb((0, shoulder - 0.05), (0, shoulder + 0.16), 0.15, 0.14), "skin", 0.85)
    if skirt:
        figure.add(np.array([(-0.18, hip + 0.08), (0.18, hip + 0.08), (0.36, 0.55), (-0.36, 0.55)]), "second")
    figure.add(curve(*torso), "body")
    _face(figure, chance, (chance.number(-0.03, 0.03), shoulder + 0.3))
    return figure


def _arm(figure: Figure, chance: Chance, shoulder: Point, side: int) -> None:
    """Upper arm and forearm, hanging or raised, with a hand."""
    upper = np.deg2rad(chance.number(15, 40) if chance.happens(0.75) else chance.number(95, 140))
    lower = upper + np.deg2rad(chance.number(-20, 25))
    elbow = (shoulder[0] + side * 0.32 * float(np.sin(upper)), shoulder[1] - 0.32 * float(np.cos(upper)))
    hand = (elbow[0] + side * 0.3 * float(np.sin(lower)), elbow[1] - 0.3 * float(np.cos(lower)))
    figure.add(limb(elbow, hand, 0.12, 0.1), "skin")
    figure.add(limb(shoulder, elbow, 0.17, 0.14), "body", 0.85)
    figure.add(ellipse(hand, 0.075), "skin")


def _face(figure: Figure, chance: Chance, head: Point) -> None:
    x, y = head
    if chance.happens(0.4):
        figure.add(panel(x - 0.22, y - 0.22, x + 0.22, y + 0.05, 0.08), "hair")
    figure.add(ellipse((x, y + 0.03), 0.21, 0.23), "hair")
    figure.mark(ellipse((x, y - 0.02), 0.17, 0.19), "skin")
    for side in (-1, 1):
        figure.mark(ellipse((x + 0.07 * side, y + 0.02), 0.022), "dark")
    figure.mark(limb((x - 0.05, y - 0.1), (x + 0.05, y - 0.1), 0.02, 0.02), "dark")


def _legs(figure: Figure, chance: Chance, legs: _Legs) -> None:
    """Four legs in a walk; those of the far side are darker."""
    swing = chance.number(-0.14, 0.14)
    for far in (True, False):
        shift, step = (0.1, -swing) if far else (0.0, swing)
        for x, bend in ((legs.rear, -0.06), (legs.front, 0.02)):
            knee, foot = (x + shift + bend + 0.4 * step, 0.52 * legs.hip), (x + shift + step, 0.05)
            shade = 0.7 if far else 1.0
            figure.line([(x + shift, legs.hip), knee, foot], legs.wide, legs.narrow, "body", shade)
            figure.add(
                ellipse((foot[0] + 0.03, 0.045), 0.75 * legs.narrow, 0.05),
                "dark" if legs.wide > 0.22 else "body",
                shade,
            )
