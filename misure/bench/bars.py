"""What the benchmark has to reach, and whether it did."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd

from misure.bench.rounds import LITERAL
from misure.explainers import EXPLAINERS

BAR_IMAGES = 8
"""Images over which the bars' means are asked for."""

DISTURBED = 0.1
"""Share of the processor that other programs may take before a time says little."""

MET, MISSED, NOT_HERE = "met", "missed", "cannot be measured here"

Measure = Callable[[pd.DataFrame], float]
"""Takes the rows of one method, contestant and precision, image by image."""


@dataclass(frozen=True)
class Bar:
    """Something the benchmark has to reach.

    Attributes:
        what: Said in the table, after the method's title.
        method: Explainer it is about.
        limit: The number to reach.
        at_least: Whether the limit is a lower bound.
        measure: What is compared with the limit.
        precision: Of ours; None means that it holds for every precision that was run.
        hardware: ``"cpu"``, ``"h100"`` or ``"any"``.
        full_size: Whether it only holds for the paper's numbers of masks and iterations.
        models: Our names of the networks it is about; none means every network.
        everyone: Whether it is held against every contestant, not the literal version alone.
    """

    what: str
    method: str
    limit: float
    at_least: bool
    measure: Measure
    precision: str | None = None
    hardware: str = "any"
    full_size: bool = False
    models: tuple[str, ...] = ()
    everyone: bool = False


def _times_faster(rows: pd.DataFrame) -> float:
    return float(rows["times_faster"].median())


def _seconds(rows: pd.DataFrame) -> float:
    return float(rows["misure_seconds"].median())


def _dice_difference(rows: pd.DataFrame) -> float:
    return abs(float(rows["misure_dice_explained"].mean() - rows["dice_explained"].mean()))


def _ratio_difference(rows: pd.DataFrame) -> float:
    expected = float(rows["perturbation_ratio"].mean())
    found = float(rows["misure_perturbation_ratio"].mean())
    return 100 * abs(found - expected) / expected if expected else (0.0 if found == 0 else math.inf)


def _correlation(rows: pd.DataFrame) -> float:
    return float(rows["correlation"].min(skipna=False))


BARS = (
    Bar("times faster", "msr", 3.0, True, _times_faster, hardware="cpu", everyone=True),
    Bar("times faster", "rise", 3.0, True, _times_faster, hardware="cpu", everyone=True),
    Bar("times faster", "seg_grad_cam", 1.0, True, _times_faster, everyone=True),
    Bar("times faster", "integrated_gradients", 1.0, True, _times_faster, everyone=True),
    Bar("mean Dice explained differs by", "msr", 0.01, False, _dice_difference),
    Bar("mean perturbation ratio differs by (%)", "msr", 5.0, False, _ratio_difference),
    Bar("lowest correlation of the maps", "rise", 0.999, True, _correlation),
    Bar("seconds per image", "msr", 0.05, False, _seconds, None, "h100", True, ("unet_vgg16",)),
    Bar("seconds per image", "rise", 0.4, False, _seconds, None, "h100", True, ("unet_vgg16",)),
)


def judge(frame: pd.DataFrame, hardware: str) -> pd.DataFrame:
    """Hold the rows against the bars.

    Args:
        frame: From :func:`misure.bench.compare.run_bench`, with a column ``model``, our name of the network.
        hardware: From :func:`misure.bench.report.hardware_name`.

    Returns:
        One row per bar, contestant and precision: bar, against, precision, asked, measured, verdict.
    """
    rows = []
    for bar in BARS:
        if bar.models and frame["model"].iloc[0] not in bar.models:
            continue
        of_method = frame[frame["method"] == bar.method]
        ran = list(dict.fromkeys(of_method["precision"])) or ["32"]
        against = list(dict.fromkeys(of_method["contestant"])) if bar.everyone else [LITERAL]
        for contestant in against:
            for precision in [bar.precision] if bar.precision else ran:
                chosen = of_method[(of_method["contestant"] == contestant) & (of_method["precision"] == precision)]
                measured, verdict = _verdict(bar, chosen, frame, hardware)
                limit = f"{'at least' if bar.at_least else 'at most'} {bar.limit:g}"
                what = f"{EXPLAINERS[bar.method].title}, {bar.what}"
                row = {"bar": what, "against": contestant, "precision": precision, "asked": limit}
                rows.append(row | {"measured": measured, "verdict": verdict})
    return pd.DataFrame(rows)


def _verdict(bar: Bar, rows: pd.DataFrame, frame: pd.DataFrame, hardware: str) -> tuple[float, str]:
    obstacle = _obstacle(bar, rows, frame, hardware)
    if obstacle:
        return math.nan, f"{NOT_HERE} ({obstacle})"
    measured = bar.measure(rows)
    reached = measured >= bar.limit if bar.at_least else measured <= bar.limit
    doubts = [f"on {len(rows)} images, the bar asks for {BAR_IMAGES}"] if len(rows) < BAR_IMAGES else []
    share = float(frame["others_share"].iloc[0])
    if bar.measure in (_times_faster, _seconds) and share > DISTURBED:
        doubts.append(f"other programs took {100 * share:.0f} % of the processor: measure again")
    doubt = f" ({'; '.join(doubts)})" if doubts else ""
    return measured, (MET if reached else MISSED) + doubt


def _obstacle(bar: Bar, rows: pd.DataFrame, frame: pd.DataFrame, hardware: str) -> str | None:
    device = str(frame["device"].iloc[0])
    if bar.hardware == "cpu" and device != "cpu":
        return "the bar is for a CPU"
    if bar.hardware == "h100" and "H100" not in hardware:
        return "the bar is for an H100"
    if bar.full_size and (frame["n_masks"].iloc[0] != 2000 or frame["n_iterations"].iloc[0] != 100):
        return "the bar is for 2000 masks and 100 iterations"
    return "not run" if rows.empty else None
