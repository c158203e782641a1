"""Speed of every explainer beside its literal version and other packages, on trained networks, as a page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from misure.bench.compare import run_bench
from misure.bench.measurement import Page, PredictedSamples, document, frame_table, hardware_name
from misure.bench.peers import PEERS, absent_peers
from misure.bench.rounds import LITERAL
from misure.config import composed
from misure.errors import MisureError
from misure.explainers import EXPLAINERS
from misure.sweep.announcement import only_planned

_LITERAL_VERSION = "literal: one image and one mask at a time, float32, contiguous memory"


def bench(cfg: DictConfig) -> str:
    """Benchmark every network of ``bench.networks``, write ``bench.md`` and ``bench.csv`` and return the text.

    A network whose weights or images are absent, or that predicts its classes in too few images, is named with the
    reason.

    Raises:
        MisureError: If no network could be measured.
    """
    overrides = list(HydraConfig.get().overrides.task)
    networks = [[f"{group}={name}" for group, name in network.items()] for network in cfg.bench.networks]
    frames, texts = [], []
    for each in composed("bench", networks, overrides):
        if only_planned(each, f"timing {', '.join(cfg.bench.methods)} and their peers on {cfg.bench.images} images"):
            continue
        try:
            frame, text = _measured(each)
        except MisureError as error:
            texts.append(f"{each.model.name} was not measured: {error}\n")
            continue
        frames.append(frame)
        texts.append(text)
    if cfg.plan_only:
        return ""
    if not frames:
        raise MisureError("nothing was measured:\n" + "".join(texts))
    return Page("bench", "\n".join(texts), pd.concat(frames)).write(Path(cfg.outputs))


def _measured(cfg: DictConfig) -> tuple[pd.DataFrame, str]:
    """Benchmark one network; return its rows and its page."""
    samples = PredictedSamples.first(cfg, cfg.bench.images)
    frame = run_bench(
        samples.setup.model,
        samples.images,
        samples.targets,
        n_masks=cfg.bench.masks,
        n_iterations=cfg.bench.iterations,
        n_steps=cfg.bench.steps,
        methods=list(cfg.bench.methods),
        precisions=[str(p) for p in cfg.bench.precisions] if cfg.bench.precisions else None,
        images_per_round=cfg.bench.images_per_round,
        batch_size=cfg.runner.batch_size,
    ).assign(dataset=cfg.dataset.name, model=cfg.model.name)
    return frame, speed_page(
        frame, f"Speed: {cfg.model.title} ({cfg.model.name}) on {cfg.dataset.title}", samples.notes
    )


def summarise(frame: pd.DataFrame) -> pd.DataFrame:
    """Reduce :func:`misure.bench.compare.run_bench`'s rows to one per method, contestant and precision of ours."""
    lines = []
    for (method, contestant, precision), rows in frame.groupby(["method", "contestant", "precision"], sort=False):
        lines.append(
            {
                "method": EXPLAINERS[str(method)].title,
                "against": contestant,
                "precision": precision,
                "images": len(rows),
                "its s an image": _spread(rows["seconds"]),
                "misure s an image": _spread(rows["misure_seconds"]),
                "times faster": _spread(rows["times_faster"]),
                "its peak MB": _megabytes(rows["peak_bytes"]),
                "misure peak MB": _megabytes(rows["misure_peak_bytes"]),
                "lowest correlation": rows["correlation"].min(skipna=False),
                "largest scaled difference": rows["scaled_difference"].max(),
                "its Dice explained": rows["dice_explained"].mean(),
                "misure Dice explained": rows["misure_dice_explained"].mean(),
                "its ratio": rows["perturbation_ratio"].mean(),
                "misure ratio": rows["misure_perturbation_ratio"].mean(),
            }
        )
    return pd.DataFrame(lines)


def speed_page(frame: pd.DataFrame, title: str = "Speed", notes: Sequence[str] = ()) -> str:
    """Lay out the benchmark of one network.

    Args:
        frame: From :func:`misure.bench.compare.run_bench`.
        title: Of the page.
        notes: Further lines about the setting, such as where the weights come from.
    """
    first = frame.iloc[0]
    setting = [
        f"Hardware: {hardware_name(str(first['device']))}; {first['threads']} threads; torch {first['torch']}.",
        f"Network {first['network']} on {first['height']} x {first['width']} images; batch size {first['batch_size']}.",
        f"Work per image: RISE {first['n_masks']} masks, MSR {first['n_iterations']} iterations.",
        f"Integrated gradients {first['n_steps']} steps.",
        f"Against {'; '.join(_contestants(frame))}.",
        "All took turns in one run on the same images and targets, in evaluation mode.",
        "The others explain one image at a time in float32, called as their documentation shows.",
        "Seconds an image, without evaluation, and times faster (of the same image): median (lowest to highest).",
        _definition_of_memory(str(first["device"])),
        f"Load average before {first['load_before']:.2f}, after {first['load_after']:.2f}.",
        f"Other programs took {100 * first['others_share']:.0f} % of the processor meanwhile.",
        *_differing_maps(frame),
        *_absent(frame),
        *notes,
    ]
    return document(title, setting, frame_table(summarise(frame)))


def _contestants(frame: pd.DataFrame) -> list[str]:
    """Name who took part, with the version of each package."""
    named = {peer.name: f"{peer.name} {peer.version}" for peers in PEERS.values() for peer in peers}
    named[LITERAL] = _LITERAL_VERSION
    return [named[name] for name in dict.fromkeys(frame["contestant"])]


def _definition_of_memory(device: str) -> str:
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


def _spread(values: pd.Series) -> str:
    return f"{values.median():.3g} ({values.min():.3g} to {values.max():.3g})"


def _megabytes(values: pd.Series) -> float:
    """The largest turn's, where any was measured."""
    return round(float(values.max()) / 2**20) if values.notna().any() else math.nan
