"""Head notes of documents and captions of figures: which samples, data, network and code they were made from."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from misure.paper.prose import prose
from misure.paper.published import PAPER_ITERATIONS, PAPER_MASKS, Pair, grouped
from misure.paper.query import SAMPLE, class_labels, in_class, paper_draw, shown_pairs, undisturbed
from misure.paper.source import Origin, distinct

_CIRCUMSTANCES = (
    *("weights", "network_source", "initial_weights"),
    *("device", "precision", "precision_reason", "code_version"),
)

_REASONS_SHOWN = 3

_CAPTION_COLUMNS_PER_INCH = 17


def head_note(
    run: pd.DataFrame,
    profile: str,
    pairs: Sequence[Pair] | None = None,
    samples_of: Callable[[pd.DataFrame, Pair], pd.DataFrame] = paper_draw,
) -> str:
    """Say what a table or figure was made from: a Markdown list.

    Args:
        run: As :func:`misure.paper.query.latest_run` returns it.
        profile: Of the run.
        pairs: Datasets and models shown; those of :func:`misure.paper.query.shown_pairs` by default.
        samples_of: Chooses the records of a pair that count; those of Tables 1 to 6 by default.
    """
    pairs = shown_pairs(run) if pairs is None else pairs
    of_paper = [pair for pair in pairs if pair.paper_samples]
    return prose(
        "head.md.j2",
        profile=profile,
        pairs=[(pair, _made_from(samples_of(run, pair), pair)) for pair in pairs],
        settings=[pair for pair, *_ in grouped(of_paper, "dataset")],
        paper_iterations=PAPER_ITERATIONS,
        paper_masks=PAPER_MASKS,
    )


def caption(run: pd.DataFrame, profile: str, pairs: Sequence[Pair]) -> str:
    """Say in a line or two what a figure of one dataset was made from."""
    records = pd.concat([paper_draw(run, pair) for pair in pairs])
    models = " and ".join(pair.model_label for pair in pairs)
    parts = [f"{pairs[0].dataset_label}, {models}", f"profile {profile}"]
    if len(records):
        origin = Origin.of(records)
        parts += [f"data: {origin.data}", *filter(None, [origin.reduction])]
        parts += [f"network: {origin.substitution}"] if origin.substitution else []
        parts += [f"weights {distinct(records['weights'])}"]
        parts += [f"trained from {start} weights"] if (start := distinct(records["initial_weights"])) else []
    return " · ".join(parts)


def figure_note(figure: Figure, run: pd.DataFrame, profile: str, pairs: Sequence[Pair]) -> None:
    """Write the :func:`caption` below a figure, in lines that fit its width."""
    columns = int(_CAPTION_COLUMNS_PER_INCH * figure.get_figwidth())
    figure.supxlabel(textwrap.fill(caption(run, profile, pairs), columns), fontsize=7, color="0.35")


def _made_from(records: pd.DataFrame, pair: Pair) -> dict[str, Any]:
    """Collect what the samples of a dataset and model are, and what explained them; empty without records."""
    if records.empty:
        return {}
    clean = records[undisturbed(records)]
    done, skipped = (clean[clean["status"] == status] for status in ("done", "skipped"))
    explained = done.drop_duplicates(SAMPLE)
    n_skipped = len(set(_samples(skipped)) - set(_samples(explained)))
    msr = done[done["explainer"].eq("msr")]
    iterations = msr.get("param_n_iterations", pd.Series(dtype=float)).dropna().unique()
    return {
        "n": len(explained),
        "classes": {label: len(in_class(explained, label)) for label in class_labels(explained, pair.classes)},
        "drawn": int(records["drawn"].max()) if records["drawn"].notna().any() else 0,
        "n_skipped": n_skipped,
        "reasons": skipped["reason"].dropna().unique()[:_REASONS_SHOWN].tolist() if n_skipped else [],
        "origin": Origin.of(records),
        "iterations": [f"{n:.0f}" for n in iterations if n != PAPER_ITERATIONS],
        "truth_dice": explained["truth_dice"].mean(),
        **{name: distinct(records[name]) for name in _CIRCUMSTANCES},
    }


def _samples(records: pd.DataFrame) -> list[tuple[Any, ...]]:
    return list(records[SAMPLE].itertuples(index=False, name=None))
