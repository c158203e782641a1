"""Ours beside a literal version and other packages: same run, same network, same images, same targets."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pandas as pd
import psutil
import torch
from torch import Tensor
from tqdm import tqdm

from misure.bench.arithmetic import WorkOfPasses, peak_flops
from misure.bench.literal import literal_msr, literal_rise, literal_seg_grad_cam
from misure.bench.memory import quick_collection
from misure.bench.peers import OneImage, peers_of
from misure.bench.rounds import Round, Timed, Version
from misure.errors import MisureError
from misure.explainers.base import Explainer, check_images
from misure.explainers.rise import RISE
from misure.models import compute
from misure.models.wrapper import SegmentationModel
from misure.target import Target

LITERAL = "literal"
OURS = "misure"

_LITERAL: Mapping[str, OneImage] = {"msr": literal_msr, "rise": literal_rise, "seg_grad_cam": literal_seg_grad_cam}

_RUNS = {"msr": 2, "rise": 2}
"""Of the longest, one with each order of its versions; and of the one whose noise is what is measured."""


def run_bench(
    model: SegmentationModel,
    images: Tensor,
    targets: Sequence[Target],
    explainers: Mapping[str, Explainer],
    *,
    plain_masks: int = 2000,
    repeats: int = 5,
    precisions: Sequence[str] | None = None,
    images_per_round: int = 1,
    batch_size: int | str = "auto",
    progress: bool = True,
) -> pd.DataFrame:
    """Time and compare all versions of each method, taking turns round by round.

    A round is a few images: the literal version and the other packages explain them one at a time, ours together; who
    goes first changes from round to round and run to run, so that a machine that slows down slows all. Ours is timed
    from lending the network to having the maps, weight conversion and batch sizing included; all are timed without
    evaluation. A package that is not installed is left out, see :func:`misure.bench.peers.absent_peers`. The literal
    version and the packages take the parameters of their method's first explainer, but plain masks of RISE.

    Args:
        model: A trained network; it is given back as it was.
        images: float32, N x C x H x W.
        targets: One per image.
        explainers: Ours, by name; several of them may be of one method.
        plain_masks: Of the others' RISE, which is the paper's plain sum.
        repeats: Runs of the methods of a few passes; MSR has two, RISE two with masks of their own.
        precisions: Of ours; None means float32, and bfloat16 too where the hardware is fast at it.
        images_per_round: How many images take one turn.
        batch_size: Ours, see :class:`misure.models.compute.Compute`.
        progress: Show a progress bar.

    Returns:
        One row per method, contestant, precision, image (with the turn of its round) and run: seconds, masks (of RISE),
        the metrics, dilations, peak memory, operations, the processor's peak in that precision, and Pearson's
        correlation with the map of the method's first contestant; of RISE, with that of its own other run. The setting
        is repeated in every row.

    Raises:
        MisureError: On images that cannot be explained, or nobody to compare with.
    """
    images = check_images(images, model)
    if len(targets) != len(images):
        raise MisureError(f"{len(images)} images but {len(targets)} targets: pass one target per image")
    precisions = precisions or (("32", "bf16") if compute.is_fast_at_bfloat16(images.device) else ("32",))
    methods = list(dict.fromkeys(map(_compared_as, explainers.values())))
    contests = {name: _versions(name, explainers, plain_masks, precisions) for name in methods}
    contests = {name: versions for name, versions in contests.items() if versions[0].by}
    if not contests:
        raise MisureError(f"nobody to compare {', '.join(methods)} with is installed: pip install 'misure[bench]'")
    setting = _setting(model, images, batch_size) | {"methods": " ".join(methods)}
    process = psutil.Process()
    setting["load_before"], _ = os.getloadavg()[0], _others_share(process)
    peaks = {precision: peak_flops(images.device, precision) for precision in dict.fromkeys(("32", *precisions))}
    rows: list[dict[str, Any]] = []
    runs = {name: _RUNS.get(name, repeats) for name in contests}
    total = sum(len(versions) * runs[name] for name, versions in contests.items()) * len(images)
    bar = tqdm(total=total, disable=not progress, unit="image", desc="bench")
    with _as_literal_code_finds_it(model), quick_collection(), bar:
        for name, versions in contests.items():
            work = WorkOfPasses.count(model, images[0], targets[0], versions[0].explainer)
            for turn, start in enumerate(range(0, len(images), images_per_round)):
                part = slice(start, start + images_per_round)
                one = Round(model, images[part], targets[part], batch_size)
                if turn == 0:
                    one.warm_up(versions)
                flipped = [(turn + run) % 2 == 1 for run in range(runs[name])]
                for row in _rows_of(one, versions, flipped, work):
                    peak = {"method": name, "peak_flops": peaks[row["precision"]]}
                    rows.append(row | peak | {"image": row["image"] + start, "turn": turn})
                bar.update(len(one.images) * len(versions) * runs[name])
    return pd.DataFrame(rows).assign(**setting, load_after=os.getloadavg()[0], others_share=_others_share(process))


def _rows_of(
    one: Round, versions: Sequence[Version], flipped: Sequence[bool], work: WorkOfPasses
) -> Iterator[dict[str, Any]]:
    """Let all versions explain a round's images in every run, in their order or flipped, then measure their maps."""
    done: dict[tuple[int, int], Timed] = {}
    for run, backwards in enumerate(flipped):
        order = range(len(versions))
        for i in reversed(order) if backwards else order:
            done[i, run] = one.timed(versions[i].run(run))
    for (i, run), timed in sorted(done.items(), key=lambda entry: entry[0]):
        version = versions[i]
        beside = done[i, 1 - run] if isinstance(version.explainer, RISE) else done[0, run]
        for image, row in enumerate(one.rows(version, timed, beside, work)):
            yield row | {"ours": version.by is None, "image": image, "run": run}


def _versions(
    method: str, explainers: Mapping[str, Explainer], plain_masks: int, precisions: Sequence[str]
) -> list[Version]:
    """List a method's versions: the literal one, where there is one, the installed packages, and ours."""
    ours = {name: explainer for name, explainer in explainers.items() if _compared_as(explainer) == method}
    given = ours.get(method, next(iter(ours.values())).published())
    if isinstance(given, RISE):
        given = as_the_paper(given, plain_masks)
    others = {LITERAL: _LITERAL[method]} if method in _LITERAL else {}
    others |= {peer.name: peer.load() for peer in peers_of(method)}
    return [Version(name, "32", given, explain) for name, explain in others.items()] + [
        Version(OURS if name == method else f"{OURS} {name}", precision, explainer)
        for name, explainer in ours.items()
        for precision in precisions
    ]


def _compared_as(explainer: Explainer) -> str:
    """Name the method that others have: a variant of it is compared with them too."""
    names = [str(vars(cls)["name"]) for cls in type(explainer).__mro__ if "name" in vars(cls)]
    return next((name for name in names if name in _LITERAL or peers_of(name)), explainer.name)


def as_the_paper(rise: RISE, n_masks: int) -> RISE:
    """Return a RISE with plain masks, which are summed."""
    return replace(rise, n_masks=n_masks, antithetic=False, stratified=False, control_variate=None, tolerance=None)


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


def _setting(model: SegmentationModel, images: Tensor, batch_size: int | str) -> dict[str, Any]:
    return {
        "network": type(model.network).__name__,
        "height": images.shape[2],
        "width": images.shape[3],
        "batch_size": str(batch_size),
        "device": images.device.type,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }
