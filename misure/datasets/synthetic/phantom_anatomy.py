"""What an abdomen looks like in portal-venous CT: positions, shapes and Hounsfield units of its parts.

Template coordinates in millimetres: x to the patient's right, y to the front, z to the head, the origin between the
kidneys. Order matters: later parts displace earlier ones.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from misure.datasets.synthetic.phantom_canvas import Canvas, Course, Volume

SPLEEN, RIGHT_KIDNEY, LEFT_KIDNEY, GALLBLADDER, OESOPHAGUS, LIVER, STOMACH = range(1, 8)
AORTA, VENA_CAVA, PORTAL_VEIN, PANCREAS, RIGHT_ADRENAL, LEFT_ADRENAL = range(8, 14)

DOME = 118.0
"""Height of the right diaphragm."""

_LUNG, _FAT, _MUSCLE, _MARROW, _BONE = -850.0, -103.0, 56.0, 190.0, 520.0
_HALF_WIDTH, _HALF_DEPTH = 146.0, 107.0  # of the body within its subcutaneous fat

_COURSES: dict[str, Course] = {
    "aorta": ((-24, -40, 190, 12), (-18, -31, 110, 12), (-12, -19, 60, 11), (-9, -15, 0, 10), (-6, -13, -104, 9)),
    "vena cava": ((14, 12, 135, 13), (22, -8, 105, 13), (25, -14, 60, 11), (21, -14, 0, 11), (16, -13, -108, 10)),
    "iliac artery": ((5, -12, -104, 8), (26, -8, -130, 7), (45, 0, -165, 6)),
    "oesophagus": ((-8, -14, 190, 8), (-12, -8, 120, 8), (-24, 0, 98, 9), (-44, 0, 88, 9)),
    "stomach": ((-64, -16, 96, 25), (-64, 4, 80, 32), (-58, 32, 50, 29), (-38, 50, 24, 24), (-4, 56, 14, 18)),
    "pylorus": ((-4, 56, 14, 18), (14, 48, 14, 13), (30, 36, 14, 8)),
    "pancreas": (
        (30, 6, -22, 9),
        (28, 10, 0, 17),
        (10, 20, 12, 11),
        (-20, 15, 22, 13),
        (-52, -8, 36, 11),
        (-80, -24, 48, 5),
    ),
    "splenic vein": ((6, 9, 10, 5), (-20, 3, 20, 4), (-52, -17, 35, 4), (-84, -30, 50, 3)),
    "portal vein": ((4, 12, -75, 4), (6, 12, -20, 5), (6, 8, 8, 6), (24, 12, 34, 7), (40, 14, 56, 6)),
    "mesenteric artery": ((-9, -6, 14, 4), (-8, 6, 0, 3), (-6, 10, -75, 3)),
    "duodenum": (
        (30, 36, 14, 10),
        (50, 24, 6, 13),
        (52, 2, -16, 12),
        (38, 0, -38, 12),
        (0, 3, -42, 9),
        (-28, 12, -30, 11),
    ),
    "ascending colon": ((88, 0, -125, 24), (98, 0, -80, 23), (96, 8, -40, 20), (80, 42, -22, 18)),
    "transverse colon": ((80, 42, -22, 18), (42, 74, -34, 17), (-20, 78, -30, 16), (-72, 60, 0, 17), (-104, 6, 34, 17)),
    "descending colon": ((-104, 6, 34, 17), (-106, -20, 8, 16), (-104, -20, -60, 15), (-94, -6, -130, 15)),
    "psoas": ((24, -46, 14, 6), (40, -46, -50, 20), (54, -36, -125, 27)),
    "loin muscle": ((58, -74, 14, 8), (70, -68, -60, 14), (76, -66, -105, 16)),
    "crus": ((9, -18, 84, 5), (17, -24, 40, 6), (18, -29, -10, 4)),
    "right adrenal": ((26, -30, 60, 3), (32, -38, 50, 3), (36, -46, 42, 2)),
    "left adrenal": ((-30, -28, 52, 3), (-38, -34, 42, 3), (-42, -46, 34, 2)),
}
_LIVER_VESSELS: tuple[Course, ...] = (
    ((24, -6, 100, 5), (58, 14, 88, 5), (92, 34, 72, 3)),
    ((24, -6, 100, 5), (26, 34, 92, 4), (24, 64, 80, 3)),
    ((24, -6, 98, 5), (66, -24, 84, 5), (108, -30, 64, 3)),
    ((40, 14, 56, 6), (70, 8, 54, 5), (104, 4, 40, 3)),
    ((40, 14, 56, 5), (24, 44, 64, 4), (-4, 56, 70, 3)),
    ((70, 8, 54, 5), (90, -24, 40, 4), (112, -36, 26, 3)),
    ((70, 8, 54, 5), (88, 40, 34, 4), (98, 56, 20, 3)),
)


def draw_patient(canvas: Canvas) -> None:
    """Draw everything on an empty canvas."""
    rng = canvas.rng
    aorta, liver = rng.uniform(130, 230), rng.normal(102, 8)
    contrast = {
        "aorta": aorta,
        "cava": aorta * rng.uniform(0.8, 1),
        "portal": min(aorta, rng.uniform(140, 175)),
        "liver": liver,
        "spleen": liver + rng.normal(10, 5),
        "kidney": rng.uniform(145, 185),
        "pancreas": rng.uniform(80, 102),
        "gallbladder": rng.uniform(6, 20),
    }
    _draw_trunk(canvas)
    _draw_chest(canvas)
    _draw_bowel(canvas)
    _draw_liver(canvas, contrast)
    _draw_upper_organs(canvas, contrast)
    _draw_retroperitoneum(canvas, contrast)
    _draw_vessels(canvas, contrast)
    _draw_spine(canvas)


def _draw_trunk(canvas: Canvas) -> None:
    """Draw table, skin, fat, muscle wall and ribs, and leave the room within to lungs and organs."""
    x, y, z, rng = canvas.x, canvas.y, canvas.z, canvas.rng
    waist = 1 - 0.05 * np.exp(-(((z + 35) / 40) ** 2)) - 0.05 * np.clip((z - 90) / 70, 0, 1)
    u, v = np.abs(x) / (_HALF_WIDTH * waist), np.abs(y) / (_HALF_DEPTH * waist)
    radius = np.power(u * u * np.sqrt(u) + v * v * np.sqrt(v), 0.4) + 1e-6
    slope = np.hypot((u / radius) ** 1.5 / _HALF_WIDTH, (v / radius) ** 1.5 / _HALF_DEPTH)
    depth: Volume = (1 - radius) / slope - 5 * np.exp(-((x / 13) ** 2)) * (y < -40)
    fat = rng.uniform(8, 25) * (1 + 0.25 * np.sin(y / 60) * (y < 0) - 0.2 * np.clip(z / 100, -1, 1))
    everywhere = canvas.everywhere
    canvas.paint(everywhere, (np.abs(y - x**2 / 1400 + 144) < 1.5) & (np.abs(x) < 155), -50)  # the table
    for least, hu, grain in ((-fat - 2.0, 20, 0), (-fat, _FAT, 7), (0, _MUSCLE, 6)):
        canvas.paint(everywhere, depth > least, hu, grain=grain)
    wall = 13 - 5 * np.exp(-((x / 16) ** 2)) + 6 * np.clip((-y - 30) / 50, 0, 1)
    layers = (np.abs(depth - 0.45 * wall) < 0.9) & (np.abs(x) > 55) & (y > -60)
    canvas.paint(everywhere, layers, -60)
    canvas.room = depth > wall
    canvas.paint(everywhere, canvas.room, _FAT, grain=7)
    vessels = canvas.room & (canvas.grain > 1.75) & (np.abs(x) < 95) & (y > -25)
    canvas.paint(everywhere, vessels, 75)
    _draw_ribs(canvas, depth, rng.uniform(0, 24))


def _draw_ribs(canvas: Canvas, depth: Volume, start: float) -> None:
    """Draw ribs that descend within the wall from the spine to the front."""
    where = np.nonzero((depth > 1.5) & (depth < 12) & (canvas.z > -20))
    x, y, z, depth = (field[where] for field in (canvas.x, canvas.y, canvas.z, depth))
    around = np.arctan2(np.abs(x) / _HALF_WIDTH, -y / _HALF_DEPTH) / np.pi
    origin = z + 150 * around  # height at which a rib leaves the spine
    away = (origin - start) % 24 - 12
    across = (away / 5.5) ** 2 + ((depth - 6.5) / 3.8) ** 2
    long_enough = origin - away > 22 + 190 * np.maximum(around - 0.15, 0)
    rib = (across < 1) & long_enough & (around > 0.05) & (around < 0.88)
    value = np.where(across > 0.4, _BONE, _MARROW)
    value[around > 0.72] = 110  # cartilage
    canvas.hu[tuple(index[rib] for index in where)] = value[rib]


def _draw_chest(canvas: Canvas) -> None:
    """Draw lungs and heart above the diaphragm, and leave the room below it to the abdomen."""
    x, y, z, rng = canvas.x, canvas.y, canvas.z, canvas.rng
    depth_way = ((y - 8) / np.where(y > 8, np.float32(175), np.float32(84))) ** 2
    diaphragm = np.full_like(x, -np.inf)
    for side, top in ((1, DOME), (-1, DOME - rng.uniform(4, 18))):
        off_centre = side * x - 60
        width_way = (off_centre / np.where(off_centre < 0, np.float32(105), np.float32(84))) ** 2
        np.maximum(diaphragm, top - 75 * (width_way + depth_way), out=diaphragm)
    everywhere, chest = canvas.everywhere, canvas.room & (z > diaphragm)
    canvas.paint(everywhere, canvas.room & (z > diaphragm - 2.5), _MUSCLE)
    canvas.paint(everywhere, chest, _LUNG, grain=30)
    canvas.paint(everywhere, chest & (canvas.grain > 1.9), 40)
    canvas.paint(everywhere, chest & (np.abs(x) < 26) & (y < 10), _FAT)
    box, heart = canvas.ellipsoid((-24, 42, DOME + 14), (66, 52, 40), (0, 12, -20))
    for least, hu in ((-4.0, _FAT), (0.0, 125.0)):
        canvas.paint(box, (heart > least) & chest[box], hu)
    canvas.room &= z < diaphragm - 2.5


def _draw_bowel(canvas: Canvas) -> None:
    """Draw small bowel loops, duodenum and colon with gas, fluid, faeces or oral contrast."""
    rng = canvas.rng
    fluid = rng.choice((25.0, 25.0, 210.0))  # every third patient drank contrast
    for _ in range(44):
        start = rng.uniform((-92, -12, -150), (72, 66, -14))
        steps = np.cumsum(rng.normal(0, (22, 15, 13), (5, 3)), 0)
        radius, gas = rng.uniform(9, 15), rng.uniform(0, 60)
        loop = np.column_stack([start + steps, np.full(5, radius)])
        canvas.hollow(canvas.tube(loop.tolist()), 88, fluid, start[1] + gas, thick=2.5)
    for name in ("ascending colon", "transverse colon", "descending colon"):
        course = _moved(canvas, _COURSES[name], 5, 0.12)
        box, depth = canvas.tube(course)
        depth = depth - 3 * np.abs(np.sin(canvas.x[box] / 9 + canvas.z[box] / 11))
        middle = sum(point[1] for point in course) / len(course)
        canvas.hollow((box, depth), 70, 30, middle + rng.uniform(-8, 14), thick=2.5)
        faeces = (depth > 2.5) & (canvas.grain[box] > 0.4) & canvas.room[box]
        canvas.paint(box, faeces, -60, grain=90)
    canvas.hollow(canvas.tube(_moved(canvas, _COURSES["duodenum"], 3, 0.1)), 85, fluid, 60, thick=2.5)


def _draw_liver(canvas: Canvas, contrast: Mapping[str, float]) -> None:
    """Draw the liver with its vessels and fissures."""
    rng = canvas.rng
    size, low = rng.uniform(0.92, 1.08), rng.uniform(-14, 14)
    right = canvas.ellipsoid((72, 2, 52), (76 * size, 86 * size, 86 * size))
    left = canvas.ellipsoid((4, 46, 80), (78 * size, 40 * size, 34 * size), (0, 14, 10))
    box, depth = canvas.union(right, left)
    x, y, z = canvas.x[box], canvas.y[box], canvas.z[box]
    underside = z - (52 + low - 0.85 * np.clip(x - 5, -30, 95) - 0.1 * y)
    canvas.solid((box, np.minimum(depth, 0.7 * underside + 2 * canvas.rough[box])), contrast["liver"], LIVER)
    for course in _LIVER_VESSELS:
        part, depth = canvas.tube(_moved(canvas, course, 4, 0.15))
        canvas.paint(part, (depth > 0) & (canvas.label[part] == LIVER), contrast["liver"] + 38, LIVER)
    fissure = (np.abs(x - 14 - 0.15 * (y - 40)) < 1.4 + canvas.rough[box]) & (y > 40) & (z < 84)
    canvas.paint(box, fissure & (canvas.label[box] == LIVER), _FAT + 40)
    canvas.solid(canvas.ellipsoid((32, 12, 42), (13, 7, 10)), _FAT)


def _draw_upper_organs(canvas: Canvas, contrast: Mapping[str, float]) -> None:
    """Draw stomach, spleen and gallbladder."""
    rng = canvas.rng
    stomach = canvas.union(canvas.tube(_moved(canvas, _COURSES["stomach"], 5, 0.2)), canvas.tube(_COURSES["pylorus"]))
    canvas.hollow(stomach, 72, rng.uniform(5, 38), rng.uniform(34, 80), STOMACH, thick=4.5)
    size, x, y, z = rng.uniform(0.85, 1.2), *rng.normal((-100, -34, 62), 4)
    box, spleen = canvas.ellipsoid((x, y, z), (34 * size, 58 * size, 54 * size), (18, 0, -24))
    _, hollow = canvas.ellipsoid((x + 40, y + 18, z - 4), (32, 48, 46), (0, 0, -24), box=box)
    canvas.solid((box, np.minimum(spleen, -hollow)), contrast["spleen"], SPLEEN)
    size, x, y, z = rng.uniform(0.75, 1.25), *rng.normal((50, 46, 6), 4)
    gallbladder = canvas.ellipsoid((x, y, z), (14 * size, 20 * size, 26 * size), (-25, 15, 0))
    canvas.hollow(gallbladder, 45, contrast["gallbladder"], 200, GALLBLADDER, thick=1.5)


def _draw_retroperitoneum(canvas: Canvas, contrast: Mapping[str, float]) -> None:
    """Draw kidneys in their fat, adrenals, pancreas and the muscles beside the spine."""
    rng = canvas.rng
    canvas.solid(canvas.ellipsoid((0, -30, 0), (40, 24, 260)), _FAT, grain=7)
    for side, label in ((1, RIGHT_KIDNEY), (-1, LEFT_KIDNEY)):
        x, y, z = rng.normal((64, -42, 1 - 8 * side), 3)
        size, turn = rng.uniform(0.88, 1.12), (rng.normal(8, 4), rng.normal(-14 * side, 4), 35 * side)
        centre, radii = (side * x, y, z), np.array([29, 25, 57]) * size
        canvas.solid(canvas.ellipsoid(centre, tuple(radii + 4), turn), _FAT, grain=7)
        box, kidney = canvas.ellipsoid(centre, tuple(radii), turn)
        canvas.solid((box, kidney), contrast["kidney"], label)
        inner = (kidney > 7) & (canvas.grain[box] > -0.2)
        canvas.paint(box, inner, contrast["kidney"] - 28, label)
        hilum = (centre[0] - side * 15, centre[1] + 9, centre[2])
        canvas.solid(canvas.ellipsoid(hilum, (14 * size, 7 * size, 25 * size), turn), _FAT)
        canvas.solid(canvas.ellipsoid(hilum, (9 * size, 3 * size, 13 * size), turn), 40)
        vein = ((side * 40, y + 12, z, 4), (side * 18, -14, z + 4, 5))
        canvas.solid(canvas.tube(vein), contrast["cava"])
        for name in ("psoas", "loin muscle"):
            canvas.solid(canvas.tube(_mirrored(_moved(canvas, _COURSES[name], 2, 0.1), side)), _MUSCLE, grain=7)
    canvas.solid(canvas.tube(_COURSES["right adrenal"]), 75, RIGHT_ADRENAL)
    canvas.solid(canvas.tube(_COURSES["left adrenal"]), 75, LEFT_ADRENAL)
    box, pancreas = canvas.tube(_moved(canvas, _COURSES["pancreas"], 4, 0.15))
    canvas.solid((box, pancreas + canvas.grain[box]), contrast["pancreas"], PANCREAS, grain=7)


def _draw_vessels(canvas: Canvas, contrast: Mapping[str, float]) -> None:
    """Draw the large vessels, the oesophagus and the crura of the diaphragm."""
    for side in (1, -1):
        canvas.solid(canvas.tube(_mirrored(_COURSES["crus"], side)), _MUSCLE, anywhere=True)
        canvas.solid(canvas.tube(_mirrored(_COURSES["iliac artery"], side)), contrast["aorta"], anywhere=True)
    canvas.solid(canvas.tube(_moved(canvas, _COURSES["oesophagus"], 2, 0.1)), 58, OESOPHAGUS, anywhere=True)
    for name in ("splenic vein", "portal vein"):
        canvas.solid(canvas.tube(_COURSES[name]), contrast["portal"], PORTAL_VEIN)
    canvas.solid(canvas.tube(_COURSES["mesenteric artery"]), contrast["aorta"])
    for name, label, key in (("vena cava", VENA_CAVA, "cava"), ("aorta", AORTA, "aorta")):
        course = _moved(canvas, _COURSES[name], 1.5, 0.15)
        canvas.solid(canvas.tube(course), contrast[key], label, anywhere=True)


def _draw_spine(canvas: Canvas) -> None:
    """Draw vertebrae, discs, canal, the muscles of the back and the iliac crests."""
    rng = canvas.rng
    for side in (1, -1):
        back = canvas.ellipsoid((side * 36, -80, 0), (33, 22, 400))
        for deeper, hu in ((0.0, _FAT), (2.5, _MUSCLE)):
            canvas.solid((back[0], back[1] - deeper), hu, grain=9, anywhere=True)
        box, wing = canvas.ellipsoid((side * 86, -46, -164), (7, 56, 78), (0, 0, -48 * side))
        for deeper, hu in ((0.0, _BONE), (2.5, _MARROW)):
            canvas.paint(box, wing > deeper, hu, grain=20)
    box = canvas.box((-60, -110, -400), (60, -20, 400))
    x, y = np.abs(canvas.x[box]), canvas.y[box]
    level = np.abs((canvas.z[box] - rng.uniform(0, 35)) % 35 - 17.5)  # 0 in the middle of a vertebra
    body = np.hypot(x / 23, (y + 48) / 17)
    canal = np.hypot(x / 1.15, y + 74)
    arch = (canal < 14) & (level < 12) & ((x > 7) | (y < -74))
    spinous = (x < 3.5) & (y < -84) & (y > -101) & (level < 10)
    transverse = (np.abs(y + 70 + 0.12 * x) < 4.5) & (x < 42) & (level < 6)
    canvas.paint(box, (body < 1) & (level > 13), 85)
    canvas.paint(box, (body < 1) & (level <= 13), _BONE, grain=30)
    canvas.paint(box, (body < 0.86) & (level <= 11), _MARROW, grain=45)
    canvas.paint(box, arch | spinous | transverse, _BONE - 90 + 60 * (rng.random() - 0.5), grain=80)
    canvas.paint(box, canal < 10, _FAT)
    canvas.paint(box, canal < 7.5, 30)


def _moved(canvas: Canvas, course: Course, shift: float, growth: float) -> Course:
    """Move and thicken a tube at random."""
    move, factor = canvas.rng.normal(0, shift, 3).clip(-2 * shift, 2 * shift), 1 + growth * canvas.rng.uniform(-1, 1)
    return [(x + move[0], y + move[1], z + move[2], radius * factor) for x, y, z, radius in course]


def _mirrored(course: Course, side: int) -> Course:
    """Put a tube of the patient's right (1) to the left (-1)."""
    return [(side * x, y, z, radius) for x, y, z, radius in course]
