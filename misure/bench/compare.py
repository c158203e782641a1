"""Ours beside a literal version and other packages: same run, same network, same images, same targets."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import pandas as pd
import psutil
import torch
from torch import Tensor
from tqdm import tqdm

from misure.bench.literal import LiteralMap, literal_msr, literal_rise, literal_seg_grad_cam
from misure.bench.memory import quick_collection
from misure.bench.peers import OneImage, peers_of
from misure.bench.rounds import LITERAL, OURS, Contest, Round, Version
from misure.errors import MisureError, did_you_mean
from misure.explainers import make_explainer
from misure.explainers.base import check_images
from misure.explainers.msr import MSR
from misure.explainers.seg_grad_cam import SegGradCAM
from misure.models import compute
from misure.models.wrapper import SegmentationModel
from misure.target import Target

METHODS = ("msr", "rise", "seg_grad_cam", "integrated_gradients")


def run_bench(
    model: SegmentationModel,
    images: Tensor,
    targets: Sequence[Target],
    *,
    n_masks: int = 2000,
    n_iterations: int = 100,
    n_steps: int = 50,
    mask_size: int = 224,
    methods: Sequence[str] = METHODS,
    precisions: Sequence[str] | None = None,
    images_per_round: int = 4,
    batch_size: int | str = "auto",
    layer: str | None = None,
    weight_gradients: bool = False,
    progress: bool = True,
) -> pd.DataFrame:
    """Time and compare all versions of each method, taking turns round by round.

    A round is a few images: the literal version and the other packages explain them one at a time, ours together; who
    goes first changes from round to round, so that a machine that slows down slows all. Ours is timed from lending the
    network to having the maps, weight conversion and batch sizing included; all are timed without evaluation. A package
    that is not installed is left out, see :func:`misure.bench.peers.absent_peers`.

    Args:
        model: A trained network; it is given back as it was.
        images: float32, N x C x H x W.
        targets: One per image.
        n_masks: RISE's masks.
        n_iterations: MSR's optimiser steps.
        n_steps: Steps of the integrated gradients.
        mask_size: Side of MSR's mask.
        methods: Which of ``METHODS`` to run.
        precisions: Of ours; None means float32, and bfloat16 too where the hardware is fast at it.
        images_per_round: How many images take one turn.
        batch_size: Ours, see :class:`misure.models.compute.Compute`.
        layer: Seg-Grad-CAM's layer; None means the model's bottleneck.
        weight_gradients: Let the literal MSR compute the gradients of all weights too.
        progress: Show a progress bar.

    Returns:
        One row per method, contestant, precision of ours and image: the contestant's seconds, metrics and peak memory,
        ours in the columns ``misure_...``, how many times faster ours was, and how well the maps agree. The run's
        setting is repeated in every row.

    Raises:
        MisureError: On an unknown method, images that cannot be explained, or nobody to compare with.
    """
    for name in methods:
        if name not in METHODS:
            raise MisureError(f"there is no benchmark of {name!r}{did_you_mean(name, METHODS)}")
    images = check_images(images, model)
    if len(targets) != len(images):
        raise MisureError(f"{len(images)} images but {len(targets)} targets: pass one target per image")
    parameters: dict[str, dict[str, Any]] = {
        "msr": {"n_iterations": n_iterations, "mask_size": mask_size},
        "rise": {"n_masks": n_masks},
        "seg_grad_cam": {"layer": layer},
        "integrated_gradients": {"n_steps": n_steps},
    }
    contests = {name: _contest(name, parameters[name], weight_gradients=weight_gradients) for name in methods}
    contests = {name: contest for name, contest in contests.items() if contest.contestants}
    if not contests:
        raise MisureError(f"nobody to compare {', '.join(methods)} with is installed: pip install 'misure[bench]'")
    precisions = precisions or (("32", "bf16") if compute.is_fast_at_bfloat16(images.device) else ("32",))
    setting = _setting(model, images, n_masks, n_iterations, batch_size)
    setting |= {"n_steps": n_steps, "methods": " ".join(methods)}
    process = psutil.Process()
    setting["load_before"], _ = os.getloadavg()[0], _others_share(process)
    rows: list[dict[str, Any]] = []
    total = sum(len(contest.contestants) + len(precisions) for contest in contests.values()) * len(images)
    bar = tqdm(total=total, disable=not progress, unit="image", desc="bench")
    with _as_literal_code_finds_it(model), quick_collection(), bar:
        for name, contest in contests.items():
            for turn, start in enumerate(range(0, len(images), images_per_round)):
                part = slice(start, start + images_per_round)
                run = Round(model, contest, images[part], targets[part], batch_size)
                versions: list[Version] = [(other, "32") for other in contest.contestants]
                versions += [(OURS, precision) for precision in precisions]
                if turn == 0:
                    run.warm_up(versions)
                maps = {}
                for version in versions if turn % 2 == 0 else reversed(versions):
                    maps[version] = run.maps(version)
                    bar.update(len(run.images))
                rows += run.rows(name, start, maps)
    return pd.DataFrame(rows).assign(**setting, load_after=os.getloadavg()[0], others_share=_others_share(process))


def _contest(name: str, parameters: Mapping[str, Any], *, weight_gradients: bool) -> Contest:
    """Set the literal version, where there is one, and the installed packages against an explainer."""

    def by_msr(model: SegmentationModel, image: Tensor, target: Target, msr: MSR) -> LiteralMap:
        counts = {"n_iterations": msr.n_iterations, "mask_size": msr.mask_size}
        return literal_msr(model, image, target, **counts, weight_gradients=weight_gradients)

    def by_cam(model: SegmentationModel, image: Tensor, target: Target, cam: SegGradCAM) -> LiteralMap:
        return literal_seg_grad_cam(model, image, target, cam.layer)

    literal: Mapping[str, OneImage] = {"msr": by_msr, "rise": literal_rise, "seg_grad_cam": by_cam}
    contestants = {LITERAL: literal[name]} if name in literal else {}
    contestants |= {peer.name: peer.load() for peer in peers_of(name)}
    shorter = {"msr": {"n_iterations": 2}, "rise": {"n_masks": 8}, "integrated_gradients": {"n_steps": 2}}
    warm_up = make_explainer(name, **{**parameters, **shorter.get(name, {})})
    return Contest(make_explainer(name, **parameters), contestants, warm_up)


@contextmanager
def _as_literal_code_finds_it(model: SegmentationModel) -> Iterator[None]:
    """Evaluation mode, contiguous float32 weights, all parameter gradients on; undone afterwards."""
    module = model.module
    if module is None:
        yield
        return
    training = [(m, m.training) for m in module.modules()]
    parameters = [(p, p.data, p.requires_grad, p.grad) for p in module.parameters()]
    module.eval()
    for parameter, data, _, _ in parameters:
        parameter.data = data.contiguous()
        parameter.requires_grad_(True)
        parameter.grad = None
    try:
        yield
    finally:
        for part, flag in training:
            part.training = flag
        for parameter, data, requires_grad, gradient in parameters:
            parameter.data = data
            parameter.grad = gradient
            parameter.requires_grad_(requires_grad)


def _others_share(process: psutil.Process) -> float:
    """The share of the processor that other programs took since the last call, 0..1."""
    return max(0.0, psutil.cpu_percent() - process.cpu_percent() / (psutil.cpu_count() or 1)) / 100


def _setting(
    model: SegmentationModel, images: Tensor, n_masks: int, n_iterations: int, batch_size: int | str
) -> dict[str, Any]:
    network = type(model.network).__name__
    return {
        "network": network,
        "height": images.shape[2],
        "width": images.shape[3],
        "n_masks": n_masks,
        "n_iterations": n_iterations,
        "batch_size": str(batch_size),
        "device": images.device.type,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }
