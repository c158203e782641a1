"""Seconds to the same result: what a version needs for what the first version of its method reaches."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pandas as pd
import torch
from torch import Tensor

from misure.paper.published import DASH

WANTED = 0.99
"""Correlation of a map of RISE with its own limit of infinitely many masks."""

SAME_MAP = 0.999
"""Correlation from which on two maps count as the same."""

DICE_WITHIN, RATIO_WITHIN = 0.005, 0.05
"""How much lower the Dice explained, and by which share larger the perturbation ratio may be."""


def pearson(first: Tensor, second: Tensor) -> float:
    """Return the correlation of two maps over their pixels; NaN where one of them is constant."""
    pair = torch.stack([first.double(), second.double()]).flatten(1)
    constant = bool((pair.amax(1) == pair.amin(1)).any())
    return math.nan if constant else float(torch.corrcoef(pair)[0, 1])


def noise(correlation: float, n_masks: int) -> float:
    """Return c of ``r = 1 / (1 + c / n)``, the correlation of two maps of n masks each (Spearman and Brown).

    Args:
        correlation: Of the two maps.
        n_masks: Of each.

    Returns:
        The number of masks at which noise and map vary as much; NaN where two maps do not correlate above 0.

    Reference:
        Spearman, Correlation calculated from faulty data, 1910, https://doi.org/10.1111/j.2044-8295.1910.tb00206.x
    """
    return n_masks * (1 / correlation - 1) if correlation > 0 else math.nan


def masks_to(wanted: float, c: float) -> float:
    """Return n for a correlation with the limit: ``wanted = sqrt(1 / (1 + c / n))``."""
    return c * wanted**2 / (1 - wanted**2)


@dataclass(frozen=True)
class Reached:
    """What a version reached.

    Attributes:
        seconds: An image, to the same result; NaN where it is not reached.
        result: In words.
        masks: Of RISE: as many as the result takes, of every image.
    """

    seconds: float
    result: str
    masks: pd.Series | None = None


def reached(method: str, rows: pd.DataFrame, first: pd.DataFrame) -> Reached:
    """Judge a version's rows beside those of its method's first version."""
    if method == "rise":
        return _converged(rows)
    if method == "msr":
        dice = rows["dice_explained"].mean() - first["dice_explained"].mean()
        ratio = rows["perturbation_ratio"].mean() / first["perturbation_ratio"].mean() - 1
        same = dice >= -DICE_WITHIN and ratio <= RATIO_WITHIN
        result = f"Dice {dice:+.4f}, ratio {ratio:+.1%}"
    else:
        correlation = rows["correlation"].min(skipna=False)
        same, result = correlation >= SAME_MAP, f"correlation {correlation:.5f}"
    return Reached(rows["seconds"].median() if same else math.nan, result if same else f"not the same: {result}")


def _converged(rows: pd.DataFrame) -> Reached:
    by_image = rows.groupby("image")[["correlation", "masks"]].first()
    masks = pd.Series([masks_to(WANTED, noise(r, int(n))) for r, n in by_image.itertuples(index=False)])
    if rows["ours"].all():  # a regression's noise falls faster than with the masks: fewer are not judged
        masks = masks.clip(lower=float(by_image["masks"].iloc[0]))
    needed = masks.mean(skipna=False)
    ran = f"two runs of {int(by_image['masks'].iloc[0])} masks: {by_image['correlation'].mean():.3f}"
    if math.isnan(needed):
        return Reached(math.nan, f"{ran}, no number", masks)
    spread = f"{needed:.0f} masks ({masks.min():.0f} to {masks.max():.0f})"
    return Reached((rows["seconds"] / rows["masks"]).median() * needed, f"{spread}; {ran}", masks)


def summarise(frame: pd.DataFrame) -> pd.DataFrame:
    """Reduce :func:`misure.bench.compare.run_bench`'s rows to one per method, contestant and precision."""
    lines = []
    for method, rows in frame.groupby("method", sort=False):
        versions = list(rows.groupby(["contestant", "precision"], sort=False))
        first = versions[0][1]
        judged = [(part, reached(str(method), part, first)) for _, part in versions]
        for part, own in judged:
            others = (other for other in judged if part["ours"].all() and not other[0]["ours"].any())
            share = part["flops"] / part["seconds"] / part["peak_flops"]
            lines.append(
                {
                    "method": method,
                    "by": part["contestant"].iloc[0],
                    "precision": part["precision"].iloc[0],
                    "s an image, median (middle half)": _spread(part["seconds"]),
                    "result": own.result,
                    "s to the same result": own.seconds,
                    "times faster than": "; ".join(_faster(part, own, *other) for other in others),
                    "share of the peak": f"{share.median():.0%}",
                    "peak MB": _megabytes(part["peak_bytes"]),
                }
            )
    return pd.DataFrame(lines)


def _faster(rows: pd.DataFrame, own: Reached, others: pd.DataFrame, other: Reached) -> str:
    """Say how many times faster a version is than another, and whether that is more than noise."""
    name = str(others["contestant"].iloc[0])
    if math.isnan(own.seconds) or math.isnan(other.seconds):
        return f"{name} {DASH}"
    if own.masks is not None and other.masks is not None:
        times = other.seconds / own.seconds
        by_image = times * (other.masks / other.masks.mean()) / (own.masks / own.masks.mean())
        return f"{name} {times:.3g} ({by_image.min():.3g} to {by_image.max():.3g} by image)"
    theirs, ours = (frame.groupby(["turn", "run"])["seconds"].mean() for frame in (others, rows))
    factors: pd.Series = theirs / ours  # images of a turn share one time of ours
    low, middle, high = factors.quantile([0.25, 0.5, 0.75])
    if len(factors) == 1:
        return f"{name} {middle:.3g} (one timing)"
    within = ", within noise" if low <= 1 <= high else ""
    return f"{name} {middle:.3g} ({low:.3g} to {high:.3g}{within})"


def _spread(values: pd.Series) -> str:
    low, middle, high = values.quantile([0.25, 0.5, 0.75])
    return f"{middle:.3g} ({low:.3g} to {high:.3g})"


def _megabytes(values: pd.Series) -> float:
    """The largest, where any was measured."""
    return round(float(values.max()) / 2**20) if values.notna().any() else math.nan
