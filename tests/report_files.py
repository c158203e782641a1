"""Synthetic material for the tests of the report."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from paper_records import frame, unit

from misure.paper.material import Material
from misure.paper.selection import latest_run, shown_pairs
from misure.report.claims import COLUMNS, VERDICTS

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


def claims(**columns: Any) -> pd.DataFrame:
    """Return one claim for each verdict."""
    row = dict.fromkeys(COLUMNS, "") | {"value": -0.1, "low": -0.2, "high": 0.1, "p": 0.02, "p_adjusted": 0.08}
    row |= {"n": 5, "n_groups": 4, "n_records": 10, "stand_in": False, "source": "toy", "dataset": "Triangle"}
    rows = [
        row | {"id": f"claim-{i}", "statement": f"Statement {i}.", "verdict": verdict.text} | columns
        for i, verdict in enumerate(VERDICTS)
    ]
    return pd.DataFrame(rows)


def payload(text: str) -> dict[str, Any]:
    """Read the gallery's data back from a page."""
    found = re.search(r'id="gallery-cards">(.*?)</script>', text, re.DOTALL)
    assert found is not None
    return json.loads(found[1])
