"""Literal and present versions side by side: same run, same network, same images, same targets."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pandas as pd
import psutil
import torch
from torch import Tensor
from tqdm import tqdm

from misure.bench.literal import LiteralMap, literal_msr, literal_rise, literal_seg_grad_cam
from misure.bench.rounds import LITERAL, OURS, Contest, Round
from misure.compute import is_fast_at_bfloat16
from misure.errors import MisureError, did_you_mean
from misure.explainers.base import check_images
from misure.explainers.msr import MSR
from misure.explainers.rise import RISE
from misure.explainers.seg_grad_cam import SegGradCAM
from misure.model import SegmentationModel
from misure.target import Target

METHODS = ("msr", "rise", "seg_grad_cam")


def run_bench(
    model: SegmentationModel,
    images: Tensor,
    targets: Sequence[Target],
    *,
    n_masks: int = 2000,
    n_iterations: int = 100,
    mask_size: int = 224,
    methods: Sequence[str] = METHODS,
    precisions: Sequence[str] | None = None,
    images_per_round: int = 4,
    batch_size: int | str = "auto",
    layer: str | None = None,
    weight_gradients: bool = False,
    progress: bool = True,
) -> pd.DataFrame:
    """Time and compare literal and present versions, taking turns round by round.

    A round is a few images: the literal version explains them one at a time, ours together; which
    goes first changes from round to round, so that a machine that slows down slows both. Ours is
    timed from lending the network to having the maps, weight conversion and batch sizing included;
    both are timed without evaluation.

    Args:
        model: A trained network; it is given back as it was.
        images: float32, N x C x H x W.
        targets: One per image.
        n_masks: RISE's masks.
        n_iterations: MSR's optimiser steps.
        mask_size: Side of MSR's mask.
        methods: Which of ``METHODS`` to run.
        precisions: Of ours; None means float32, and bfloat16 too where the hardware is fast at it.
        images_per_round: How many images take one turn.
        batch_size: Ours, see :class:`misure.compute.Compute`.
        layer: Seg-Grad-CAM's layer; None means the model's bottleneck.
        weight_gradients: Let the literal MSR compute the gradients of all weights too.
        progress: Show a progress bar.

    Returns:
        One row per method, version, precision and image, with the seconds, the metrics of the map
        and its agreement with the literal map; the run's setting is repeated in every row.

    Raises:
        MisureError: On an unknown method or images that cannot be explained.
    """
    for name in methods:
        if name not in METHODS:
            raise MisureError(f"there is no benchmark of {name!r}{did_you_mean(name, METHODS)}")
    images = check_images(images, model)
    if len(targets) != len(images):
        raise MisureError(f"{len(images)} images but {len(targets)} targets: pass one target per image")
    contests = _contests(model, n_masks, n_iterations, mask_size, layer, weight_gradients=weight_gradients)
    precisions = precisions or (("32", "bf16") if is_fast_at_bfloat16(images.device) else ("32",))
    versions = [(LITERAL, "32"), *((OURS, precision) for precision in precisions)]
    starts = range(0, len(images), images_per_round)
    setting = _setting(model, images, n_masks, n_iterations, batch_size)
    meter = _LoadMeter()
    rows: list[dict[str, Any]] = []
    bar = tqdm(total=len(methods) * len(images) * len(versions), disable=not progress, unit="image", desc="bench")
    with _as_literal_code_finds_it(model), bar:
        for name in methods:
            contest = contests[name]
            for turn, start in enumerate(starts):
                part = slice(start, start + images_per_round)
                run = Round(model, contest, images[part], targets[part], batch_size)
                if turn == 0:
                    run.warm_up(versions)
                maps = {}
                for version in versions if turn % 2 == 0 else reversed(versions):
                    maps[version] = run.maps(*version)
                    bar.update(len(run.images))
                rows += run.rows(name, start, maps)
    return pd.DataFrame(rows).assign(**setting, **meter.read())


def _contests(
    model: SegmentationModel,
    n_masks: int,
    n_iterations: int,
    mask_size: int,
    layer: str | None,
    *,
    weight_gradients: bool,
) -> dict[str, Contest]:
    msr = MSR(n_iterations=n_iterations, mask_size=mask_size)
    rise = RISE(n_masks=n_masks)
    cam = SegGradCAM(layer=layer)

    def by_msr(image: Tensor, target: Target) -> LiteralMap:
        counts = {"n_iterations": n_iterations, "mask_size": mask_size}
        return literal_msr(model, image, target, **counts, weight_gradients=weight_gradients)

    return {
        "msr": Contest(msr, by_msr, replace(msr, n_iterations=2)),
        "rise": Contest(rise, lambda image, target: literal_rise(model, image, target, rise), replace(rise, n_masks=8)),
        "seg_grad_cam": Contest(cam, lambda image, target: literal_seg_grad_cam(model, image, target, layer), cam),
    }


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


class _LoadMeter:
    """What other programs took of the processor while the benchmark ran."""

    def __init__(self) -> None:
        self.load_before = os.getloadavg()[0]
        self.before = self._counts()

    def read(self) -> dict[str, Any]:
        wall, busy, own = (after - before for after, before in zip(self._counts(), self.before, strict=True))
        others = max(0.0, busy - own) / (wall * (psutil.cpu_count() or 1))
        return {"load_before": self.load_before, "load_after": os.getloadavg()[0], "others_share": others}

    @staticmethod
    def _counts() -> tuple[float, float, float]:
        total, own = psutil.cpu_times(), psutil.Process().cpu_times()
        return time.monotonic(), sum(total) - total.idle - getattr(total, "iowait", 0.0), own.user + own.system


def _setting(
    model: SegmentationModel, images: Tensor, n_masks: int, n_iterations: int, batch_size: int | str
) -> dict[str, Any]:
    network = type(model.module or model.network).__name__
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
