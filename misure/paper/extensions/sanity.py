"""Sanity checks: how alike maps stay when the network's weights are drawn anew, or another class is explained."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from misure.explainers import EXPLAINERS
from misure.metrics import min_max
from misure.paper.extensions.paired import KEY, MARKS, columns, summary_of
from misure.paper.maps import load_twins, twins
from misure.paper.material import Material, made_once
from misure.paper.prose import prose
from misure.paper.provenance import head_note
from misure.paper.published import Pair
from misure.paper.query import SETTING, of_pair
from misure.paper.source import Origin, marked
from misure.paper.statistics import Summary, spearman
from misure.paper.table import Column, Table, estimate, measured
from misure.paper.tables.paper import DATASET, METHOD, MODEL, N
from misure.plotting import show_empty, style_of
from misure.sweep.interventions import Intervention

MEASURES = ("rank_correlation", "top_iou", "difference", "excess")
"""What is compared; the excess is the overlap of the top regions above that of two independent random maps."""

FAILS, PASSES, OPEN = "fails", "passes", "cannot be told"

ENOUGH_SAMPLES = 8
"""Fewer saved maps give no verdict."""

_ROUNDING = 1e-9
_COLUMNS = ["dataset", "model", "method", "intervention", "randomised", "n_samples", "chance"]
_COLUMNS += list(columns({name: pd.Series(dtype=float) for name in MEASURES}))
_COLUMNS += ["verdict", "source", "stand_in", "substitution", "scale", "profile"]

_DRAWN = ("seg_grad_cam", "rise", "sufficient_region", "msr")
_PANELS = {"top_iou": "IoU of the top regions", "rank_correlation": "Rank correlation"}
_OTHER_TARGET_AT = 1.25
_TICKS = {0: "0", 0.25: "¼", 0.5: "½", 0.75: "¾", 1: "1", _OTHER_TARGET_AT: "other\nclass"}
_WIDTH = 2.7
_SPREAD = 0.012
"""Keeps the intervals of methods apart."""


def sanity_tables(material: Material) -> Iterator[Table]:
    """Make the table of the sanity checks."""
    frame = sanity_table(material)
    shown = (
        *(DATASET, MODEL, METHOD),
        Column("intervention", "Change", in_words),
        estimate("rank_correlation", "Rank correlation"),
        estimate("top_iou", "IoU of the top regions"),
        Column("chance", "Chance", measured),
        estimate("difference", "Mean difference"),
        N,
        Column("verdict", "Verdict"),
        *MARKS,
    )
    rows = frame.to_dict("records")
    yield Table(
        "sanity",
        marked("Sanity checks: maps under randomised weights and under another target", frame),
        shown,
        frame,
        head_note(material.run, material.profile, material.shown),
        prose("sanity.md.j2", rows=rows, change=in_words, enough=ENOUGH_SAMPLES, measured=measured),
        n_parts=2,
    )


def in_words(intervention: str) -> str:
    """Say what was changed: ``"25 % of the modules randomised"`` or ``"another class explained"``."""
    share = Intervention.of(intervention).randomised
    return f"{100 * share:.0f} % of the modules randomised" if share else "another class explained"


@made_once
def sanity_table(material: Material) -> pd.DataFrame:
    """Compare the maps of interventions with those of the untouched network.

    Returns:
        One row per dataset, model, method and intervention; means over samples of which both maps were saved, their
        intervals over images.
    """
    rows = [row for pair in material.shown for row in _pair_rows(material, pair)]
    return pd.DataFrame(rows, columns=_COLUMNS)


def _pair_rows(material: Material, pair: Pair) -> Iterator[dict[str, Any]]:
    records = of_pair(material.run, pair)
    done = records[(records["status"] == "done") & records["input_noise"].eq(0)].drop_duplicates("unit", keep="last")
    changed = done["intervention"].ne("")
    pairs = twins(done[changed], done[~changed], SETTING)
    kinds = {(str(name), str(text)) for name, text in pairs[["explainer", "intervention_changed"]].to_numpy()}
    for name, text in sorted(kinds, key=lambda kind: (list(EXPLAINERS).index(kind[0]), _place(kind[1]))):
        of_kind = pairs["explainer"].eq(name) & pairs["intervention_changed"].eq(text)
        numbers = _numbers(pairs[of_kind], material)
        share = Intervention.of(text).randomised
        row: dict[str, Any] = {"dataset": pair.dataset_label, "model": pair.model_label}
        row |= {"method": EXPLAINERS[name].title, "intervention": text, "randomised": share or float("nan")}
        row |= {"n_samples": len(numbers), "chance": numbers.pop("chance").mean(), **columns(numbers)}
        row["verdict"] = _verdict(summary_of(row, "excess")) if share in {0.0, 1.0} else ""
        yield row | Origin.of(records).columns() | {"profile": material.profile}


def _place(text: str) -> tuple[bool, float]:
    intervention = Intervention.of(text)
    return intervention.other_target, intervention.randomised


def _numbers(pairs: pd.DataFrame, material: Material) -> pd.DataFrame:
    rows = []
    for pair, changed, plain in load_twins(pairs, material.maps_folder):
        image, region = plain.get("image"), plain["region"]
        seen = np.ones_like(region) if image is None else (image != 0).any(0)
        first, second = (maps["saliency"][seen].astype(np.float64) for maps in (plain, changed))
        rows.append({name: pair[name] for name in KEY} | likeness(first, second, int(region[seen].sum())))
    return pd.DataFrame(rows, columns=[*KEY, "chance", *MEASURES]).set_index(KEY).astype(float)


def likeness(first: NDArray[np.float64], second: NDArray[np.float64], size: int) -> dict[str, float]:
    """Say how alike two maps of one image are.

    Args:
        first: Of any shape: the pixels compared.
        second: Likewise.
        size: Pixels of the object among them; the top regions have as many.

    Returns:
        ``rank_correlation`` (-1..1, NaN if a map is constant), ``top_iou`` (0..1), ``chance`` (what two independent
        random maps give), their difference ``excess``, and ``difference``: the mean absolute difference of the maps
        scaled to [0, 1].
    """
    tops = [top_region(saliency, size) for saliency in (first, second)]
    overlap = float(np.minimum(*tops).sum() / np.maximum(*tops).sum())
    share = size / first.size
    chance = share / (2 - share)
    scaled = min_max(torch.from_numpy(np.stack([first, second])))
    return {
        "rank_correlation": spearman(first.ravel(), second.ravel()),
        "top_iou": overlap,
        "chance": chance,
        "excess": overlap - chance,
        "difference": float((scaled[0] - scaled[1]).abs().mean()),
    }


def top_region(saliency: NDArray[np.float64], size: int) -> NDArray[np.float64]:
    """Return how much each pixel belongs to the ``size`` highest: 1, 0, or at the cut the share of places left.

    Pixels with the same value as the last place share what is left, so a constant map has the same share everywhere.
    """
    cut = np.partition(saliency.ravel(), -size)[-size]
    above, tied = saliency > cut, saliency == cut
    members: NDArray[np.float64] = above + tied * ((size - above.sum()) / tied.sum())
    return members


def _verdict(excess: Summary) -> str:
    if excess.n < ENOUGH_SAMPLES or np.isnan(excess.low):
        return OPEN
    if excess.low > _ROUNDING:
        return FAILS
    return PASSES if excess.high <= _ROUNDING else OPEN


def sanity_figures(material: Material) -> Iterator[tuple[str, Figure]]:
    """Draw likeness against the share of randomised modules, a column of panels for each dataset and model.

    A column without records is empty and says so.
    """
    frame, pairs = sanity_table(material), material.shown
    figure = Figure(figsize=(_WIDTH * len(pairs) + 0.8, 6.2), layout="constrained")
    grid = figure.subplots(len(_PANELS), len(pairs), squeeze=False)
    for column, pair in zip(grid.T, pairs, strict=True):
        rows = frame[(frame["dataset"] == pair.dataset_label) & (frame["model"] == pair.model_label)]
        for axes, measure in zip(column, _PANELS, strict=True):
            _draw(axes, rows, measure)
        column[0].set_title(_title(rows, pair), fontsize=9)
    for axes, label in zip(grid[:, 0], _PANELS.values(), strict=True):
        axes.set_ylabel(label, fontsize=9)
    handles: dict[str, Any] = {}
    for axes in grid.flat:
        drawn, labels = axes.get_legend_handles_labels()
        handles |= dict(zip(labels, drawn, strict=True))
    if handles:
        figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    for axes in grid[-1]:
        axes.set_xlabel("Share of modules randomised,\nfrom the output on", fontsize=8)
    figure.suptitle(f"Do maps change when the network or the target does? (profile {material.profile})", fontsize=10)
    yield "sanity", figure


def _title(rows: pd.DataFrame, pair: Pair) -> str:
    if rows.empty:
        return pair.label
    marks = Origin.of_row(rows.iloc[0]).marks
    return "\n".join([pair.label, *(f"({mark})" for mark in marks), f"n = {rows['n_samples'].max()}"])


def _draw(axes: Axes, rows: pd.DataFrame, measure: str) -> None:
    if not rows[f"{measure}_n"].sum():
        show_empty(axes, "not run in this profile")
        return
    ends = [f"{measure}_{part}" for part in ("mean", "low", "high")]
    for rank, name in enumerate(_DRAWN):
        title, style = EXPLAINERS[name].title, style_of(name)
        of_method = rows[rows["method"].eq(title) & rows[ends[0]].notna()].sort_values("randomised")
        cascade = of_method["randomised"].notna()
        for part, start, line in ((of_method[cascade], [(0.0, 1.0, 1.0, 1.0)], "-"), (of_method[~cascade], [], "none")):
            points = start + list(part.fillna({"randomised": _OTHER_TARGET_AT})[["randomised", *ends]].to_numpy())
            if len(part):
                x, mean, low, high = np.array(points, dtype=float).T
                reach = np.nan_to_num([mean - low, high - mean])
                look: dict[str, Any] = {"color": style.colour, "marker": style.marker, "ls": line, "label": title}
                axes.errorbar(x + _SPREAD * rank, mean, yerr=reach, ms=4, lw=1.3, capsize=2, **look)
    chance = rows["chance"].mean() if measure == "top_iou" else 0.0
    axes.axhline(chance, color="0.4", ls=":", lw=1, label="two independent random maps")
    axes.set_xticks(list(_TICKS), list(_TICKS.values()), fontsize=8)
    axes.set_xlim(-0.06, 1.4)
    axes.set_ylim((-0.02, 1.05) if measure == "top_iou" else (-1.05, 1.05))
    axes.tick_params(labelsize=8)
