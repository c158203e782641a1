"""Figures 8 and 9: ROC curves of the reliability classifiers, and worked examples."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from misure.metrics import min_max
from misure.paper.maps import load_maps, saved_units
from misure.paper.provenance import figure_note
from misure.paper.published import Pair
from misure.paper.query import in_class, of_pair
from misure.paper.reliability import ALL_ORGANS, samples_by_organ
from misure.paper.table import measured
from misure.paper.tables.rows import NOT_RUN
from misure.plotting import show_empty, show_image, show_map, show_mask, show_region
from misure.reliability import FEATURE_SETS, RELIABLE_FROM, Samples, area_under_curve, cross_validate, roc_curve

_CURVES = {
    ("explanation", "honest"): ("MSR, honest", "#0072b2", "-", 2.2),
    ("explanation", "paper"): ("MSR, paper's protocol", "#0072b2", "--", 1.4),
    ("size", "honest"): ("size, honest", "#d55e00", "-.", 1.2),
    ("confidence", "honest"): ("confidence, honest", "#009e73", ":", 1.6),
}
"""Label, colour (Okabe and Ito's palette), line style and width by feature set and protocol."""

_COLUMNS = 3
_PANEL = 2.9
_PRINTED = (("Aorta", False, 0.71), ("Liver", False, 0.72), ("Stomach", True, 0.92))
"""Figure 9's rows from top to bottom: the organ, whether its prediction is reliable, and the probability of that."""

_NO_MAPS = "no saved maps\nin this profile"
_PICTURES = ("Image", "Ground truth", "Prediction", "Sufficient region", "MSR, scaled")


@dataclass(frozen=True)
class Example:
    """A row of Figure 9.

    Attributes:
        kind: What it is an example of.
        row: Of :func:`judged_samples`; None where there is no such sample.
        missing: Why not.
        printed: The paper's probability of what the prediction is; NaN for a row that the paper does not have.
    """

    kind: str
    row: pd.Series | None
    missing: str = ""
    printed: float = math.nan


def roc_figure(run: pd.DataFrame, profile: str, pair: Pair) -> Figure:
    """Draw Figure 8: ROC curves by organ, under both protocols and for the baselines.

    Args:
        run: As for :func:`misure.paper.reliability.samples_by_organ`.
        profile: Of the run, for the caption.
        pair: Dataset and model.

    Returns:
        A panel per organ and one for all organs; a panel without a curve says why.
    """
    organs = samples_by_organ(run, pair)
    ran = len(of_pair(run, pair)) > 0
    n_rows = math.ceil(len(organs) / _COLUMNS)
    figure = Figure(figsize=(_PANEL * _COLUMNS + 0.6, _PANEL * n_rows + 0.9), layout="constrained")
    panels = list(figure.subplots(n_rows, _COLUMNS, squeeze=False).flat)
    for axes in panels[len(organs) :]:
        axes.set_axis_off()
    for axes, (organ, samples) in zip(panels, organs.items(), strict=False):
        _draw_curves(axes, organ, samples, ran=ran)
    figure.supylabel("True positive rate (reliable predictions accepted)", fontsize=9)
    for axes in panels[len(organs) - _COLUMNS : len(organs)]:
        axes.set_xlabel("False positive rate\n(unreliable predictions accepted)", fontsize=8)
    figure_note(figure, run, profile, [pair])
    return figure


def examples_figure(run: pd.DataFrame, maps_folder: Path, profile: str, pair: Pair) -> Figure:
    """Draw Figure 9: an unreliable aorta, an unreliable liver and a reliable stomach, then one judged wrongly.

    The paper's samples are not published. Of each kind the sample with saved maps is shown that the classifier is the
    surest about in the right way, and of equals the first. Where no classifier is defined, the first sample of the
    kind is shown with its features.

    Args:
        run: As for :func:`misure.paper.reliability.samples_by_organ`.
        maps_folder: Where the maps are.
        profile: Of the run, for the caption.
        pair: Dataset and model.

    Returns:
        A row per example.
    """
    judged = judged_samples(run, pair)
    examples = choose_examples(judged[judged["unit"].isin(saved_units(maps_folder))])
    size = (1.75 * len(_PICTURES) + 3.4, 1.75 * len(examples) + 1.0)
    figure = Figure(figsize=size, layout=ConstrainedLayoutEngine(h_pad=0.1))
    widths = [1.0] * len(_PICTURES) + [1.75]
    grid = figure.subplots(len(examples), len(widths), squeeze=False, width_ratios=widths)
    for axes, title in zip(grid[0], _PICTURES, strict=False):
        axes.set_title(title, fontsize=10)
    for line, example in zip(grid, examples, strict=True):
        line[0].set_ylabel(example.kind, fontsize=9)
        _draw_example(line, example, maps_folder)
    figure_note(figure, run, profile, [pair])
    return figure


def judged_samples(run: pd.DataFrame, pair: Pair) -> pd.DataFrame:
    """Judge every sample by a classifier that was not fitted to its volume (honest protocol).

    Returns:
        MSR's records with ``reliable`` (bool), ``probability``, ``classifier`` (the organ's own where it is
        defined, else the one of all organs) and, where the probability is NaN, the ``reason``.
    """
    organs = samples_by_organ(run, pair)
    everything = organs.pop(ALL_ORGANS)
    out = cross_validate(everything, "honest")
    judged = everything.rows.assign(
        reliable=everything.reliable, probability=out.probabilities, classifier=ALL_ORGANS, reason=out.reason
    )
    for organ, samples in organs.items():
        own = cross_validate(samples, "honest")
        if not own.reason:
            places = judged["unit"].isin(samples.rows["unit"])
            judged.loc[places, "probability"] = own.probabilities
            judged.loc[places, ["classifier", "reason"]] = [organ, ""]
    return judged


def choose_examples(judged: pd.DataFrame) -> list[Example]:
    """Choose what Figure 9 shows, by rule: the paper's three rows, and one judged wrongly if any could be judged.

    Args:
        judged: As :func:`judged_samples` returns it.
    """
    examples = []
    for organ, reliable, printed in _PRINTED:
        word = _word(reliable)
        candidates = in_class(judged, organ)
        row = _surest(candidates[candidates["reliable"] == reliable])
        missing = f"no {word} prediction\nof {organ} with saved maps" if len(judged) else _NO_MAPS
        examples.append(Example(f"{organ}, {word}", row, missing, printed))
    defined = judged.dropna(subset=["probability"])
    if defined.empty:
        return examples
    wrong = _surest(defined[(defined["probability"] >= 0.5) != defined["reliable"]], wrongly=True)
    return [*examples, Example("judged wrongly\n(not in the paper)", wrong, "no saved sample\nwas judged wrongly")]


def _word(reliable: bool) -> str:
    return "reliable" if reliable else "unreliable"


def _surest(judged: pd.DataFrame, *, wrongly: bool = False) -> pd.Series | None:
    """Return the sample with the highest probability of its label, or of the other; the first where none is defined."""
    if judged.empty:
        return None
    probability, own = judged["probability"], judged["reliable"].astype(bool) != wrongly
    return judged.iloc[int(probability.where(own, 1 - probability).fillna(-1).to_numpy().argmax())]


def _draw_curves(axes: Axes, organ: str, samples: Samples, *, ran: bool) -> None:
    n, reliable = len(samples.rows), int(samples.reliable.sum())
    axes.set_title(f"{organ}: {reliable} of {n} reliable" if n else organ, fontsize=9)
    reasons = []
    for (features, protocol), (label, colour, style, width) in _CURVES.items():
        out = cross_validate(samples, protocol, FEATURE_SETS[features])
        area = area_under_curve(out)
        if math.isnan(area):
            reasons.append(out.reason or "no fold tests both labels")
            continue
        false, true = roc_curve(out)
        axes.plot(false, true, style, color=colour, linewidth=width, label=f"{label} ({area:.2f})")
    if len(reasons) == len(_CURVES):
        reason = reasons[0] if ran else NOT_RUN
        show_empty(axes, "no curve:\n" + reason.replace("; ", "\n"), aspect=1)
        return
    axes.plot([0, 1], [0, 1], color="0.6", linewidth=0.8, zorder=0)
    axes.text(0.12, 0.08, "chance", color="0.5", fontsize=7, rotation=45, rotation_mode="anchor")
    axes.set_aspect("equal")
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(-0.02, 1.02)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="lower right", fontsize=6.5, frameon=True, framealpha=0.85, edgecolor="none")


