"""The comparison of readings as a document, with a verdict that says no more than the intervals do."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pandas as pd

from misure.paper.extensions.readings import FAR_BELOW, LAMBDA, METRICS, RATES, SUFFICIENT_REGION
from misure.paper.published import DASH, Pair
from misure.paper.source import Origin, heading
from misure.paper.statistics import Summary
from misure.paper.table import interval, markdown_table, mean_interval_median, measured, printed

ENOUGH_IMAGES = 10
"""Fewer images give no verdict: a bootstrap of so few is no interval."""

_TITLES = {"dice_explained": "Dice explained", "perturbation_ratio": "perturbation ratio"}
_SETTLED = 0.95


def readings_document(frame: pd.DataFrame, head: str, pair: Pair) -> str:
    """Lay out :func:`misure.paper.extensions.readings.readings_table` with its verdict."""
    title = heading(
        f"Table {pair.lr_lambda_table} at lambda {LAMBDA:g} under several readings of where MSR's second stage starts",
        frame,
    )
    headers = ["Reading", *(_header(metric, rate) for rate in RATES for metric in METRICS)]
    headers += [
        "Dice explained rises by: paper / ours",
        "Object kept, learning rate 0.1",
        "Samples",
        "Images",
        "Source",
    ]
    table = markdown_table(headers, [_line(row) for _, row in frame.iterrows()])
    return "\n\n".join([title, head, _READING, table, *_verdict(frame), _DEFINITIONS]) + "\n"


def alternatives(frame: pd.DataFrame) -> tuple[str, Mapping[tuple[str, float, float], str]]:
    """Choose what stands in Table 5 beside the literal reading: the other reading that comes nearest to the paper.

    Returns:
        Its title (empty if there is none) and its cells by metric, lambda and learning rate.
    """
    others = frame[~frame["default"].astype(bool) & frame["factor"].notna()]
    if others.empty:
        return "", {}
    row = _nearest(others)
    cells = {
        (metric, LAMBDA, rate): f"{mean_interval_median(_summary(row, f'{metric}_{rate:g}'))}, n = {row['n_samples']}"
        for metric in METRICS
        for rate in RATES
    }
    return str(row["reading"]), cells


def _nearest(readings: pd.DataFrame) -> pd.Series:
    return readings.iloc[int(readings["factor"].to_numpy().argmin())]


def _header(metric: str, rate: float) -> str:
    return f"{_TITLES[metric][0].upper()}{_TITLES[metric][1:]}, learning rate {rate:g}: paper / ours"


def _line(row: pd.Series) -> list[str]:
    origin = [str(row["n_samples"]), str(row["n_images"]), Origin.of_row(row).cell]
    if row["reading"] == SUFFICIENT_REGION:
        cells = [f"{DASH} / {mean_interval_median(_summary(row, metric), row['note'])}" for metric in METRICS]
        return [row["reading"], *cells, *cells, DASH, DASH, DASH, *origin]
    name = f"{row['reading']} (literal, the default)" if row["default"] else row["reading"]
    cells = [_paper_and_ours(row, f"{metric}_{rate:g}") for rate in RATES for metric in METRICS]
    kept = _summary(row, "object_kept")
    share = f"{measured(kept.mean)} {interval(kept)} ({kept.n} saved maps)" if kept.n else f"{DASH} (no saved maps)"
    change = _summary(row, "dice_change")
    slow, fast = (row[f"paper_dice_explained_{rate:g}"] for rate in RATES)
    rise = f"{fast - slow:.3g} / " + (f"{measured(change.mean)} {interval(change)}" if change.n else DASH)
    return [name, *cells, rise, _share(_summary(row, "far_below")), share, *origin]


def _share(summary: Summary) -> str:
    return f"{measured(summary.mean)} {interval(summary)} of the samples" if summary.n else DASH


def _paper_and_ours(row: pd.Series, name: str) -> str:
    return f"{printed(row[f'paper_{name}'])} / {mean_interval_median(_summary(row, name), row['note'])}"


def _summary(row: pd.Series, name: str) -> Summary:
    n = row[f"{name}_n"]
    parts = (float(row[f"{name}_{part}"]) for part in ("mean", "median", "low", "high"))
    return Summary(0 if math.isnan(n) else int(n), *parts)


def _verdict(frame: pd.DataFrame) -> list[str]:
    complete = frame[frame["factor"].notna()]
    if complete.empty:
        return ["**No verdict**: no reading has records at both learning rates."]
    n_samples, n_images = int(complete["n_samples"].iloc[0]), int(complete["n_images"].iloc[0])
    if n_images < ENOUGH_IMAGES:
        return [f"**No verdict**: too few images ({n_images}, with {n_samples} samples); it takes {ENOUGH_IMAGES}."]
    points = "\n".join(f"- {_judged(row)}" for _, row in complete.iterrows())
    return [f"## Verdict ({n_samples} samples of {n_images} images)", points, _conclusion(complete)]


def _judged(row: pd.Series) -> str:
    inside = [name for name in _numbers() if _is_inside(row, name)]
    named = f" ({', '.join(map(_described, inside))})" if inside else ""
    kept = _summary(row, "object_kept")
    share = f"{measured(kept.mean)} {interval(kept)} of the object's pixels are kept ({kept.n} saved maps)"
    parts = [
        f"the paper's value lies inside our interval for {len(inside)} of {len(_numbers())} numbers{named}",
        _change_in_words(_summary(row, "dice_change")),
        _ratio_in_words(row),
        *([share] if kept.n else []),
    ]
    return f"**{row['reading']}**{' (literal)' if row['default'] else ''}: {'; '.join(parts)}."


def _numbers() -> list[str]:
    return [f"{metric}_{rate:g}" for rate in RATES for metric in METRICS]


def _is_inside(row: pd.Series, name: str) -> bool:
    return bool(row[f"{name}_low"] <= row[f"paper_{name}"] <= row[f"{name}_high"])


def _described(name: str) -> str:
    metric, rate = name.rsplit("_", 1)
    return f"{_TITLES[metric]} at learning rate {rate}"


def _change_in_words(change: Summary) -> str:
    moved = f"{measured(change.mean)} {interval(change)}"
    if change.low > 0:
        return f"Dice explained rises with the learning rate, by {moved}"
    if change.high < 0:
        return f"Dice explained falls with the learning rate, by {moved}"
    return f"Dice explained does not clearly change with the learning rate ({moved})"


def _ratio_in_words(row: pd.Series) -> str:
    ratio = _summary(row, f"perturbation_ratio_{RATES[1]:g}")
    number = f"({measured(ratio.mean)} {interval(ratio)})"
    if ratio.high < 1:
        height = "far below 1" if ratio.high < FAR_BELOW else "below 1"
    else:
        height = "above 1" if ratio.low > 1 else "not clearly below 1"
    most = f"below {FAR_BELOW:g} for {_share(_summary(row, 'far_below'))}"
    return f"the perturbation ratio at learning rate {RATES[1]:g} is {height} {number} on average and {most}"


def _conclusion(complete: pd.DataFrame) -> str:
    literal = complete[complete["default"].astype(bool)]
    parts = [_about_literal(literal.iloc[0]) if len(literal) else "The literal reading has no records to judge by."]
    if len(complete) > 1:
        parts.append(_about_nearest(_nearest(complete)))
        parts += _about_one_fifth(literal, complete)
    return " ".join([*parts, _limits(complete.iloc[0])])


def _outside(row: pd.Series) -> int:
    return sum(not _is_inside(row, name) for name in _numbers())


def _about_literal(row: pd.Series) -> str:
    outside = _outside(row)
    if not outside:
        return "The intervals do not exclude the literal reading: all of the paper's four numbers lie inside them."
    return (
        f"The literal reading does not reproduce the paper's numbers here: {outside} of 4 lie outside our intervals; "
        f"its means differ from them by a factor of {row['factor']:.2f} on average."
    )


def _about_nearest(row: pd.Series) -> str:
    name = "The literal reading itself" if row["default"] else f'The reading "{row["reading"]}"'
    share = float(row["nearest_share"])
    certainty = "" if share >= _SETTLED else ", so that the order of the readings is not settled"
    outside = _outside(row)
    but = (
        f", and {outside} of 4 numbers lie outside its intervals too, so it does not reproduce them either"
        if outside
        else ""
    )
    return (
        f"{name} comes nearest of those tried, with a factor of {row['factor']:.2f}; "
        f"it is the nearest in {share:.0%} of the resamples of images{certainty}{but}."
    )


def _about_one_fifth(literal: pd.DataFrame, complete: pd.DataFrame) -> list[str]:
    """Say what a small ratio would rest on, if only starts limited by the first channel give one."""
    small = complete[complete["far_below_low"] > 0.5]  # for most samples, whichever images are drawn
    limited = small["initial_support"] == "positive_first_channel"
    if literal.empty or small.empty or not limited.all() or literal["far_below_high"].iloc[0] >= 0.5:
        return []
    reason = (
        f"Most samples have a ratio below {FAR_BELOW:g} only where the start drops pixels whose normalised first "
        "channel is not positive, which depends on the normalisation's mean and not on what the network needs. If the "
        "paper's code did that, its fifth of the object says more about the code than about segmentation; whether it "
        "did cannot be decided from these numbers."
    )
    return [reason]


def _limits(row: pd.Series) -> str:
    origin = Origin.of_row(row)
    network = f"our network is not the paper's ({origin.substitution})" if origin.substitution else ""
    network = network or ("our network was trained on generated images" if origin.stand_in else "")
    images = f"our images ({origin.data}) are not known to be the paper's 181 pairs"
    differ = " and ".join(part for part in (network, images) if part)
    known = f"All of this is for one network and one set of images: {differ}."
    return f"{known} The intervals cover the choice of images alone."


_READING = (
    "Every cell: paper / our mean [95 % bootstrap interval of the mean], median. All statistics are over the samples "
    "that every reading shown has. Several samples may come from one photograph and are not independent: the bootstrap "
    f"draws whole images. {DASH} means no value, with the reason where a result of ours is missing."
)

_DEFINITIONS = f"""\
A reading says which value the mask has before the first step of stage 2. "Only where the first channel is positive"
leaves out pixels of the sufficient region whose first channel, after normalisation, is zero or less, as the authors'
later public code does; on ImageNet's normalisation these are the pixels with less red than the average photograph. The
row SR is the sufficient region itself, which does not depend on the learning rate: at learning rate 0.001 nothing can
be pruned, so that a literal start keeps its ratio. "Dice explained rises by" is the mean over samples of Dice explained
at learning rate 0.1 minus that at 0.001; "object kept" is the share of the predicted object's pixels where the mask is
not zero. The factor by which the four means differ from the paper's is the geometric mean of the ratios of ours to the
paper's, or the paper's to ours where that is larger. A mean ratio is called far below 1 where its whole interval is
below {FAR_BELOW:g}. Small predictions have large ratios: a few of them can decide a mean, but neither a median nor the
share of samples below {FAR_BELOW:g}."""
