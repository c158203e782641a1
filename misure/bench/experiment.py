"""The benchmark on a trained network and validation images, from a configuration."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from torch import Tensor

from misure.bench.compare import run_bench
from misure.bench.page import write_page
from misure.bench.report import markdown
from misure.config import composed, compute_of
from misure.errors import MisureError
from misure.models.compute import Compute
from misure.models.wrapper import frozen
from misure.sweep.announcement import outline
from misure.sweep.experiment import Experiment
from misure.sweep.setup import Setup, prepare
from misure.target import EmptyTargetError, Target, make_targets


def bench(cfg: DictConfig) -> str:
    """Benchmark every network of ``bench.networks``, write ``bench.md`` and ``bench.csv`` and return the text.

    A network whose weights or images are absent, or that predicts its classes in too few images, is named with the
    reason.

    Raises:
        MisureError: If no network could be measured.
    """
    overrides = list(HydraConfig.get().overrides.task)
    networks = [[f"{group}={name}" for group, name in network.items()] for network in cfg.bench.networks]
    frames, pages = [], []
    for each in composed("bench", networks, overrides):
        if outline(each, f"timing {', '.join(cfg.bench.methods)} and their peers on {cfg.bench.images} images"):
            continue
        try:
            frame, page = _bench_one(each)
        except MisureError as error:
            pages.append(f"{each.model.name} was not measured: {error}\n")
            continue
        frames.append(frame)
        pages.append(page)
    if cfg.plan_only:
        return ""
    if not frames:
        raise MisureError("nothing was measured:\n" + "".join(pages))
    text = "\n".join(pages)
    write_page(Path(cfg.outputs), "bench", text, pd.concat(frames))
    return text


def _bench_one(cfg: DictConfig) -> tuple[pd.DataFrame, str]:
    """Benchmark one network; return its rows and its page."""
    setup = prepare(cfg)
    images, targets = explained_images(setup, Experiment.of(cfg), cfg.bench.images)
    frame = run_bench(
        setup.model,
        images,
        targets,
        n_masks=cfg.bench.masks,
        n_iterations=cfg.bench.iterations,
        n_steps=cfg.bench.steps,
        methods=list(cfg.bench.methods),
        precisions=[str(p) for p in cfg.bench.precisions] if cfg.bench.precisions else None,
        images_per_round=cfg.bench.images_per_round,
        batch_size=cfg.runner.batch_size,
    ).assign(dataset=cfg.dataset.name, model=cfg.model.name)
    notes = (
        f"Network: {setup.info.name}, weights {setup.info.fingerprint}, {setup.quality}.",
        f"Images: {setup.dataset.source}.",
    )
    return frame, markdown(
        frame, title=f"Speed: {cfg.model.title} ({cfg.model.name}) on {cfg.dataset.title}", notes=notes
    )


def explained_images(setup: Setup, experiment: Experiment, count: int) -> tuple[Tensor, list[Target]]:
    """Take the first samples, in the order of the sweeps, in which the class is predicted."""
    device = setup.model.device or torch.device("cpu")
    images: list[Tensor] = []
    targets: list[Target] = []
    order = setup.samples(experiment.sampling, experiment.cfg.seed, compute_of(experiment.cfg))
    with frozen(setup.model, Compute("32", 1), device) as network:
        for sample in order:
            if len(images) == count:
                break
            image = setup.dataset[sample.image]["image"][None].to(device)
            try:
                targets += make_targets(network, image, sample.class_id)
            except EmptyTargetError:
                continue
            images.append(image)
    if len(images) < count:
        raise MisureError(f"only {len(images)} objects are predicted: set bench.images={len(images)}")
    return torch.cat(images), targets


def described(setup: Setup, images: Tensor) -> list[str]:
    """Say which network and images a measurement used, a line each."""
    return [
        f"Network: {setup.info.name}, weights {setup.info.fingerprint}, {setup.quality}.",
        f"Images: {len(images)} of {setup.dataset.source}, {images.shape[2]} x {images.shape[3]}.",
    ]
