"""Dice and HD95 per volume beside the published numbers: file, data frame, Markdown."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pandas as pd

from misure.errors import MisureError
from misure.paper.published import DASH, shipped
from misure.paper.source import distinct
from misure.paper.table import markdown_table
from misure.sweep.volume_scores import read_volumes

STAND_IN = "stand-in: phantom CT"

_EVALUATION = ["dataset", "model", "profile", "empty_truth_counts"]


def read_all(folder: Path, run: pd.DataFrame) -> pd.DataFrame:
    """Read the scores of the networks and data that a run's records are of, in the precision of most of them.

    Args:
        folder: Holds files of :func:`write_volumes`; may be missing.
        run: As :func:`misure.paper.query.latest_run` returns it.

    Raises:
        MisureError: If a file is damaged.
    """
    images = ["dataset_fingerprint", "weights"]
    most = run.assign(precision=run["precision"].fillna("32")).groupby(images)["precision"].agg(lambda p: p.mode()[0])
    known = set(most.reset_index()[[*images, "precision"]].itertuples(index=False, name=None))
    frames = [read_volumes(path) for path in sorted(folder.glob("*.json"))]
    kept = [f for f in frames if tuple(f[[*images, "precision"]].iloc[0]) in known]
    return pd.concat(kept, ignore_index=True) if kept else pd.DataFrame()


def volume_table(frame: pd.DataFrame) -> pd.DataFrame:
    """Average over volumes, and put the published networks below.

    Args:
        frame: Evaluations as :func:`read_volumes` returns them, one below the other; may be empty.

    Returns:
        One row per evaluation (dataset, model, profile and ``empty_truth_counts``) and published network:
        ``dice`` in per cent, ``hd95`` in voxels, how many of each are undefined, and the same per organ; NaN
        where nothing is published. A mean per organ is over volumes, a mean of all over the volumes' own means;
        undefined values are left out.

    Raises:
        MisureError: If a volume was scored twice in one evaluation, or a class is not that of Synapse.
    """
    groups = frame.groupby(_EVALUATION, sort=False) if len(frame) else ()
    ours = [dict(zip(_EVALUATION, key, strict=True)) | _averages(scores) for key, scores in groups]
    published = [
        {
            "dataset": "synapse",
            "model": entry["model"],
            "profile": "",
            "empty_truth_counts": True,
            "published": True,
            "volumes": _reference()["volumes"],
            "dice": entry["dice"],
            "hd95": entry["hd95"],
            **{f"dice_{organ}": value for organ, value in zip(_organs(), entry["organs"], strict=True)},
            "source": entry["source"],
            "stand_in": False,
        }
        for entry in _reference()["published"]
    ]
    return pd.DataFrame([*ours, *published], columns=_columns())


def volume_document(table: pd.DataFrame) -> str:
    """Lay out the table of :func:`volume_table` as a Markdown document."""
    organs = _organs()
    headers = ["Network", "Profile", "Volumes", "Dice (%)", "HD95 (voxels)", *organs, "Empty organs", "Source"]
    rows = [
        [
            _network(row),
            row["profile"] or DASH,
            str(row["volumes"]),
            _cell(row["dice"], row["undefined_dice"]),
            _cell(row["hd95"], row["undefined_hd95"]),
            *(_cell(row[f"dice_{organ}"], row[f"undefined_dice_{organ}"]) for organ in organs),
            "original" if row["empty_truth_counts"] else "strict",
            row["source"],
        ]
        for _, row in table.iterrows()
    ]
    parts = ["# Segmentation of Synapse CT volumes: Dice and HD95", markdown_table(headers, rows), _READING]
    if table["published"].all():
        parts.insert(1, "No network of ours has been evaluated on volumes yet.")
    if table["stand_in"].any():
        parts.insert(1, _STAND_IN_NOTE)
    return "\n\n".join(parts) + "\n"


_STAND_IN_NOTE = f"""\
**Rows marked "{STAND_IN}" come from generated volumes.** They show that training and evaluation run; they cannot be
compared with the published numbers, which are on the real 12 volumes."""

_READING = f"""\
Every slice is segmented at the network's input size and the prediction zoomed back; Dice (higher is better) and HD95
(lower is better; 95th percentile of the surface distances in voxels, not millimetres) are those of the 3-D objects. The
columns by organ are Dice in per cent, mean over volumes. The two overall columns are the mean over volumes of each
volume's mean over organs, which is the published mean over organs where nothing is undefined. Undefined values are left
out of every mean and counted in brackets; {DASH} means no value.

Empty organs: TransUNet's original code counts an organ that is predicted in a volume without it as Dice 1 with HD95 0,
and a missed organ, or one neither there nor predicted, as Dice 0 with HD95 0. "Strict" counts the first two as Dice 0
without an HD95, and leaves the last one out; its mean HD95 is over found organs only, so read it beside the Dice.

The published networks were trained on 18 and evaluated on 12 real volumes. MiSuRe's paper never reports the Dice of its
networks, so none of these numbers is theirs."""


def _averages(scores: pd.DataFrame) -> dict[str, Any]:
    """Return one evaluation's means and counts."""
    name = f"{scores['model'].iloc[0]}, profile {scores['profile'].iloc[0]}"
    if scores.duplicated(["case", "class_id"]).any():
        raise MisureError(f"{name}: a volume was scored twice; keep one evaluation of each network")
    organs = dict(enumerate(_organs(), start=1))
    for class_id, organ in set(zip(scores["class_id"], scores["class_name"], strict=True)):
        if str(organ).lower() != organs.get(class_id, "").lower():
            raise MisureError(
                f"{name}: class {class_id}, {organ}, is not Synapse's: its classes are {', '.join(organs.values())}"
            )
    averages: dict[str, Any] = {
        "published": False,
        "volumes": scores["case"].nunique(),
        "source": distinct(scores["source"]),
        "stand_in": bool(scores["stand_in"].any()),
    }
    for metric, factor in (("dice", 100.0), ("hd95", 1.0)):
        averages[metric] = factor * scores.groupby("case")[metric].mean().mean()
        averages[f"undefined_{metric}"] = int(scores[metric].isna().sum())
        for class_id, organ in organs.items():
            values = scores.loc[scores["class_id"] == class_id, metric]
            averages[f"{metric}_{organ}"] = factor * values.mean()
            averages[f"undefined_{metric}_{organ}"] = int(values.isna().sum())
    return averages


def _columns() -> list[str]:
    metrics = [f"{kind}{metric}" for metric in ("dice", "hd95") for kind in ("", "undefined_")]
    by_organ = [f"{name}_{organ}" for name in metrics for organ in _organs()]
    return [*_EVALUATION, "published", "volumes", *metrics, *by_organ, "source", "stand_in"]


def _network(row: pd.Series) -> str:
    if row["published"]:
        return f"{row['model']}, published"
    return f"{row['model']}, ours" + (f" **({STAND_IN})**" if row["stand_in"] else "")


def _cell(value: float, undefined: float) -> str:
    shown = DASH if math.isnan(value) else f"{value:.2f}"
    return f"{shown} ({undefined:.0f} undefined)" if undefined > 0 else shown


def _organs() -> list[str]:
    """Names in the order of the class indices, from 1."""
    return [str(name) for name in _reference()["organs"]]


def _reference() -> dict[str, Any]:
    return shipped("volume_reference.yaml")
