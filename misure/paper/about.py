"""What a pack of records says of itself: the machines that made them, their commands and hours, and each cell's n."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from misure.explainers import EXPLAINERS
from misure.io.reading import reading
from misure.paper.query import SETTING
from misure.paper.reference import GET_ANEW, PROFILE
from misure.paper.table import plain
from misure.sweep.journal import Journal
from misure.sweep.provenance import code_version

ABOUT = "about.json"
_MACHINE = ("code", "python", "packages", "operating_system", "hardware", "devices", "precisions", "checkpoints")
"""What is kept of a folder's ``provenance.json``."""

_BUILD = re.compile(r"(?<=\d)-[^\s)]+")
"""What follows the version in a kernel's release."""


def is_pack(folder: Path) -> bool:
    """Say whether a folder holds packed records, and not a run's outputs."""
    return (folder / ABOUT).is_file()


def read_about(folder: Path) -> dict[str, Any]:
    """Read what an earlier pack says of itself.

    Raises:
        MisureError: If the file is damaged.
    """
    with reading(folder / ABOUT, GET_ANEW):
        told = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        return {
            "made_by": [*told["made_by"]],
            "filled_in": {**told["filled_in"]["weights_origin"]},
            "maps_left_out": {**told["maps_left_out"]},
        }


def about(run: pd.DataFrame, outputs: Mapping[str | Path, Mapping[str, str]]) -> dict[str, Any]:
    """Say who made the records, in how many hours, and how many samples each cell has.

    Args:
        run: What is packed, as :func:`misure.paper.query.latest_run` returns it.
        outputs: As for :func:`misure.paper.packing.pack`.
    """
    done = run[run["status"].eq("done")].drop_duplicates("unit")
    hours = done.groupby("device")["seconds"].sum() / 3600
    setups = done.groupby(done["dataset"] + "-" + done["model"])
    return {
        "profile": PROFILE,
        "packed_by": code_version(),
        "made_by": _made_by_all(outputs),
        "hours_of_explaining": {str(device): round(value, 2) for device, value in hours.items()},
        "n": {
            str(setup): dict(sorted(Counter(map(_cell_and_precision, rows.to_dict("records"))).items()))
            for setup, rows in setups
        },
    }


def _made_by_all(outputs: Mapping[str | Path, Mapping[str, str]]) -> list[dict[str, Any]]:
    """Describe the machines of all folders; of one that went on, the last description counts."""
    machines = [machine for folder, told in outputs.items() for machine in _made_by(Path(folder), told)]
    last = {json.dumps([of.get("command"), of.get("hardware")]): of for of in machines}
    return [*last.values()]


def _made_by(outputs: Path, said: Mapping[str, str]) -> list[dict[str, Any]]:
    """Describe the machine of an outputs folder, as its ``provenance.json`` does, and its hours by stage."""
    if is_pack(outputs):
        return list(read_about(outputs)["made_by"])
    hours = Counter[str]()
    for stage in Journal(outputs).stages():
        hours[stage["stage"]] += stage["seconds"] / 3600 if stage.get("profile") == PROFILE else 0
    path = outputs / "provenance.json"
    with reading(path, "misure tables profile=reference makes it anew"):
        told = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        machine = {name: told[name] for name in _MACHINE if name in told}
        machine |= {name: _BUILD.sub("", value) for name, value in machine.items() if name == "operating_system"}
    return [{**said, **machine, "hours": {name: round(value, 3) for name, value in hours.items()}}]


def cell_of(row: Mapping[Any, Any]) -> str:
    """Name a record's method, and what differs from its published setting; a parameter that it lacks does not."""
    usual = EXPLAINERS[row["explainer"]].published().at_scale(float(row["scale"])).parameters
    given = {name: value for name, value in json.loads(row[SETTING]).items() if name not in {"seed", "thresholds"}}
    changed = [f"{name}={plain(value)}" for name, value in given.items() if value != usual.get(name)]
    changed += [f"noise={row['input_noise']:.3g}"] if row["input_noise"] else []
    changed += [row["intervention"]] if row["intervention"] else []
    return " ".join([row["explainer"], *changed])


def _cell_and_precision(row: Mapping[Any, Any]) -> str:
    return " ".join([cell_of(row), *([row["precision"]] if row["precision"] != "32" else [])])
