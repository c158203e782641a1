"""Table 7: post-hoc reliability by organ, the paper's numbers beside ours under two protocols."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from misure.paper.published import DASH, Pair, reference
from misure.paper.query import at_threshold, class_labels, in_class, of_pair, select
from misure.paper.source import Origin, distinct, heading
from misure.paper.table import markdown_table, measured, printed
from misure.paper.tables.rows import NOT_RUN
from misure.reliability import (
    FEATURE_SETS,
    N_FOLDS,
    PROTOCOLS,
    NotFitted,
    ReliabilityModel,
    Samples,
    cross_validate,
    fit,
    score,
    usable_samples,
)

ALL_ORGANS = "All organs"
"""One classifier for all organs, without telling it the organ: what is scored is the explanation, not how often an
organ is segmented well."""

SCORES = ("accuracy", "balanced_accuracy", "auroc", "auprc", "brier")
"""Columns of :func:`table7`, each with ``_low`` and ``_high``: the 95 % bootstrap interval over volumes."""

_SEEN = {"explanation": "MSR's three features", "size": "prediction size alone", "confidence": "confidence alone"}
_PROTOCOL_TITLES = {"paper": "paper's protocol (assumed)", "honest": "honest protocol"}


def samples_by_organ(run: pd.DataFrame, pair: Pair) -> dict[str, Samples]:
    """Collect MSR's samples at its default parameters.

    Args:
        run: As :func:`misure.paper.query.latest_run` returns it.
        pair: Dataset and model. All its samples count, also those drawn beyond the paper's Tables 1 to 6.

    Returns:
        The paper's organs in its order (without samples where there are none), then classes that the paper
        does not have, then :data:`ALL_ORGANS`.

    """
    rows = at_threshold(select(of_pair(run, pair.dataset, pair.model), "msr"), None)
    organs = {name: usable_samples(in_class(rows, name)) for name in class_labels(rows, pair.classes)}
    return organs | {ALL_ORGANS: usable_samples(rows)}


def table7(run: pd.DataFrame, pairs: Sequence[Pair]) -> pd.DataFrame:
    """Build Table 7.

    Args:
        run: As for :func:`samples_by_organ`.
        pairs: Datasets and models to show.

    Returns:
        One row per model, organ, feature set and protocol. ``note`` says why numbers are NaN, or what they
        should be read with.

    Raises:
        MisureError: If scikit-learn is not installed.
    """
    return pd.DataFrame([row for pair in pairs for row in _pair_rows(run, pair)])


def fit_models(run: pd.DataFrame, pair: Pair) -> dict[str, ReliabilityModel | NotFitted]:
    """Fit the classifiers of a dataset and model to all their samples, by organ as in :func:`samples_by_organ`."""
    described = f"{pair.label}, {Origin.of(of_pair(run, pair.dataset, pair.model)).label}"
    return {
        organ: fit(samples.rows, pd.Series(samples.reliable), class_name=organ, source=described)
        for organ, samples in samples_by_organ(run, pair).items()
    }


def save_models(run: pd.DataFrame, pair: Pair, folder: Path) -> list[Path]:
    """Write ``<dataset>-<model>/<organ>.json`` for every classifier that can be fitted.

    A file of an earlier run whose classifier cannot be fitted now is removed.

    Returns:
        The files.

    Raises:
        MisureError: If the place cannot be written.
    """
    written = []
    for organ, model in fit_models(run, pair).items():
        path = folder / f"{pair.dataset}-{pair.model}" / f"{organ.casefold().replace(' ', '_')}.json"
        if isinstance(model, ReliabilityModel):
            written.append(model.save(path))
        else:
            path.unlink(missing_ok=True)
    return written


def table7_document(frame: pd.DataFrame, head: str) -> str:
    """Lay out Table 7: per model one table beside the paper's columns and one with the further scores.

    Args:
        frame: As :func:`table7` returns it.
        head: What it was made from, as :func:`misure.paper.provenance.head_note` writes it.
    """
    parts = [heading("Table 7: post-hoc reliability", frame), head, _READING]
    for (dataset, model), rows in frame.groupby(["dataset", "model"], sort=False):
        groups = [group for _, group in rows.groupby(["organ", "features"], sort=False)]
        parts += [f"## {dataset}, {model}", _printed_table(groups), f"### {dataset}, {model}: further scores"]
        parts += [_further_table(groups)]
    return "\n\n".join([*parts, _DEFINITIONS]) + "\n"


def _pair_rows(run: pd.DataFrame, pair: Pair) -> Iterator[dict[str, Any]]:
    records = of_pair(run, pair.dataset, pair.model)
    paper = {str(name): numbers for name, *numbers in reference()["table7"]}
    for organ, samples in samples_by_organ(run, pair).items():
        known = {
            "dataset": pair.dataset_label,
            "model": pair.model_label,
            "organ": organ,
            "n": len(samples.rows),
            "n_volumes": samples.n_volumes,
            "n_left_out": samples.n_left_out,
            "prevalence": samples.prevalence,
            "majority_accuracy": samples.majority_accuracy,
            **Origin.of(samples.rows if len(samples.rows) else records).columns(),
            "profile": distinct(records["profile"]),
            "weights": distinct(records["weights"]),
        }
        for features, columns in FEATURE_SETS.items():
            printed_numbers = paper.get(organ) if features == "explanation" else None
            n, accuracy, auc = printed_numbers or (None, None, None)
            for protocol in PROTOCOLS:
                setting = {"features": features, "protocol": protocol}
                from_paper = {"paper_n": n, "paper_accuracy": accuracy, "paper_auc": auc}
                yield known | setting | from_paper | _scores(samples, protocol, columns, ran=bool(len(records)))


def _scores(samples: Samples, protocol: str, columns: Sequence[str], *, ran: bool) -> dict[str, Any]:
    out = cross_validate(samples, protocol, columns)
    numbers: dict[str, Any] = {}
    for name, found in asdict(score(out)).items():
        if isinstance(found, dict):
            numbers |= {name: found["value"], f"{name}_low": found["low"], f"{name}_high": found["high"]}
        else:
            numbers[name] = found
    notes = [out.reason if ran else NOT_RUN] if out.reason else list(out.notes)
    if samples.n_left_out:
        notes.append(f"{samples.n_left_out} samples left out: a feature, the ground truth or the volume is missing")
    return numbers | {"note": "; ".join(notes)}


def _printed_table(groups: Sequence[pd.DataFrame]) -> str:
    headers = ["Organ", "The classifier sees", "Samples, paper", "Samples", "Volumes", "Reliable", "Majority accuracy"]
    for title in ("Accuracy", "AUC"):
        headers += [f"{title}, paper", *(f"{title}, {_PROTOCOL_TITLES[protocol]}" for protocol in PROTOCOLS)]
    lines = []
    for group in groups:
        row = group.iloc[0]
        cells = [row["organ"], _SEEN[row["features"]], printed(row["paper_n"]), str(row["n"]), str(row["n_volumes"])]
        cells += [measured(row["prevalence"]), measured(row["majority_accuracy"])]
        cells += [printed(row["paper_accuracy"]), *_cells(group, "accuracy")]
        cells += [printed(row["paper_auc"]), *_cells(group, "auroc")]
        lines.append([*cells, Origin.of_row(row).cell, _notes(group)])
    return markdown_table([*headers, "Source", "Notes"], lines)


def _further_table(groups: Sequence[pd.DataFrame]) -> str:
    titles = {"balanced_accuracy": "Balanced accuracy", "auprc": "AUPRC (chance)", "brier": "Brier score"}
    headers = ["Organ", "The classifier sees"]
    headers += [f"{title}, {_PROTOCOL_TITLES[protocol]}" for title in titles.values() for protocol in PROTOCOLS]
    lines = []
    for group in groups:
        row = group.iloc[0]
        cells = [row["organ"], _SEEN[row["features"]], *(cell for name in titles for cell in _cells(group, name))]
        lines.append([*cells, Origin.of_row(row).cell])
    return markdown_table([*headers, "Source"], lines)


def _cells(group: pd.DataFrame, name: str) -> list[str]:
    """Write a score of one organ and feature set, a cell per protocol."""
    cells = []
    for protocol in PROTOCOLS:
        row = group[group["protocol"] == protocol].iloc[0]
        cell = measured(row[name])
        if cell != DASH:
            low, high = measured(row[f"{name}_low"]), measured(row[f"{name}_high"])
            cell += f" [{DASH}]" if low == DASH else f" [{low}, {high}]"
            cell += f" ({measured(row['auprc_chance'])})" if name == "auprc" else ""
        cells.append(cell)
    return cells


def _notes(group: pd.DataFrame) -> str:
    by_protocol = dict(zip(group["protocol"], group["note"], strict=True))
    if len(set(by_protocol.values())) == 1:
        return str(group["note"].iloc[0]) or DASH
    return "; ".join(f"{_PROTOCOL_TITLES[protocol]}: {note}" for protocol, note in by_protocol.items() if note)


_READING = (
    "A prediction is reliable where its slice Dice with the ground truth is at least 0.9. Every score of ours: value "
    f"[95 % bootstrap interval over volumes]. {DASH} means no value; the notes say why."
)

_DEFINITIONS = f"""\
The classifier is a logistic regression (scikit-learn's defaults: L2, C = 1) on standardised features, fitted per organ;
all scores are of predictions for samples that it was not fitted to, scaling included. The paper's features are the
number of dilations, Dice explained and log(1 + perturbation ratio); the two baselines see only the size of the
prediction, as log(1 + pixels), or the mean softmax probability of the class over the prediction.

- **Paper's protocol (assumed).** The paper states neither its split nor whether its number of samples is that of the
  test set. Assumed: {N_FOLDS} stratified folds of slices, so that neighbouring slices of one volume are fitted to and
  tested on.
- **Honest protocol.** {N_FOLDS} folds of whole volumes (fewer with fewer volumes), stratified as far as volumes allow.
- **Majority accuracy** is that of always naming the more frequent label: an accuracy near it says nothing. The paper
  gives no prevalences.
- **AUC** compares a reliable with an unreliable sample of the same fold, in both protocols. Pooling folds would compare
  different classifiers, which puts features without any information far below 0.5 when volumes differ. **AUPRC** is
  the folds' mean in the same way, with its value for a constant probability in brackets.
- **Brier score**: lower is better; always predicting the prevalence p scores p (1 - p).
- **Intervals** resample volumes and do not fit again; they need four volumes, and with few volumes they are too narrow.
- **{ALL_ORGANS}** (ours alone) is one classifier that is not told the organ, so that it cannot score by knowing which
  organs are usually segmented well."""
