"""Sanity checks: how alike maps stay when the network's weights are drawn anew, or another class is explained."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from misure.explainers import EXPLAINERS
from misure.metrics import min_max
from misure.paper.maps import load_maps
from misure.paper.material import Material
from misure.paper.provenance import head_note
from misure.paper.published import DASH, Pair
from misure.paper.query import every_draw
from misure.paper.source import Origin, heading
from misure.paper.statistics import Summary, spearman, summarise_groups
from misure.paper.table import interval, markdown_table, measured
from misure.sweep.interventions import Intervention

MEASURES = ("rank_correlation", "top_iou", "difference", "excess")
"""What is compared; the excess is the overlap of the top regions above that of two independent random maps."""

FAILS, PASSES, OPEN = "fails", "passes", "cannot be told"

ENOUGH_SAMPLES = 8
"""Fewer saved maps give no verdict."""

_PARTS = ("mean", "low", "high", "median", "n")
_TWIN = ["dataset_fingerprint", "weights", "explainer", "sample", "class_id", "precision"]
_ROUNDING = 1e-9
_COLUMNS = ["dataset", "model", "method", "intervention", "randomised", "n_samples", "chance"]
_COLUMNS += [f"{name}_{part}" for name in MEASURES for part in _PARTS]
_COLUMNS += ["verdict", "source", "stand_in", "substitution", "profile"]


def sanity_table(material: Material) -> pd.DataFrame:
    """Compare the maps of interventions with those of the untouched network.

    Returns:
        One row per dataset, model, method and intervention; means over samples of which both maps were saved, their
        intervals over images.

    Raises:
        MisureError: If a map is damaged.
    """
    rows = [row for pair in material.pairs for row in _pair_rows(material, pair)]
    return pd.DataFrame(rows, columns=_COLUMNS)


def _pair_rows(material: Material, pair: Pair) -> Iterator[dict[str, Any]]:
    records = every_draw(material.run, pair)
    twins = _twins(records)
    order = list(EXPLAINERS)
    pairs = {(str(a), str(b)) for a, b in zip(twins["explainer"], twins["intervention_changed"], strict=True)}
    for name, text in sorted(pairs, key=lambda key: (order.index(key[0]), _place(Intervention.of(key[1])))):
        mine = twins["explainer"].eq(name) & twins["intervention_changed"].eq(text)
        found = _compared(twins[mine], material)
        intervention = Intervention.of(text)
        row: dict[str, Any] = {"dataset": pair.dataset_label, "model": pair.model_label}
        row |= {"method": EXPLAINERS[name].title, "intervention": text}
        row |= {"randomised": intervention.randomised or float("nan"), "n_samples": len(found)}
        row["chance"] = float(found["chance"].mean()) if len(found) else float("nan")
        for measure in MEASURES:
            known = found.dropna(subset=[measure])
            summary = summarise_groups(known[measure], known["sample"])
            row |= {f"{measure}_{part}": getattr(summary, part) for part in _PARTS}
        row["verdict"] = _verdict(_summary(row, "excess")) if intervention.randomised in {0.0, 1.0} else ""
        yield row | Origin.of(records).columns() | {"profile": material.profile}


def _place(intervention: Intervention) -> tuple[bool, float]:
    return intervention.other_target, intervention.randomised


def _twins(records: pd.DataFrame) -> pd.DataFrame:
    """Pair each record of an intervention with that of the same explanation without it."""
    done = records[(records["status"] == "done") & records["input_noise"].eq(0)].drop_duplicates("unit", keep="last")
    identity = [*_TWIN, *(name for name in done.columns if name.startswith("param_"))]
    columns = [*identity, "unit", "intervention"]
    changed = done[done["intervention"].ne("")][columns]
    plain = done[done["intervention"].eq("")][columns].drop_duplicates(identity, keep="last")
    return changed.merge(plain, on=identity, suffixes=("_changed", "_plain"))


def _compared(twins: pd.DataFrame, material: Material) -> pd.DataFrame:
    found = []
    for _, row in twins.iterrows():
        plain, changed = (load_maps(material.maps_folder, row[f"unit_{which}"]) for which in ("plain", "changed"))
        if plain is not None and changed is not None:
            first, second = (entry["saliency"].astype(np.float64) for entry in (plain, changed))
            found.append({"sample": row["sample"]} | likeness(first, second, int(plain["region"].sum())))
    return pd.DataFrame(found, columns=["sample", "chance", *MEASURES])


def likeness(first: NDArray[np.float64], second: NDArray[np.float64], size: int) -> dict[str, float]:
    """Say how alike two maps of one image are.

    Args:
        first: H x W.
        second: H x W.
        size: Pixels of the object; the top regions have as many.

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


