"""Time of a method by operation, from PyTorch's profiler."""

from __future__ import annotations

import pandas as pd
import torch
from omegaconf import DictConfig
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from misure.bench.measurement import Page, PredictedSamples, document, measured_page
from misure.config import compute_of
from misure.explainers.base import Explainer
from misure.models.compute import Compute
from misure.models.wrapper import SegmentationModel
from misure.paper.table import Column, Table
from misure.sweep.experiment import Experiment
from misure.target import Target

_REST = "everything else"
_COLUMNS = (
    Column("operation", "operation"),
    Column("share", "share", "{:.1%}".format),
    Column("calls", "calls an image", "{:.0f}".format),
    Column("seconds", "seconds an image", "{:.3f}".format),
)


def profile_operations(cfg: DictConfig) -> str:
    """Profile the experiment's method on ``n_samples`` images, one explanation each, after one that warms up.

    Returns:
        The page, which is also written to ``bench/operations-<dataset>-<model>-<method>.md`` in the outputs folder,
        all operations to the ``.csv`` beside it.
    """
    experiment = Experiment.of(cfg)
    explainer, count = experiment.explainer, experiment.n_samples + 1  # one warms up

    def measure(samples: PredictedSamples) -> Page:
        numbers = operations(samples.setup.model, samples.images, samples.targets, explainer, compute_of(cfg))
        title = f"Operations of {explainer.title}: {cfg.model.title} on {cfg.dataset.title}"
        parameters = ", ".join(f"{name}={value}" for name, value in explainer.parameters.items())
        notes = [*samples.notes, f"{explainer.title}: {parameters}.", f"Threads: {torch.get_num_threads()}."]
        shown = most_expensive(numbers).reset_index(names="operation")
        text = document(title, notes, Table("operations", title, _COLUMNS, shown).body())
        name = f"operations-{samples.setup.name}-{explainer.name}"
        return Page(name, text, numbers.reset_index(names="operation"))

    what = f"{explainer.name} under the profiler, {count} explanations"
    return measured_page(cfg, what, experiment.n_samples, measure, lambda pace: count * pace.explaining(experiment))


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
