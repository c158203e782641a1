"""Where the time of a method goes, by operation, from PyTorch's profiler."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import torch
from omegaconf import DictConfig
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from misure.bench.experiment import described, explained_images
from misure.bench.page import page, write_page
from misure.config import compute_of
from misure.explainers.base import Explainer
from misure.models.compute import Compute
from misure.models.wrapper import SegmentationModel
from misure.paper.table import markdown_table
from misure.sweep.announcement import outline
from misure.sweep.experiment import Experiment
from misure.sweep.setup import prepare
from misure.target import Target

_REST = "everything else"


def profile_operations(cfg: DictConfig) -> str:
    """Profile the experiment's method on ``n_samples`` images, one explanation each, after one that warms up.

    Returns:
        The Markdown table, which is also written to ``bench/operations-<dataset>-<model>-<method>.md`` in the outputs
        folder, all operations to the ``.csv`` beside it.
    """
    experiment = Experiment.of(cfg)
    count = experiment.n_samples + 1  # one warms up
    what = f"{experiment.explainer.name} under the profiler, {count} explanations"
    if outline(cfg, what, lambda pace: count * pace.explaining(experiment)):
        return ""
    explainer, setup = experiment.explainer, prepare(cfg)
    images, targets = explained_images(setup, experiment, experiment.n_samples)
    table = operations(setup.model, images, targets, explainer, compute_of(cfg))
    lines = [
        [str(name), f"{row.share:.1%}", f"{row.calls:.0f}", f"{row.seconds:.3f}"]
        for name, row in most_expensive(table).iterrows()
    ]
    parameters = ", ".join(f"{name}={value}" for name, value in explainer.parameters.items())
    notes = [*described(setup, images), f"{explainer.title}: {parameters}.", f"Threads: {torch.get_num_threads()}."]
    title = f"Operations of {explainer.title}: {cfg.model.title} on {cfg.dataset.title}"
    text = page(title, notes, markdown_table(["operation", "share", "calls an image", "seconds an image"], lines))
    name = f"operations-{setup.name}-{explainer.name}"
    write_page(Path(cfg.outputs) / "bench", name, text, table.reset_index(names="operation"))
    return text


def operations(
    model: SegmentationModel, images: Tensor, targets: list[Target], explainer: Explainer, compute: Compute
) -> pd.DataFrame:
    """Profile a method, one image at a time.

    Returns:
        Index: the operation's name; ``seconds`` (its own, without what it calls) and ``calls``, both an image, and
        ``share`` (0..1), most expensive first.
    """
    explainer.explain(model, images[:1], targets[:1], compute)
    on_gpu = [ProfilerActivity.CUDA] if images.device.type == "cuda" else []
    with profile(activities=[ProfilerActivity.CPU, *on_gpu], acc_events=True) as profiler:
        for i, target in enumerate(targets):
            explainer.explain(model, images[i : i + 1], [target], compute)
    own = "self_device_time_total" if on_gpu else "self_cpu_time_total"
    rows = {event.key: (getattr(event, own) / 1e6, event.count) for event in profiler.key_averages()}
    table = pd.DataFrame.from_dict(rows, orient="index", columns=["seconds", "calls"]) / len(targets)
    table["share"] = table["seconds"] / table["seconds"].sum()
    return table.sort_values("seconds", ascending=False)


def most_expensive(table: pd.DataFrame, least: float = 0.01) -> pd.DataFrame:
    """Keep the operations with at least a share of the time and add up the others in one row."""
    rest = table[table["share"] < least]
    kept = table[table["share"] >= least]
    return pd.concat([kept, rest.sum().to_frame(_REST).T]) if len(rest) else kept
