"""The ten-line use: ``misure.explain(model, image, target=..., method="msr")``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from misure.errors import MisureError
from misure.explainers import make_explainer
from misure.explainers.base import Explainer, check_images
from misure.models.compute import Compute
from misure.models.wrapper import FrozenNetwork, SegmentationModel, frozen
from misure.progress import Watch
from misure.target import Target, make_all_targets, make_targets
from misure.validation import check_arguments, plain, plain_tensor

EVERY_CLASS = "all"
"""The target that stands for every predicted foreground class."""

Network = SegmentationModel | Callable[[Tensor], Any]


def explain(
    model: Network,
    image: Tensor | NDArray[Any],
    target: Any = None,
    method: str | Explainer = "msr",
    *,
    region: Any = None,
    at: Any = None,
    border: int | None = None,
    precision: str = "auto",
    batch_size: int | str = "auto",
    allow_tf32: bool = False,
    fold: bool = True,
    channels_last: bool = True,
    watch: Watch | None = None,
    **parameters: Any,
) -> Any:
    """Explain why a network segments an object in one image or a batch.

    Args:
        model: An ``nn.Module``, any callable that returns logits, or a :class:`SegmentationModel`. It runs on copies of
            the images, in evaluation mode, and is given back exactly as it was; so is a module that a callable hides
            in its closure, object, arguments or globals. Of what is hidden elsewhere (a network that the callable
            loads, or one in another process) nothing is promised: it runs in the mode that it is in. A compiled
            network runs as what it was compiled from. One that stays random in evaluation mode is seeded by the
            method's ``seed``, with a warning.
        image: float, C x H x W or N x C x H x W, normalised as the network expects. A network whose first
            convolution is three-dimensional takes C x D x H x W or N x C x D x H x W. A NumPy array is copied.
        target: A class index (also a whole float, or a scalar of NumPy or PyTorch) or name, or for a batch a list or
            array of one for each image, or ready targets; None where a single foreground class is predicted, at
            ``at`` if that is given; ``"all"`` for every predicted foreground class.
        method: A name from ``misure.EXPLAINERS`` or an explainer.
        region: H x W, N x H x W or N x 1 x H x W, truth values or numbers (not 0 is inside), tensor or array: explain
            only this part of the predicted class, such as an instance's or one's own mask.
        at: A point (row, column) of whole numbers, or (slice, row, column) in a volume: explain only the connected
            component there (8 or 26 neighbours) of what ``region`` leaves.
        border: Explain only the inner rim of that many pixels of what ``region`` and ``at`` leave.
        precision: ``"32"``, ``"bf16"`` or ``"auto"``.
        batch_size: Perturbed images per forward pass, or ``"auto"``.
        allow_tf32: See :class:`misure.models.compute.Compute`.
        fold: Likewise.
        channels_last: Likewise; only a network that reckons with strides itself (``as_strided``) needs it false.
        watch: Called between the method's steps with a :class:`misure.progress.Progress`; whatever it raises, such as
            :class:`misure.progress.CancelledError`, ends the explanation.
        **parameters: The method's parameters, such as ``lr`` and ``lam`` of MSR.

    Returns:
        One explanation for one image, a list of them for a batch. With ``target="all"`` a list of explanations
        by ascending class for one image, a list of such lists for a batch.

    Raises:
        MisureError: On input that cannot be explained; the message says what to do.
    """
    check_arguments(explain, {"watch": watch})
    if isinstance(method, Explainer):
        if parameters:
            raise MisureError(f"{', '.join(parameters)} given beside a ready explainer: set them when making it")
        explainer = method
    else:
        explainer = make_explainer(method, **parameters)
    wrapped = SegmentationModel.of(model)
    compute = Compute(precision, batch_size, allow_tf32, channels_last, fold)
    given = plain_tensor("the image", image)
    single = given.ndim == (4 if wrapped.image_axes == 3 else 3)
    images = check_images(given[None] if single else given, wrapped)
    target = plain(target)
    every = isinstance(target, str) and target == EVERY_CLASS
    ready = _ready_targets(target)
    if not ready:
        with frozen(wrapped, compute, images.device, seed=explainer.seed) as network:
            groups = _chosen_targets(network, images, target, region=region, at=at, border=border)
    elif region is None and at is None and border is None:
        groups = [[one] for one in ready]
    else:
        raise MisureError("region, at or border given beside a ready target: set them when making it")
    if every:
        counts = torch.tensor([len(group) for group in groups], device=images.device)
        images = images.repeat_interleave(counts, 0)
    done = iter(explainer.explain(wrapped, images, [one for group in groups for one in group], compute, watch))
    explanations = [[next(done) for _ in group] for group in groups]
    results = explanations if every else [one for (one,) in explanations]
    return results[0] if single else results


def _ready_targets(target: Any) -> list[Target]:
    """Return what is ready of it: one target, all of a list, or nothing."""
    each = [target] if isinstance(target, Target) else target if isinstance(target, list | tuple) else []
    ready = [one for one in each if isinstance(one, Target)]
    if ready and len(ready) != len(each):
        raise MisureError("target mixes ready targets with others: make all of them, or none")
    return ready


def _chosen_targets(
    network: FrozenNetwork, images: Tensor, target: Any, *, region: Any, at: Any, border: int | None
) -> list[list[Target]]:
    """Return the targets of every image."""
    if not (isinstance(target, str) and target == EVERY_CLASS):
        return [[one] for one in make_targets(network, images, target, region, at=at, border=border)]
    if at is not None:
        raise MisureError("target='all' means every class, at=... one object: give one of them")
    return make_all_targets(network, images, region, border=border)
