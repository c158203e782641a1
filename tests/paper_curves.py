"""Synthetic records with curves for the tests of methods at equal ratio, insertion and deletion."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from paper_records import organ, run_of, save_map, unit

from misure.paper.extensions.methods import ALWAYS
from misure.paper.material import Material
from misure.paper.published import PAIRS


def curves(
    scores: list[float], room: float = 50.0, swept: tuple[list[float], list[float]] = ([0, 1], [0, 1])
) -> dict[str, Any]:
    """Curves of one unit: Dice explained at equal steps from 0.05 to the whole image, and one sweep for both kinds."""
    allowed = np.geomspace(0.05, room, len(scores))
    arrays_ = {"curve_allowed": allowed, "curve_dice": np.array(scores), "curve_ratio": allowed}
    fraction, dice = (np.array(side, float) for side in swept)
    arrays_ |= {"insertion_fraction": fraction, "deletion_fraction": fraction}
    return arrays_ | {"insertion_dice": dice, "deletion_dice": 1 - dice}


def save(folder: Path, name: str, more: dict[str, Any]) -> None:
    save_map(folder, name, np.ones((4, 4)))
    with np.load(folder / f"{name}.npz") as known:
        np.savez(folder / f"{name}.npz", allow_pickle=False, **known, **more)


def material_of(folder: Path, *units: list[dict[str, Any]], pairs: tuple[Any, ...] = PAIRS[:1]) -> Material:
    return Material(run_of(*units), "quick", folder, pd.DataFrame(), pairs)


def compared(folder: Path, n_samples: int = 3, make: Any = unit, **columns: Any) -> list[list[dict[str, Any]]]:
    """Records of every method with curves that differ by sample."""
    units = []
    for sample in range(n_samples):
        for place, name in enumerate(ALWAYS):
            ratio = {"perturbation_ratio": 0.4 + 0.1 * sample + place, "dice_explained": 0.9 - 0.1 * place}
            rows = make(name, sample, **(ratio | columns))
            height = 1 - 0.1 * place - 0.01 * sample
            save(folder, rows[0]["unit"], curves([0, 0.3 * height, height, 1]))
            units.append(rows)
    return units


def aorta(name: str, sample: int, **columns: Any) -> list[dict[str, Any]]:
    return organ(name, sample, "Aorta", **columns)
