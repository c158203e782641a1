"""The benchmark's numbers as a table with the bars they are held against."""

from __future__ import annotations

import math
import platform
import resource
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch

from misure.bench.rounds import LITERAL, OURS
from misure.errors import MisureError
from misure.explainers import EXPLAINERS

BAR_IMAGES = 8
"""Images over which the bars' means are asked for."""

DISTURBED = 0.1
"""Share of the processor that other programs may take before a time says little."""

MET, MISSED, NOT_HERE = "met", "missed", "cannot be measured here"

Measure = Callable[[pd.DataFrame, pd.DataFrame], float]


@dataclass(frozen=True)
class Bar:
    """Something the benchmark has to reach.

    Attributes:
        what: Said in the table.
        method: Explainer it is about.
        limit: The number to reach.
        at_least: Whether the limit is a lower bound.
        measure: Takes the rows of ours and of the literal version, image by image.
        precision: Of ours; None means that it holds for every precision that was run.
        hardware: ``"cpu"``, ``"h100"`` or ``"any"``.
        full_size: Whether it only holds for the paper's numbers of masks and iterations.
        models: Our names of the networks it is about; none means every network.
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


def _times_faster(ours: pd.DataFrame, _literal: pd.DataFrame) -> float:
    return float(ours["times_faster"].median())


def _seconds(ours: pd.DataFrame, _literal: pd.DataFrame) -> float:
    return float(ours["seconds"].median())


def _dice_difference(ours: pd.DataFrame, literal: pd.DataFrame) -> float:
    return abs(float(ours["dice_explained"].mean() - literal["dice_explained"].mean()))


def _ratio_difference(ours: pd.DataFrame, literal: pd.DataFrame) -> float:
    expected = float(literal["perturbation_ratio"].mean())
    found = float(ours["perturbation_ratio"].mean())
    return 100 * abs(found - expected) / expected if expected else (0.0 if found == 0 else math.inf)


def _correlation(ours: pd.DataFrame, _literal: pd.DataFrame) -> float:
    return float(ours["correlation"].min(skipna=False))


_RESNET50 = ("deeplabv3_resnet50", "deeplabv3_stand_in")
"""Bound by convolutions as the VGG-16 U-Net is. (The MobileNetV2 is bound by memory as well.)"""

BARS = (
    Bar("MSR, times faster", "msr", 2.1, True, _times_faster, "bf16", "cpu", models=("unet_vgg16", *_RESNET50)),
    Bar("MSR, times faster", "msr", 1.15, True, _times_faster, "32", "cpu", models=("unet_vgg16", *_RESNET50)),
    Bar("RISE, times faster", "rise", 2.8, True, _times_faster, "bf16", "cpu", models=("unet_vgg16", *_RESNET50)),
    Bar("MSR, times faster", "msr", 2.0, True, _times_faster, "bf16", "cpu", models=("unet_resnet34",)),
    Bar("RISE, times faster", "rise", 2.3, True, _times_faster, "bf16", "cpu", models=("unet_resnet34",)),
    Bar("MSR, mean Dice explained differs by", "msr", 0.01, False, _dice_difference),
    Bar("MSR, mean perturbation ratio differs by (%)", "msr", 5.0, False, _ratio_difference),
    Bar("RISE, lowest correlation of the maps", "rise", 0.999, True, _correlation),
    Bar("MSR, seconds per image", "msr", 0.06, False, _seconds, None, "h100", True, ("unet_vgg16",)),
    Bar("RISE, seconds per image", "rise", 0.5, False, _seconds, None, "h100", True, ("unet_vgg16",)),
)


def summarise(frame: pd.DataFrame) -> pd.DataFrame:
    """Reduce :func:`misure.bench.compare.run_bench`'s rows to one per method and precision."""
    rows = []
    for (method, precision), ours in frame[frame["version"] == OURS].groupby(["method", "precision"], sort=False):
        literal = _literal(frame, str(method))
        rows.append(
            {
                "method": EXPLAINERS[str(method)].title,
                "precision": precision,
                "images": len(ours),
                "literal s": literal["seconds"].median(),
                "misure s": ours["seconds"].median(),
                "times faster": ours["times_faster"].median(),
                "lowest": ours["times_faster"].min(),
                "highest": ours["times_faster"].max(),
                "Dice literal": literal["dice_explained"].mean(),
                "Dice misure": ours["dice_explained"].mean(),
                "ratio literal": literal["perturbation_ratio"].mean(),
                "ratio misure": ours["perturbation_ratio"].mean(),
                "lowest correlation": ours["correlation"].min(skipna=False),
                "largest scaled difference": ours["scaled_difference"].max(),
                "lowest IoU of non-zero": ours["support_iou"].min(),
                "GPU MB literal": _megabytes(literal["gpu_bytes"]),
                "GPU MB misure": _megabytes(ours["gpu_bytes"]),
            }
        )
    return pd.DataFrame(rows)


