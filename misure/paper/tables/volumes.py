"""Dice and HD95 per volume beside the published numbers."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from misure.errors import MisureError
from misure.paper.material import Material
from misure.paper.prose import prose
from misure.paper.published import DASH, shipped
from misure.paper.source import distinct
from misure.paper.table import Column, Table
from misure.sweep.volume_scores import read_volumes

_EVALUATION = ["dataset", "model", "profile", "empty_truth_counts"]


def read_all(folder: Path, run: pd.DataFrame) -> pd.DataFrame:
    """Read the scores of the networks and data that a run's records are of, in the precision of most of them.

    Args:
        folder: Holds files of :func:`write_volumes`; may be missing.
        run: As :func:`misure.paper.query.latest_run` returns it.

    A damaged file is named in a warning and left out; a run makes it anew.
    """
    images = ["dataset_fingerprint", "weights"]
    most = run.dropna(subset="precision").groupby(images)["precision"].agg(lambda p: p.mode()[0])
    current = set(most.reset_index()[[*images, "precision"]].itertuples(index=False, name=None))
    frames = []
    for path in sorted(folder.glob("*.json")):
        try:
            frames.append(read_volumes(path))
        except MisureError as error:
            warnings.warn(f"damaged volume scores are left out: {error}", stacklevel=2)
    kept = [f for f in frames if tuple(f[[*images, "precision"]].iloc[0]) in current]
    return pd.concat(kept, ignore_index=True) if kept else pd.DataFrame()


def volume_rows(frame: pd.DataFrame) -> pd.DataFrame:
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
    rows = [row | _words(row) for row in (*ours, *published)]
    return pd.DataFrame(rows, columns=[*_columns(), "network", "empty_organs", "remarks"])


def volumes(material: Material) -> Table:
    """Put our networks' scores on whole volumes above the published ones."""
    frame = volume_rows(material.volumes)
    columns = (
        *(Column("network", "Network"), Column("volumes", "Volumes")),
        Column("dice", "Dice", _two_decimals, unit="%", better="higher"),
        Column("hd95", "HD95", _two_decimals, unit="voxels", better="lower"),
        *(Column(f"dice_{organ}", organ, _two_decimals) for organ in _organs()),
        *(Column("empty_organs", "Empty organs"), Column("remarks", "Remarks")),
    )
    notes = prose(
        "volumes.md.j2",
        nothing_of_ours=bool(frame["published"].all()),
        stand_in=bool(frame["stand_in"].any()),
        sources="; ".join(f"{entry['model']}: {entry['source']}" for entry in _reference()["published"]),
    )
    return Table("volumes", "Segmentation of Synapse CT volumes: Dice and HD95", columns, frame, notes=notes)


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


def _words(row: Mapping[str, Any]) -> dict[str, str]:
    """Name a row's network and way of counting, and what its numbers should be read with."""
    undefined = {metric: row.get(f"undefined_{metric.lower()}", 0) for metric in ("Dice", "HD95")}
    remarks = [row["profile"], "stand-in" if row["stand_in"] else ""]
    remarks += [f"{n} {metric} undefined" for metric, n in undefined.items() if n]
    return {
        "network": f"{row['model']}, {'published' if row['published'] else 'ours'}",
        "empty_organs": "original" if row["empty_truth_counts"] else "strict",
        "remarks": ", ".join(filter(None, remarks)),
    }


def _two_decimals(value: float) -> str:
    return DASH if math.isnan(value) else f"{value:.2f}"


def _organs() -> list[str]:
    """Names in the order of the class indices, from 1."""
    return [str(name) for name in _reference()["organs"]]


def _reference() -> dict[str, Any]:
    return shipped("volume_reference.yaml")