def _draw_example(line: Any, example: Example, maps_folder: Path) -> None:
    row = example.row
    maps = None if row is None else load_maps(maps_folder, str(row["unit"]))
    line[-1].set_axis_off()
    if row is None or maps is None:
        for axes in line[:-1]:
            show_empty(axes, example.missing if row is None else _NO_MAPS, aspect=1)
        return
    size = maps["region"].shape
    image = torch.from_numpy(maps["image"]).float() if "image" in maps else None
    if image is not None:
        show_image(line[0], image)
    if "truth" in maps:
        show_mask(line[1], torch.from_numpy(maps["truth"]).bool())
    show_mask(line[2], torch.from_numpy(maps["region"]))
    if "sufficient_region" in maps:
        show_region(line[3], image, torch.from_numpy(maps["sufficient_region"]))
    for axes, name in ((line[0], "image"), (line[1], "truth"), (line[3], "sufficient_region")):
        if name not in maps:
            show_empty(axes, "not saved", aspect=size[-2] / size[-1])
    show_map(line[4], min_max(torch.from_numpy(maps["saliency"]).float()[None])[0], high=1)
    text = describe(row, example.printed)
    line[-1].text(0.02, 0.5, text, fontsize=8, va="center", linespacing=1.35, transform=line[-1].transAxes)


def describe(row: pd.Series, printed: float = math.nan) -> str:
    """Say in words what is known of an example, with the probabilities of both labels.

    Args:
        row: Of :func:`judged_samples`.
        printed: The probability that the paper prints for an example of this label; NaN for none.
    """
    label = _word(bool(row["reliable"]))
    limit = "at least" if row["reliable"] else "below"
    lines = [
        f"{row['class_name']} ({row['group']})",
        f"Dice with the ground truth {row['truth_dice']:.3f}:",
        f"{label} ({limit} {RELIABLE_FROM:g})",
        f"dilations {row['n_dilations']:.0f}, Dice explained {row['dice_explained']:.3f},",
        f"perturbation ratio {measured(row['perturbation_ratio'])}",
    ]
    paper = [] if math.isnan(printed) else [f"(the paper's example: {label} {printed:.2f})"]
    probability = row["probability"]
    if math.isnan(probability):
        return "\n".join([*lines, "no probability:", *str(row["reason"]).split("; "), *paper])
    judgement = "right" if (probability >= 0.5) == row["reliable"] else "wrong"
    lines.append(f"probability: unreliable {1 - probability:.2f}, reliable {probability:.2f}: {judgement}")
    return "\n".join(
        [*lines, *paper, f"(classifier of {str(row['classifier']).casefold()}, not fitted to {row['group']})"]
    )
