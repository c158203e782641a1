"""The ten-line use: ``misure.explain(model, image, target=..., method="msr")``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from numbers import Integral
from typing import Any

from torch import Tensor

from misure.compute import Compute
from misure.errors import MisureError
from misure.explainers import make_explainer
from misure.explainers.base import Explainer, check_images
from misure.model import SegmentationModel, frozen
from misure.progress import Watch
from misure.target import Target, make_targets

Network = SegmentationModel | Callable[[Tensor], Any]


def explain(
    model: Network,
    image: Tensor,
    target: int | str | Target | Sequence[Target] | None = None,
    method: str | Explainer = "msr",
    *,
    region: Tensor | None = None,
    precision: str = "auto",
    batch_size: int | str = "auto",
    winograd: bool | str = "auto",
    watch: Watch | None = None,
    **parameters: Any,
) -> Any:
    """Explain why a network segments an object in one image or a batch.

    Args:
        model: An ``nn.Module``, any callable that returns logits, or a :class:`SegmentationModel`. It is
            given back exactly as it was.
        image: float, C x H x W or N x C x H x W, normalised as the network expects.
        target: A class index or name, or ready targets; None where a single foreground class is predicted.
        method: A name from ``misure.EXPLAINERS`` or an explainer.
        region: bool, H x W or N x H x W: explain only this part of the predicted class.
        precision: ``"32"``, ``"bf16"`` or ``"auto"``.
        batch_size: Perturbed images per forward pass, or ``"auto"``.
        winograd: See :class:`misure.compute.Compute`.
        watch: Called between the method's steps with a :class:`misure.progress.Progress`; whatever it raises, such as
            :class:`misure.progress.CancelledError`, ends the explanation.
        **parameters: The method's parameters, such as ``lr`` and ``lam`` of MSR.

    Returns:
        One explanation for one image, a list of them for a batch.

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
    compute = Compute(precision, batch_size, winograd=winograd)
    single = isinstance(image, Tensor) and image.ndim == 3
    images = check_images(image[None] if single else image, wrapped)
    wanted: Any = int(target) if isinstance(target, Integral) else target  # NumPy's integers too
    if isinstance(wanted, Target):
        targets: Sequence[Target] = [wanted]
    elif wanted is None or isinstance(wanted, int | str):
        with frozen(wrapped, compute, images.device) as network:
            targets = make_targets(network, images, wanted, region)
    else:
        targets = wanted
    explanations = explainer.explain(wrapped, images, targets, compute, watch)
    return explanations[0] if single else explanations
