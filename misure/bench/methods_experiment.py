"""The comparison of all methods on a trained network and validation images, from a configuration."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from misure.bench.experiment import described, explained_images
from misure.bench.method_table import measure_methods, method_document
from misure.bench.page import write_page
from misure.config import composed, compute_of
from misure.explainers import EXPLAINERS
from misure.explainers.base import Explainer
from misure.sweep.announcement import outline
from misure.sweep.experiment import Experiment
from misure.sweep.setup import prepare


def compare_methods(cfg: DictConfig) -> str:
    """Explain the same objects by every method.

    Returns:
        The Markdown table, which is also written to ``bench/methods-<dataset>-<model>.md`` in the outputs folder, its
        numbers to the ``.csv`` beside it.
    """
    overrides = [o for o in HydraConfig.get().overrides.task if not o.startswith("explainer=")]
    names = list(cfg.methods.names or EXPLAINERS)
    configurations = composed("methods", [[f"explainer={name}"] for name in names], overrides)
    experiments = [Experiment.of(each) for each in configurations]
    explainers = [experiment.explainer for experiment in experiments]
    images_each = int(cfg.methods.images)
    what = f"{len(names)} methods on {images_each} objects each"
    if outline(cfg, what, lambda pace: images_each * sum(map(pace.explaining, experiments))):
        return ""
    setup = prepare(cfg)
    images, targets = explained_images(setup, Experiment.of(cfg), images_each)
    frame = measure_methods(
        setup.model, images, targets, explainers, compute=compute_of(cfg), ratios=list(cfg.methods.ratios)
    )
    notes = [*described(setup, images), f"Settings: profile {cfg.profile.name}; " + _counts(explainers)]
    text = method_document(frame, title=f"Methods: {cfg.model.title} on {cfg.dataset.title}", notes=notes)
    write_page(Path(cfg.outputs) / "bench", f"methods-{setup.name}", text, frame)
    return text


def _counts(explainers: Sequence[Explainer]) -> str:
    """List how much work each method is given."""
    known = ("n_masks", "n_iterations", "n_samples", "n_steps")
    parts = [
        f"{explainer.name} {name}={explainer.parameters[name]}"
        for explainer in explainers
        for name in known
        if name in explainer.parameters
    ]
    return ", ".join(parts) + "."
