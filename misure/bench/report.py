"""The benchmark's numbers as a page."""

from __future__ import annotations

import math
import platform
from pathlib import Path

import pandas as pd
import torch

from misure.bench.page import frame_table, page
from misure.bench.peers import PEERS, absent_peers
from misure.bench.rounds import LITERAL
from misure.explainers import EXPLAINERS

_LITERAL_VERSION = "literal: one image and one mask at a time, float32, contiguous memory"


def summarise(frame: pd.DataFrame) -> pd.DataFrame:
    """Reduce :func:`misure.bench.compare.run_bench`'s rows to one per method, contestant and precision of ours."""
    rows = []
    for (method, contestant, precision), found in frame.groupby(["method", "contestant", "precision"], sort=False):
        rows.append(
            {
                "method": EXPLAINERS[str(method)].title,
                "against": contestant,
                "precision": precision,
                "images": len(found),
                "its s an image": _spread(found["seconds"]),
                "misure s an image": _spread(found["misure_seconds"]),
                "times faster": _spread(found["times_faster"]),
                "its peak MB": _megabytes(found["peak_bytes"]),
                "misure peak MB": _megabytes(found["misure_peak_bytes"]),
                "lowest correlation": found["correlation"].min(skipna=False),
                "largest scaled difference": found["scaled_difference"].max(),
                "its Dice explained": found["dice_explained"].mean(),
                "misure Dice explained": found["misure_dice_explained"].mean(),
                "its ratio": found["perturbation_ratio"].mean(),
                "misure ratio": found["misure_perturbation_ratio"].mean(),
            }
        )
    return pd.DataFrame(rows)


def markdown(frame: pd.DataFrame, *, title: str = "Speed", notes: tuple[str, ...] = ()) -> str:
    """Write the whole report.

    Args:
        frame: From :func:`misure.bench.compare.run_bench`, with a column ``model``, our name of the network.
        title: Of the page.
        notes: Further lines about the setting, such as where the weights come from.
    """
    first = frame.iloc[0]
    hardware = hardware_name(str(first["device"]))
    share = 100 * first["others_share"]
    setting = [
        f"Hardware: {hardware}; {first['threads']} threads; torch {first['torch']}.",
        f"Network {first['network']} on {first['height']} x {first['width']} images; batch size {first['batch_size']}.",
        f"Work per image: RISE {first['n_masks']} masks, MSR {first['n_iterations']} iterations.",
        f"Integrated gradients {first['n_steps']} steps.",
        f"Against {'; '.join(_contestants(frame))}.",
        "All took turns in one run on the same images and targets, in evaluation mode.",
        "The others explain one image at a time in float32, called as their documentation shows.",
        "Seconds an image, without evaluation, and times faster (of the same image): median (lowest to highest).",
        _what_memory_is(str(first["device"])),
        f"Load average before {first['load_before']:.2f}, after {first['load_after']:.2f}.",
        f"Other programs took {share:.0f} % of the processor meanwhile.",
        *_differing_maps(frame),
        *_absent(frame),
        *notes,
    ]
    return page(title, setting, frame_table(summarise(frame).dropna(axis="columns", how="all")))


def _contestants(frame: pd.DataFrame) -> list[str]:
    """Name who took part, with the version of each package."""
    named = {peer.name: f"{peer.name} {peer.version}" for peers in PEERS.values() for peer in peers}
    named[LITERAL] = _LITERAL_VERSION
    return [named[name] for name in dict.fromkeys(frame["contestant"])]


def _what_memory_is(device: str) -> str:
    if device == "cuda":
        return "Peak memory: what torch allocated on the GPU during a turn, above its start."
    return (
        "Peak memory: resident memory of the process during a turn, above its start, by the kernel's high-water mark "
        "(Linux); ours explains a turn's images together."
    )


def _differing_maps(frame: pd.DataFrame) -> list[str]:
    """Say which packages draw random numbers of their own."""
    ran = set(frame["contestant"])
    own = [peer.name for peers in PEERS.values() for peer in peers if not peer.same_maps and peer.name in ran]
    return [f"{name} draws its own masks: its map agrees only as far as the masks are many." for name in own]


def _absent(frame: pd.DataFrame) -> list[str]:
    methods = tuple(str(frame["methods"].iloc[0]).split())
    return [
        f"{peer.name} was not measured: it is not installed (pip install 'misure[bench]')."
        for peer in absent_peers(methods)
    ]


def hardware_name(device: str) -> str:
    """Name the processor that the benchmark ran on."""
    if device == "cuda":
        return torch.cuda.get_device_name()
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.is_file() else []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    capability = torch.backends.cpu.get_cpu_capability()
    return f"{models[0] if models else platform.processor() or platform.machine()} (CPU, {capability})"


def _spread(values: pd.Series) -> str:
    return f"{values.median():.3g} ({values.min():.3g} to {values.max():.3g})"


def _megabytes(values: pd.Series) -> float:
    """The largest turn's, where any was measured."""
    return round(float(values.max()) / 2**20) if values.notna().any() else math.nan
