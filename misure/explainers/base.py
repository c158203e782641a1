"""The base class of explainers: checked input, frozen network, timing, evaluation."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor, nn

from misure.errors import MisureError
from misure.explanation import Explanation
from misure.metrics import Blanking, BlankingKind, Evaluation, evaluate, min_max
from misure.models.compute import Compute, now
from misure.models.wrapper import FrozenNetwork, SegmentationModel, frozen
from misure.progress import Watch
from misure.target import Target, TargetBatch
from misure.validation import AtLeast, Share, Whole, check_fields


@dataclass(frozen=True)
class SaliencyMaps:
    """Raw result of a method for N images.

    Sizes are H x W here; in a volume, D x H x W.

    Attributes:
        saliency: float, N x H x W.
        sufficient_region: bool, N x H x W, or None.
        n_dilations: int64, N, or None.
        curves: Loss per iteration, iterations x N, or None.
    """

    saliency: Tensor
    sufficient_region: Tensor | None = None
    n_dilations: Tensor | None = None
    curves: Tensor | None = None

    def of_image(self, i: int) -> dict[str, Any]:
        """Return one image's share as fields of an explanation, on the CPU."""
        return {
            "saliency": self.saliency[i].cpu(),
            "sufficient_region": None if self.sufficient_region is None else self.sufficient_region[i].cpu(),
            "n_dilations": None if self.n_dilations is None else int(self.n_dilations[i]),
            "curve": () if self.curves is None else tuple(self.curves[:, i].tolist()),
        }


