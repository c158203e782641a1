"""Head notes of documents and captions of figures: which samples, data, network and code they were made from."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence

import pandas as pd
from matplotlib.figure import Figure

from misure.paper.published import DASH, PAPER_ITERATIONS, PAPER_MASKS, Pair, grouped
from misure.paper.query import SAMPLE, class_labels, in_class, paper_draw, shown_pairs, undisturbed
from misure.paper.source import Origin, distinct

_PROFILE_NOTES = {"smoke": " (checks that everything runs, at a tiny size: its numbers mean nothing)"}

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
    lines = [f"- Profile: `{profile}`{_PROFILE_NOTES.get(profile, '')}"]
    pairs = shown_pairs(run) if pairs is None else pairs
    for pair in pairs:
        records = samples_of(run, pair)
        lines += [f"- {pair.label}: {'; '.join(_provenance(records, pair)) if len(records) else 'no records'}"]
    for pair, *_ in grouped([pair for pair in pairs if pair.paper_samples], "dataset"):
        lines.append(
            f"- The paper's setting for {pair.dataset_label}: {pair.paper_setting}; MSR with learning "
            f"rate 0.1, lambda 0.01, mask 224 x 224, {PAPER_ITERATIONS} iterations (where the table does not vary "
            f"them); RISE with {PAPER_MASKS} masks."
        )
    return "\n".join(lines)


def caption(run: pd.DataFrame, profile: str, pairs: Sequence[Pair]) -> str:
    """Say in a line or two what a figure of one dataset was made from."""
    records = pd.concat([paper_draw(run, pair) for pair in pairs])
    models = " and ".join(pair.model_label for pair in pairs)
    parts = [f"{pairs[0].dataset_label}, {models}", f"profile {profile}"]
    if len(records):
        origin = Origin.of(records)
        parts += [f"data: {origin.data}"]
        parts += [f"network: {origin.substitution}"] if origin.substitution else []
        parts += [f"weights {distinct(records['weights'])}"]
        parts += [f"trained from {start} weights"] if (start := distinct(records["initial_weights"])) else []
    return " · ".join(parts)


def figure_note(figure: Figure, run: pd.DataFrame, profile: str, pairs: Sequence[Pair]) -> None:
    """Write the :func:`caption` below a figure, in lines that fit its width."""
    columns = int(_CAPTION_COLUMNS_PER_INCH * figure.get_figwidth())
    figure.supxlabel(textwrap.fill(caption(run, profile, pairs), columns), fontsize=7, color="0.35")


def _provenance(records: pd.DataFrame, pair: Pair) -> list[str]:
    clean = records[undisturbed(records)]
    origin, published = Origin.of(records), distinct(records["network_source"])
    chosen = distinct(records["precision_reason"])
    done, skipped = (clean[clean["status"] == status] for status in ("done", "skipped"))
    explained = done.drop_duplicates(SAMPLE)
    left_out = {tuple(key) for key in skipped[SAMPLE].to_numpy()} - {tuple(key) for key in explained[SAMPLE].to_numpy()}
    reasons = skipped["reason"].dropna().unique()[:_REASONS_SHOWN]
    why = f" ({'; '.join(map(str, reasons))})" if left_out and len(reasons) else ""
    numbers = f"{len(explained)} samples explained{_of_classes(explained, pair)}{_of_drawn(records, pair)}"
    return [
        f"{numbers}, {len(left_out)} skipped{why}",
        f"data: {origin.data_cell}",
        *([f"network: **{origin.substitution}**"] if origin.substitution else []),
        f"weights `{distinct(records['weights'])}`" + (f" ({published})" if published else ""),
        *([f"trained from {start} weights"] if (start := distinct(records["initial_weights"])) else []),
        f"device: {distinct(records['device']) or DASH}",
        f"precision: {distinct(records['precision']) or DASH}" + (f" ({chosen})" if chosen else ""),
        *_shortened(explained),
        f"code {distinct(records['code_version']) or DASH}",
        *_network_quality(explained),
    ]


def _shortened(explained: pd.DataFrame) -> list[str]:
    """Name numbers of iterations that are not the paper's, as the smallest profile has."""
    iterations = explained.get("param_n_iterations", pd.Series(dtype=float)).dropna().unique()
    others = [f"{n:.0f}" for n in iterations if n != PAPER_ITERATIONS]
    return [f"**MSR with {', '.join(others)} iterations**"] if others else []


def _of_classes(explained: pd.DataFrame, pair: Pair) -> str:
    counts = {label: len(in_class(explained, label)) for label in class_labels(explained, pair.classes)}
    if len(counts) < 2:
        return ""
    each = [f"{n} {label}" + ("" if n else " (not in the records)") for label, n in counts.items()]
    return f" ({', '.join(each)})"


def _of_drawn(records: pd.DataFrame, pair: Pair) -> str:
    """Say how many samples the data gives, where the paper's number is drawn from annotated images."""
    drawn = records["drawn"].dropna()
    if not pair.sample_word:
        return ""
    found = f"of {drawn.max():.0f} {pair.sample_word} that these images give, " if len(drawn) else ""
    return f" ({found}the paper has {pair.paper_samples})"


def _network_quality(explained: pd.DataFrame) -> list[str]:
    truth = explained["truth_dice"].dropna()
    return [f"network's mean Dice with the ground truth on them {truth.mean():.3f}"] if len(truth) else []
