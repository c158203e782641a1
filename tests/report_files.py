"""Synthetic material for the tests of the report."""

import zlib
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from paper_records import COCO_CLASSES, ORGANS, frame, organ, photo, unit
from PIL import Image

from misure.paper.claims import COLUMNS
from misure.paper.material import Material
from misure.paper.query import latest_run, shown_pairs
from misure.report.claims import BADGES

pytest.importorskip("plotly", reason="the report's libraries are not installed (pip install 'misure[report]')")

HOSTILE = "</script><img src=x onerror=alert(1)>"

METHODS = ("msr", "rise", "seg_grad_cam")


def material_of(records: pd.DataFrame, maps: Path) -> Material:
    """Wrap records as what the report is made from."""
    run = latest_run(records, "quick")
    return Material(run, "quick", maps, pd.DataFrame(), shown_pairs(run))


def synthetic(folder: Path, n_samples: int, **columns: Any) -> Material:
    """Return samples of Triangle with maps of three methods each: discs, cut rings, and smooth slopes."""
    maps = folder / "records" / "maps"
    maps.mkdir(parents=True, exist_ok=True)
    down, right = np.mgrid[:32, :48] / 32
    units = []
    for sample in range(n_samples):
        distance = np.hypot(down - 0.5, right - 0.6 - 0.01 * (sample % 20))
        image = np.clip(1 - distance, 0, 1)[None]
        region, sufficient = distance < 0.25, distance < 0.4
        drawn = {
            "msr": np.where(sufficient & (distance > 0.15), 0.4 + 0.5 * right / 1.5, 0),
            "rise": 0.2 + np.exp(-4 * distance) + 0.001 * sample,
            "seg_grad_cam": 3 * np.clip(0.9 - distance, 0, 1) + 0.01 * right,
        }
        for name in METHODS:
            rows = unit(
                name,
                sample,
                dice_explained=0.5 + 0.4 * ((sample * 7 + len(name)) % 11) / 11,
                perturbation_ratio=0.1 + (sample * 3 % 7) + len(name),
                n_dilations=float(sample % 5) if name == "msr" else float("nan"),
                **columns,
            )
            units.append(rows)
            arrays = {"image": image, "region": region, "truth": distance < 0.3, "saliency": drawn[name]}
            if name == "msr":
                arrays["sufficient_region"] = sufficient
            np.savez(maps / f"{rows[0]['unit']}.npz", **arrays)
    return material_of(frame(*units), maps)


GRID = [{"lr": lr, "lam": lam} for lr in (0.001, 0.01, 0.1) for lam in (0.001, 0.01, 0.1) if (lr, lam) != (0.1, 0.01)]
OTHERS = [("msr", cell) for cell in GRID]
OTHERS += [("msr", {"mask_size": size}) for size in (7, 14, 28, 56, 112)]
OTHERS += [("msr", {name: value}) for name, value in (("tau", 0.8), ("returned", "best"), ("context_value", 0.5))]
OTHERS += [("msr", {"weight_decay": value}) for value in (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6)]
OTHERS += [("rise", {"keep_probability": value}) for value in (0.1, 0.5, 0.9)]
"""Settings that the paper's sweeps and ambiguities add to its usual ones: 26."""

USUAL = ("msr", "rise", "seg_grad_cam", "sufficient_region", "prediction", "random_map")

N_SCALE = 26_720
"""Explanations with saved maps in the profile ``paper``: 32 of each of 835 samples."""


def paper_scale(folder: Path) -> Material:
    """Return as many records as the profile ``paper`` makes, with empty files for the maps: they must not be read."""
    maps = folder / "records" / "maps"
    maps.mkdir(parents=True)
    records = pd.concat(
        [
            _many([partial(unit, model="unet_vgg16")], 19),
            _many([partial(organ, label=label, model="unet_resnet34") for label in ORGANS], 400),
            _many([partial(organ, label=label, model="transunet") for label in ORGANS], 400),
            _many([partial(photo, name=name) for name in COCO_CLASSES], 16),
        ],
        ignore_index=True,
    )
    for name in records["unit"].unique():
        (maps / f"{name}.npz").touch()
    return material_of(records, maps)


def _many(classes: Sequence[Callable[..., list[dict[str, Any]]]], n_samples: int) -> pd.DataFrame:
    """Make the records of one sample of each class and repeat them, with other numbers, for samples in turns."""
    parts = []
    for place, make in enumerate(classes):
        made = [make(name, 0, parameters=setting) for name, setting in [*((name, {}) for name in USUAL), *OTHERS]]
        numbers = range(place, n_samples, len(classes))
        samples = pd.DataFrame({"sample": numbers, "draw": range(len(numbers))})
        parts.append(frame(*made).drop(columns=["sample", "draw"]).merge(samples, how="cross"))
    rows = pd.concat(parts, ignore_index=True)
    values = np.random.default_rng(0).random((2, len(rows)))
    return rows.assign(
        unit=rows["unit"] + "-" + rows["sample"].astype(str),
        dice_explained=values[0],
        perturbation_ratio=10 ** (4 * values[1] - 2),
    )


def drawn_maps(name: str, size: int = 224, noise: float = 0.002) -> dict[str, np.ndarray]:
    """Draw what a run saves of a unit of :func:`paper_scale`, other maps for each: slopes with a little noise."""

    def slopes(seed: int) -> np.ndarray:
        values = np.random.default_rng(seed)
        coarse = Image.fromarray(values.random((9, 9), np.float32))
        return np.asarray(coarse.resize((size, size), Image.Resampling.BICUBIC)) + noise * values.random((size, size))

    image = slopes(int(name.rpartition("-")[2]))
    return {
        "image": np.stack([image] * 3),
        "region": image > 0.6,
        "truth": image > 0.5,
        "saliency": slopes(zlib.crc32(name.encode())),
    }


def claims(**columns: Any) -> pd.DataFrame:
    """Return one claim for each verdict."""
    row = dict.fromkeys(COLUMNS, "") | {
        "scale": 1.0,
        "value": -0.1,
        "low": -0.2,
        "high": 0.1,
        "p": 0.02,
        "p_adjusted": 0.08,
    }
    row |= {"n": 5, "n_groups": 4, "n_records": 10, "stand_in": False, "source": "toy", "dataset": "Triangle"}
    rows = [
        row | {"id": f"claim-{i}", "statement": f"Statement {i}.", "verdict": badge.text} | columns
        for i, badge in enumerate(BADGES)
    ]
    return pd.DataFrame(rows)