@dataclass(frozen=True, kw_only=True)
class Explainer(ABC):
    """A method and its parameters. Subclasses implement :meth:`saliency_maps`.

    Attributes:
        needs_gradients: Whether the method differentiates the network (a class attribute).
        needs_layer: Whether it looks at a layer inside the network (a class attribute).
        thresholds: Where the min-max scaled map is cut for evaluation; an empty tuple means that the
            map itself, within [0, 1], is the mask.
        blanking: What a switched-off pixel becomes, see :class:`misure.metrics.Blanking`.
        blur_sigma: Standard deviation for ``blanking="blur"``, in pixels.
        seed: Key of everything random.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    needs_gradients: ClassVar[bool] = False
    needs_layer: ClassVar[bool] = False

    thresholds: tuple[Share, ...] = ()
    blanking: BlankingKind = "zero"
    blur_sigma: Annotated[float, AtLeast(0.1)] = 10.0
    seed: Annotated[int, Whole(0)] = 0

    def __post_init__(self) -> None:
        check_fields(self, {"lam": "lambda"})  # the configuration's word, which Python reserves
        object.__setattr__(self, "thresholds", tuple(self.thresholds))

    @classmethod
    def parameter_names(cls) -> tuple[str, ...]:
        """Names of the constructor's parameters."""
        return tuple(f.name for f in fields(cls))

    @property
    def parameters(self) -> dict[str, Any]:
        """The parameters as plain values."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @property
    def fill(self) -> Blanking:
        """What switched-off pixels become."""
        return Blanking(self.blanking, self.blur_sigma)

    @property
    def passes(self) -> tuple[int, int]:
        """Typical cost per image: forward passes, and forward passes followed by a gradient."""
        return (0, 0)

    @abstractmethod
    def saliency_maps(self, network: FrozenNetwork, images: Tensor, targets: TargetBatch) -> SaliencyMaps:
        """Compute raw maps for a batch; the result must not depend on how images are batched."""

    def explain(
        self,
        model: SegmentationModel,
        images: Tensor,
        targets: Sequence[Target],
        compute: Compute | None = None,
        watch: Watch | None = None,
    ) -> list[Explanation]:
        """Explain a batch of images.

        Args:
            model: The adapted network; it is given back exactly as it was.
            images: float, N x C x H x W or N x C x D x H x W, in the network's input space.
            targets: One per image.
            compute: Precision and batch size.
            watch: Called between the method's steps; what it raises ends the explanation.

        Returns:
            One explanation per image.

        Raises:
            MisureError: On images that no network can be explained on (see :func:`check_images`), and where the
                method needs gradients that the network does not give.
        """
        self._check_gradients(model)
        images = check_images(images, model)
        if len(targets) != len(images):
            raise MisureError(f"{len(images)} images but {len(targets)} targets: pass one target per image")
        if any(target.region.shape != images.shape[2:] for target in targets):
            raise MisureError(f"a target was made for another image size than {tuple(images.shape[2:])}: make it anew")
        if any(target.multi_label != model.multi_label for target in targets):
            raise MisureError("a target was made for another kind of head (softmax or multi-label): make it anew")
        with frozen(model, compute or Compute(), images.device, watch) as network:
            network.settle(images[0])
            network.batches(images[0])
            batch = TargetBatch.stack(targets, images.device)
            network.tell("explaining", 0)
            started = now(images.device)
            maps = self.saliency_maps(network, images, batch)
            seconds = (now(images.device) - started) / len(images)
            network.tell("evaluating", 0, masks=maps.saliency)
            if not bool(maps.saliency.isfinite().all()):
                raise MisureError(f"{self.name} gave a map that is not finite: the network returned NaN or infinity")
            evaluations = [self._evaluate(network, images, batch, maps, t) for t in self.thresholds or (None,)]
            shared: dict[str, Any] = {
                "method": self.name,
                "parameters": self.parameters,
                "seconds": seconds,
                "batch_size": len(images),
                "precision": network.settle(images[0]).precision,
            }
        return [
            Explanation(
                image=images[i].cpu(),
                target=target.cpu(),
                evaluations=tuple(rows[i] for rows in evaluations),
                **maps.of_image(i),
                **shared,
            )
            for i, target in enumerate(targets)
        ]

    def _check_gradients(self, model: SegmentationModel) -> None:
        if self.needs_gradients and not model.differentiable:
            others = ", ".join(method.name for method in methods() if not method.needs_gradients)
            raise MisureError(
                f"{model.title} gives no gradients, and {self.name} needs them: choose another method, out of {others}"
            )

    def _evaluate(
        self, network: FrozenNetwork, images: Tensor, batch: TargetBatch, maps: SaliencyMaps, threshold: float | None
    ) -> list[Evaluation]:
        masks = maps.saliency if threshold is None else (min_max(maps.saliency) > threshold).to(images.dtype)
        return evaluate(
            network,
            images,
            batch,
            masks,
            threshold=threshold,
            support=maps.sufficient_region,
            blanking=self.fill,
        )


def methods() -> Iterator[type[Explainer]]:
    """Yield the classes imported so far that are methods of their own: those that give themselves a name."""
    left = Explainer.__subclasses__()
    while left:
        subclass = left.pop(0)
        if "name" in vars(subclass):
            yield subclass
        left = subclass.__subclasses__() + left


def check_images(images: Tensor, model: SegmentationModel) -> Tensor:
    """Return a batch of valid images on the network's device and in its floating type.

    Raises:
        MisureError: On a wrong rank, type or channel count, and on NaN or infinite pixels.
    """
    if not isinstance(images, Tensor) or images.ndim not in {4, 5} or not images.numel():
        shape = tuple(images.shape) if isinstance(images, Tensor) else type(images).__name__
        raise MisureError(
            f"images have shape {shape}: expected N x C x H x W (or C x H x W for one image), volumes N x C x D x H x W"
        )
    if not images.is_floating_point():
        raise MisureError(f"images have type {images.dtype}: convert and normalise them as for the network's training")
    if model.in_channels is not None and images.shape[1] != model.in_channels:
        raise MisureError(f"images have {images.shape[1]} channels, the network takes {model.in_channels}")
    if not bool(images.isfinite().all()):
        bad = (~images.isfinite()).flatten(1).any(1).nonzero().flatten().tolist()
        raise MisureError(f"image {bad[0]} of the batch has NaN or infinite pixels: clean it before explaining")
    with torch.inference_mode(mode=False):
        images = images.clone() if images.is_inference() else images
    return images.detach().to(model.device or images.device, model.dtype or images.dtype)


def takes_volumes(model: SegmentationModel) -> bool:
    """Say whether a network's first convolution is three-dimensional, so that one image is C x D x H x W."""
    modules = model.module.modules() if model.module is not None else iter(())
    first = next((m for m in modules if isinstance(m, nn.Conv2d | nn.Conv3d)), None)
    return isinstance(first, nn.Conv3d)