def judge(frame: pd.DataFrame, hardware: str) -> pd.DataFrame:
    """Hold the rows against the bars.

    Args:
        frame: From :func:`misure.bench.compare.run_bench`, with a column ``model``, our name of the network.
        hardware: From :func:`hardware_name`.

    Returns:
        One row per bar and precision: what, precision, bar, measured, verdict.
    """
    rows = []
    for bar in BARS:
        if bar.models and frame["model"].iloc[0] not in bar.models:
            continue
        ours = frame[(frame["version"] == OURS) & (frame["method"] == bar.method)]
        ran = list(dict.fromkeys(ours["precision"]))
        for precision in [bar.precision] if bar.precision else ran or ["32"]:
            chosen = ours[ours["precision"] == precision]
            measured, verdict = _verdict(bar, chosen, _literal(frame, bar.method), frame, hardware)
            limit = f"{'at least' if bar.at_least else 'at most'} {bar.limit:g}"
            rows.append({"bar": bar.what, "precision": precision, "asked": limit, "measured": measured} | verdict)
    return pd.DataFrame(rows)


def _verdict(
    bar: Bar, ours: pd.DataFrame, literal: pd.DataFrame, frame: pd.DataFrame, hardware: str
) -> tuple[float, dict[str, str]]:
    obstacle = _obstacle(bar, ours, frame, hardware)
    if obstacle:
        return math.nan, {"verdict": f"{NOT_HERE} ({obstacle})"}
    measured = bar.measure(ours, literal)
    reached = measured >= bar.limit if bar.at_least else measured <= bar.limit
    doubts = [f"on {len(ours)} images, the bar asks for {BAR_IMAGES}"] if len(ours) < BAR_IMAGES else []
    share = float(frame["others_share"].iloc[0])
    if bar.measure in (_times_faster, _seconds) and share > DISTURBED:
        doubts.append(f"other programs took {100 * share:.0f} % of the processor: measure again")
    doubt = f" ({'; '.join(doubts)})" if doubts else ""
    return measured, {"verdict": (MET if reached else MISSED) + doubt}


def _obstacle(bar: Bar, ours: pd.DataFrame, frame: pd.DataFrame, hardware: str) -> str | None:
    device = str(frame["device"].iloc[0])
    if bar.hardware == "cpu" and device != "cpu":
        return "the bar is for a CPU"
    if bar.hardware == "h100" and "H100" not in hardware:
        return "the bar is for an H100"
    if bar.full_size and (frame["n_masks"].iloc[0] != 2000 or frame["n_iterations"].iloc[0] != 100):
        return "the bar is for 2000 masks and 100 iterations"
    if ours.empty:
        was_run = bool((frame["method"] == bar.method).any())
        return "no bfloat16 hardware" if was_run and bar.precision == "bf16" else "not run"
    return None


def markdown(frame: pd.DataFrame, *, title: str = "Speed", notes: tuple[str, ...] = ()) -> str:
    """Write the whole report.

    Args:
        frame: From :func:`misure.bench.compare.run_bench`.
        title: Of the page.
        notes: Further lines about the setting, such as where the weights come from.
    """
    first = frame.iloc[0]
    hardware = hardware_name(str(first["device"]))
    share = 100 * first["others_share"]
    setting = [
        f"Hardware: {hardware}; {first['threads']} threads; torch {first['torch']}.",
        f"Network {first['network']} on {first['height']} x {first['width']} images; batch size {first['batch_size']}.",
        f"Work per image: {first['n_masks']} masks for RISE, {first['n_iterations']} iterations for MSR.",
        "Literal: one image and one mask at a time, float32, contiguous memory.",
        "Both versions took turns in one run on the same images and targets.",
        "Seconds are medians per image, without evaluation; times faster are of the same image.",
        f"Load average before {first['load_before']:.2f}, after {first['load_after']:.2f}.",
        f"Other programs took {share:.0f} % of the processor meanwhile.",
        f"Largest resident memory of the process, all versions together: {_peak_resident_megabytes():.0f} MB.",
        *notes,
    ]
    summary = summarise(frame).dropna(axis="columns", how="all")
    tables = ["## Measured", _table(summary), "## Bars", _table(judge(frame, hardware))]
    return "\n\n".join([f"# {title}", "\n".join(f"- {line}" for line in setting), *tables]) + "\n"


def write(frame: pd.DataFrame, folder: Path, text: str) -> None:
    """Write ``bench.csv`` (every row) and ``bench.md``.

    Raises:
        MisureError: If the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        frame.to_csv(folder / "bench.csv", index=False)
        (folder / "bench.md").write_text(text, encoding="utf-8")
    except OSError as error:
        raise MisureError(f"cannot write {folder}: {error.strerror}; choose another folder") from error


def hardware_name(device: str) -> str:
    """Name the processor that the benchmark ran on."""
    if device == "cuda":
        return torch.cuda.get_device_name()
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.is_file() else []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    capability = torch.backends.cpu.get_cpu_capability()
    return f"{models[0] if models else platform.processor() or platform.machine()} (CPU, {capability})"


def _literal(frame: pd.DataFrame, method: str) -> pd.DataFrame:
    return frame[(frame["version"] == LITERAL) & (frame["method"] == method)]


def _megabytes(values: pd.Series) -> float:
    return float(values.max()) / 2**20 if values.notna().any() else math.nan


def _peak_resident_megabytes() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def _table(frame: pd.DataFrame) -> str:
    def cell(value: object) -> str:
        if isinstance(value, float):
            return "" if math.isnan(value) else f"{value:.4g}"
        return str(value)

    lines = [list(frame.columns), ["---"] * len(frame.columns), *([cell(v) for v in row] for row in frame.to_numpy())]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)