def _summary(row: Mapping[str, Any] | pd.Series, measure: str) -> Summary:
    mean, median, low, high = (float(row[f"{measure}_{part}"]) for part in ("mean", "median", "low", "high"))
    return Summary(int(row[f"{measure}_n"]), mean, median, low, high)


def in_words(intervention: str) -> str:
    """Say what was changed: ``"25 % of the weights"`` or ``"another class"``."""
    share = Intervention.of(intervention).randomised
    return f"{100 * share:.0f} % of the modules randomised" if share else "another class explained"


def sanity_tables(material: Material) -> Iterator[tuple[str, pd.DataFrame, str]]:
    """Make the table of the sanity checks: its file's name, its numbers and its document."""
    frame = sanity_table(material)
    yield "sanity", frame, sanity_document(frame, head_note(material.run, material.profile, material.pairs))


def sanity_document(frame: pd.DataFrame, head: str) -> str:
    """Lay out :func:`sanity_table`, with a sentence about each method."""
    title = heading("Sanity checks: maps under randomised weights and under another target", frame)
    headers = ["Dataset", "Model", "Method", "Change", "Rank correlation", "IoU of the top regions", "Chance"]
    headers += ["Mean difference", "Samples", "Source", "Profile"]
    lines = [
        [
            *(row["dataset"], row["model"], row["method"], in_words(row["intervention"])),
            *(_cell(row, name) for name in ("rank_correlation", "top_iou")),
            measured(row["chance"]),
            _cell(row, "difference"),
            *(str(row["n_samples"]), Origin.of_row(row).cell, row["profile"]),
        ]
        for _, row in frame.iterrows()
    ]
    table = markdown_table(headers, lines) if lines else "No sanity check has records."
    says = "\n".join(f"- {_sentence(row)}" for _, row in frame[frame["verdict"].ne("")].iterrows())
    return "\n\n".join(part for part in (title, head, _READING, table, says, _DEFINITIONS) if part) + "\n"


def _cell(row: pd.Series, measure: str) -> str:
    summary = _summary(row, measure)
    if summary.n:
        return f"{measured(summary.mean)} {interval(summary)}"
    return f"{DASH} (constant map)" if row["n_samples"] else f"{DASH} (no saved maps)"


def _sentence(row: pd.Series) -> str:
    subject = f"{row['dataset']}, {row['model']}, {row['method']}, {in_words(row['intervention'])}"
    overlap = f"IoU {measured(row['top_iou_mean'])} against {measured(row['chance'])} by chance"
    if row["verdict"] == FAILS:
        said = "the map stays more alike than two random maps, so the method fails this check"
    elif row["verdict"] == PASSES:
        said = "the map is no more alike than two random maps, so the method passes this check"
    elif row["excess_n"] < ENOUGH_SAMPLES:
        return f"{subject}: too few saved maps to say ({row['excess_n']}; it takes {ENOUGH_SAMPLES})."
    else:
        said = "it cannot be told whether the map is more alike than two random maps"
    mark = " Stand-in only." if row["stand_in"] else ""
    return f"{subject}: {said} ({overlap}).{mark}"


_READING = f"""\
Every cell: mean [95 % bootstrap interval of the mean] over samples of which both maps were saved; the bootstrap draws
whole images. {DASH} means no value."""

_DEFINITIONS = """\
After Adebayo et al. (2018), for segmentation. A map should change when the network does. The modules with weights are
drawn anew from the output towards the input (He's normal distribution; normalisation becomes the identity, its running
statistics too); what is explained stays the prediction of the untouched network. Stage 1 of MiSuRe takes the whole
image where the randomised network does not reach tau on it. In the other check another class that is predicted in the
same image is explained: its largest other object, else the background. Each map is compared with its twin from the
untouched network. The top regions have as many pixels as the object; pixels tied at the cut share the places that are
left, so two constant maps agree and a constant map has chance overlap with any other. Chance is the overlap of two
independent random maps. A method fails where the interval of the overlap lies above chance with all weights randomised,
and passes where it lies at or below. Maps of SR and MSR can lie only in their sufficient region, which begins at the
object: this alone raises their overlap."""
