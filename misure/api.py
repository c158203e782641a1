"""The ten-line use: ``misure.explain(model, image, target=..., method="msr")``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from numbers import Integral
from typing import Any

import torch
from torch import Tensor

from misure.errors import MisureError
from misure.explainers import make_explainer
from misure.explainers.base import Explainer, check_images, takes_volumes
from misure.models.compute import Compute
from misure.models.wrapper import FrozenNetwork, SegmentationModel, frozen
from misure.progress import Watch
from misure.target import Target, make_all_targets, make_targets

EVERY_CLASS = "all"
"""The target that stands for every predicted foreground class."""

Network = SegmentationModel | Callable[[Tensor], Any]


def explain(
    model: Network,
    image: Tensor,
    target: int | str | Target | Sequence[Target] | None = None,
    method: str | Explainer = "msr",
    *,
    region: Tensor | None = None,
    at: Sequence[int] | None = None,
    border: int | None = None,
    precision: str = "auto",
    batch_size: int | str = "auto",
    allow_tf32: bool = False,
    fold: bool = True,
    watch: Watch | None = None,
    **parameters: Any,
) -> Any:
    """Explain why a network segments an object in one image or a batch.

    Args:
        model: An ``nn.Module``, any callable that returns logits, or a :class:`SegmentationModel`. It is
            given back exactly as it was.
        image: float, C x H x W or N x C x H x W, normalised as the network expects. A network whose first
            convolution is three-dimensional takes C x D x H x W or N x C x D x H x W.
        target: A class index or name, or ready targets; None where a single foreground class is predicted, at
            ``at`` if that is given; ``"all"`` for every predicted foreground class.
        method: A name from ``misure.EXPLAINERS`` or an explainer.
        region: bool, H x W or N x H x W: explain only this part of the predicted class, such as an instance's
            or one's own mask.
        at: A point (row, column), or (slice, row, column) in a volume: explain only the connected component there
            (8 or 26 neighbours) of what ``region`` leaves.
        border: Explain only the inner rim of that many pixels of what ``region`` and ``at`` leave.
        precision: ``"32"``, ``"bf16"`` or ``"auto"``.
        batch_size: Perturbed images per forward pass, or ``"auto"``.
        allow_tf32: See :class:`misure.models.compute.Compute`.
        fold: Likewise.
        watch: Called between the method's steps with a :class:`misure.progress.Progress`; whatever it raises, such as
            :class:`misure.progress.CancelledError`, ends the explanation.
        **parameters: The method's parameters, such as ``lr`` and ``lam`` of MSR.

    Returns:
        One explanation for one image, a list of them for a batch. With ``target="all"`` a list of explanations
        by ascending class for one image, a list of such lists for a batch.

    Raises:
        MisureError: On input that cannot be explained; the message says what to do.
    """
    if isinstance(method, Explainer):
        if parameters:
            raise MisureError(f"{', '.join(parameters)} given beside a ready explainer: set them when making it")
        explainer = method
    else:
        explainer = make_explainer(method, **parameters)
    wrapped = SegmentationModel.of(model)
    compute = Compute(precision, batch_size, allow_tf32, fold=fold)
    single = isinstance(image, Tensor) and image.ndim == (4 if takes_volumes(wrapped) else 3)
    images = check_images(image[None] if single else image, wrapped)
    wanted: Any = int(target) if isinstance(target, Integral) else target  # NumPy's integers too
    if wanted is None or isinstance(wanted, int | str):
        with frozen(wrapped, compute, images.device) as network:
            groups = _chosen_targets(network, images, wanted, region=region, at=at, border=border)
    elif region is None and at is None and border is None:
        groups = [[one] for one in ([wanted] if isinstance(wanted, Target) else wanted)]
    else:
        raise MisureError("region, at or border given beside a ready target: set them when making it")
    if target == EVERY_CLASS:
        counts = torch.tensor([len(group) for group in groups], device=images.device)
        images = images.repeat_interleave(counts, 0)
    done = iter(explainer.explain(wrapped, images, [one for group in groups for one in group], compute, watch))
    explanations = [[next(done) for _ in group] for group in groups]
    results = explanations if target == EVERY_CLASS else [one for (one,) in explanations]
    return results[0] if single else results


def _chosen_targets(
    network: FrozenNetwork,
    images: Tensor,
    target: int | str | None,
    *,
    region: Tensor | None,
    at: Sequence[int] | None,
    border: int | None,
) -> list[list[Target]]:
    """Return the targets of every image."""
    if target != EVERY_CLASS:
        return [[one] for one in make_targets(network, images, target, region, at=at, border=border)]
    if at is not None:
        raise MisureError("target='all' means every class, at=... one object: give one of them")
    return make_all_targets(network, images, region, border=border)
