"""Table 7: post-hoc reliability by organ, the paper's numbers beside ours under two protocols."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from misure.io.atomic import safe_name
from misure.paper.material import Material
from misure.paper.prose import prose
from misure.paper.provenance import head_note
from misure.paper.published import Pair, reference
from misure.paper.query import at_threshold, class_labels, in_class, of_pair, select
from misure.paper.reference import beside
from misure.paper.source import Origin, distinct, marked
from misure.paper.table import Column, Table, measured, printed
from misure.paper.tables.rows import NOT_RUN
from misure.reliability import (
    FEATURE_SETS,
    N_FOLDS,
    PROTOCOLS,
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

_SEEN = {"explanation": "MSR's three features", "size": "prediction size alone", "confidence": "confidence alone"}


def samples_by_organ(run: pd.DataFrame, pair: Pair) -> dict[str, Samples]:
    """Collect MSR's samples at its default parameters.

    Args:
        run: As :func:`misure.paper.query.latest_run` returns it.
        pair: Dataset and model. All its samples count, also those drawn beyond the paper's Tables 1 to 6.

    Returns:
        The paper's organs in its order (without samples where there are none), then classes that the paper
        does not have, then :data:`ALL_ORGANS`.
    """
    rows = at_threshold(select(of_pair(run, pair), "msr"), None)
    organs = {name: usable_samples(in_class(rows, name)) for name in class_labels(rows, pair.classes)}
    return organs | {ALL_ORGANS: usable_samples(rows)}


def reliability_rows(run: pd.DataFrame, pairs: Sequence[Pair]) -> pd.DataFrame:
    """Score the reliability of Table 7.

    Args:
        run: As for :func:`samples_by_organ`.
        pairs: Datasets and models to show.

    Returns:
        One row per model, organ, feature set and protocol, with the scores of :class:`misure.reliability.Scores`
        and their 95 % intervals over volumes (``_low``, ``_high``). ``note`` says why numbers are NaN, or what they
        should be read with.

    Raises:
        MisureError: If scikit-learn is not installed.
    """
    return pd.DataFrame([row for pair in pairs for row in _pair_rows(run, pair)])


def save_models(run: pd.DataFrame, pair: Pair, folder: Path) -> list[Path]:
    """Fit classifiers to all samples of a dataset and model, by organ, and write ``<dataset>-<model>/<organ>.json``.

    A file of an earlier run whose classifier cannot be fitted now is removed.

    Returns:
        The files.

    Raises:
        MisureError: If the place cannot be written.
    """
    source = f"{pair.label}, {Origin.of(of_pair(run, pair)).label}"
    written = []
    for organ, samples in samples_by_organ(run, pair).items():
        name = safe_name(organ.casefold().replace(" ", "_"))
        path = folder / safe_name(f"{pair.dataset}-{pair.model}") / f"{name}.json"
        model = fit(samples.rows, pd.Series(samples.reliable), class_name=organ, source=source)
        if isinstance(model, ReliabilityModel):
            written.append(model.save(path))
        else:
            path.unlink(missing_ok=True)
    return written


def table7(material: Material) -> Table:
    """Put post-hoc reliability by organ beside the paper's."""
    frame = reliability_rows(material.run, material.judged)
    columns = (
        *(Column("dataset", "Dataset"), Column("model", "Model"), Column("organ", "Organ")),
        Column("features", "The classifier sees", lambda features: _SEEN[features]),
        *(Column("protocol", "Protocol"), Column("paper_accuracy", "Accuracy, paper", printed)),
        _score_column("accuracy", "Accuracy, ours", "paper_accuracy"),
        Column("prevalence", "Share reliable", measured),
        Column("majority_accuracy", "Majority accuracy", measured),
        Column("paper_auc", "AUC, paper", printed),
        _score_column("auroc", "AUC, ours", "paper_auc"),
        *(Column("paper_n", "n, paper", printed), Column("n", "n"), Column("remarks", "Remarks")),
    )
    table = Table(
        "table7",
        marked("Table 7: post-hoc reliability", frame),
        columns,
        frame,
        head_note(material.run, material.profile, material.judged, of_pair),
        prose("table7.md.j2", n_folds=N_FOLDS, all_organs=ALL_ORGANS),
        n_parts=2,
    )
    return beside(
        table,
        material.reference,
        lambda its: reliability_rows(its.run, its.judged),
        ("dataset", "model", "organ", "features", "protocol"),
        n="n",
    )


def _score_column(name: str, title: str, paper: str) -> Column:
    return Column(name, title, measured, better="higher", low=f"{name}_low", high=f"{name}_high", paper=paper)


def _pair_rows(run: pd.DataFrame, pair: Pair) -> Iterator[dict[str, Any]]:
    records = of_pair(run, pair)
    paper = {str(name): numbers for name, *numbers in reference()["table7"]}
    for organ, samples in samples_by_organ(run, pair).items():
        origin = Origin.of(samples.rows if len(samples.rows) else records)
        shared = {
            "dataset": pair.dataset_label,
            "model": pair.model_label,
            "organ": organ,
            "n": len(samples.rows),
            "n_volumes": samples.n_volumes,
            "n_left_out": samples.n_left_out,
            "prevalence": samples.prevalence,
            "majority_accuracy": samples.majority_accuracy,
            **origin.columns(),
            "profile": distinct(records["profile"]),
            "weights": distinct(records["weights"]),
        }
        for features, columns in FEATURE_SETS.items():
            printed_numbers = paper.get(organ) if features == "explanation" else None
            n, accuracy, auc = printed_numbers or (None, None, None)
            for protocol in PROTOCOLS:
                setting = {"features": features, "protocol": protocol}
                from_paper = {"paper_n": n, "paper_accuracy": accuracy, "paper_auc": auc}
                marks = origin.marks if len(records) else None
                yield shared | setting | from_paper | _scores(samples, protocol, columns, marks)


def _scores(samples: Samples, protocol: str, columns: Sequence[str], marks: Sequence[str] | None) -> dict[str, Any]:
    """Score one organ; marks are what stands in for the paper's, None where nothing ran."""
    out = cross_validate(samples, protocol, columns)
    numbers: dict[str, Any] = {}
    for name, estimate in asdict(score(out)).items():
        if isinstance(estimate, dict):
            numbers |= {name: estimate["value"], f"{name}_low": estimate["low"], f"{name}_high": estimate["high"]}
        else:
            numbers[name] = estimate
    notes = [NOT_RUN if marks is None else out.reason] if out.reason else list(out.notes)
    if samples.n_left_out:
        notes.append(f"{samples.n_left_out} samples left out: a feature, the ground truth or the volume is missing")
    return numbers | {"note": "; ".join(notes), "remarks": "; ".join([*(marks or ()), *notes])}
