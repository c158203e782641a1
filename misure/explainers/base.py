"""The base class of explainers: checked input, frozen network, timing, evaluation."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import chain
from typing import Annotated, Any, ClassVar, Self

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from misure.errors import MisureError
from misure.explanation import Explanation
from misure.metrics import Blanking, BlankingKind, Evaluation, evaluate, min_max
from misure.models.compute import Compute, now
from misure.models.half import counted_in, is_half
from misure.models.wrapper import FrozenNetwork, SegmentationModel, frozen
from misure.progress import Watch
from misure.target import Target, TargetBatch
from misure.validation import (
    AtLeast,
    Share,
    Whole,
    check_arguments,
    check_fields,
    check_memory,
    is_real,
    plain,
    plain_tensor,
)

_DIGITS = 0.01
"""Pixels: of a scale four digits are written, so that 224 times 0.2857 is 64."""


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
            "saliency": of_its_own(self.saliency[i]),
            "sufficient_region": None if self.sufficient_region is None else of_its_own(self.sufficient_region[i]),
            "n_dilations": None if self.n_dilations is None else int(self.n_dilations[i]),
            "curve": () if self.curves is None else tuple(self.curves[:, i].tolist()),
        }


def of_its_own(tensor: Tensor) -> Tensor:
    """Copy a tensor to the CPU, without the rest of what it is a part of."""
    return tensor.detach().cpu().clone(memory_format=torch.contiguous_format)


@dataclass(frozen=True, kw_only=True)
class Explainer(ABC):
    """A method and its parameters. Subclasses implement :meth:`saliency_maps`.

    Attributes:
        needs_gradients: Whether the method differentiates the network (a class attribute).
        needs_layer: Whether it looks at a layer inside the network (a class attribute).
        in_pixels: Names of the parameters that are lengths in pixels (a class attribute).
        map_is_mask: Whether the map says how much of each pixel is kept, 0 to 1 (a class attribute).
        thresholds: Where the min-max scaled map is cut for evaluation; an empty tuple means that the
            map itself, within [0, 1], is the mask. One that is no mask is min-max scaled for that too.
        blanking: What a switched-off pixel becomes, see :class:`misure.metrics.Blanking`.
        blur_sigma: Standard deviation for ``blanking="blur"``, in pixels.
        seed: Key of everything random.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    needs_gradients: ClassVar[bool] = False
    needs_layer: ClassVar[bool] = False
    in_pixels: ClassVar[tuple[str, ...]] = ("blur_sigma",)
    map_is_mask: ClassVar[bool] = True

    thresholds: tuple[Share, ...] = ()
    blanking: BlankingKind = "zero"
    blur_sigma: Annotated[float, AtLeast(0.1)] = 10.0
    seed: Annotated[int, Whole(0)] = 0

    def __post_init__(self) -> None:
        for name in self.parameter_names():
            object.__setattr__(self, name, plain(getattr(self, name)))
        check_fields(self, {"lam": "lambda"})  # the configuration's word, which Python reserves
        object.__setattr__(self, "thresholds", tuple(plain(threshold) for threshold in self.thresholds))

    @classmethod
    def parameter_names(cls) -> tuple[str, ...]:
        """Names of the constructor's parameters."""
        return tuple(f.name for f in fields(cls))

    @property
    def parameters(self) -> dict[str, Any]:
        """The parameters as plain values."""
        values = {name: getattr(self, name) for name in self.parameter_names()}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}

    @classmethod
    def published(cls) -> Self:
        """Make the method as its paper has it; the defaults may be better ones."""
        return cls()

    def at_scale(self, scale: float) -> Self:
        """Return the method for reduced images: lengths in pixels shrink with them, whole ones down, to at least 1.

        Whole are those whose default is.

        Args:
            scale: Side of the images as a share of the side that the lengths were chosen for, above 0.
        """
        given: dict[str, Any] = {name: getattr(self, name) for name in self.in_pixels}
        if scale == 1:
            return self
        whole = {name for name, value in given.items() if isinstance(getattr(type(self), name, value), int)}
        shrunk: dict[str, Any] = {
            name: min(value, max(1, int(value * scale + _DIGITS))) if name in whole else value * scale
            for name, value in given.items()
        }
        return replace(self, **shrunk)

    @property
    def fill(self) -> Blanking:
        """What switched-off pixels become."""
        return Blanking(self.blanking, self.blur_sigma)

    @property
    def passes(self) -> tuple[int, int]:
        """Typical cost per image: forward passes, and forward passes followed by a gradient."""
        return (0, 0)

    def values_held(self, image: Tensor) -> Mapping[str, int]:  # noqa: ARG002
        """Estimate how many values a method holds for one image (C x spatial), by the parameter that asks for them."""
        return {}

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
                method needs gradients that the network does not give; what the network raises is one line.
        """
        model = SegmentationModel.of(model)
        check_arguments(Explainer.explain, {"targets": targets, "compute": compute, "watch": watch})
        self._check_gradients(model)
        images = check_images(images, model)
        images = images.to(counted_in(images.dtype))
        if len(targets) != len(images):
            raise MisureError(f"{len(images)} images but {len(targets)} targets: pass one target per image")
        if any(target.region.shape != images.shape[2:] for target in targets):
            raise MisureError(f"a target was made for another image size than {tuple(images.shape[2:])}: make it anew")
        if any(target.multi_label != model.multi_label for target in targets):
            raise MisureError("a target was made for another kind of head (softmax or multi-label): make it anew")
        for name, n_values in self.values_held(images[0]).items():
            check_memory(name, getattr(self, name), n_values * images.element_size())
        with (
            frozen(model, compute or Compute(), images.device, watch, self.seed) as network,
            network.working_for(self.name),
        ):
            if model.output.kind == "auto":  # ready targets were not predicted by this model
                network.map(lambda part: [network(images[part], unperturbed=True)], len(images), images[0])
            network.settle(images[0])
            network.batches(images[0])
            batch = TargetBatch.stack(targets, images.device)
            batch = replace(batch, references=batch.references.to(images.dtype))
            network.tell("explaining", 0)
            started = now(images.device)
            maps = self.saliency_maps(network, images, batch)
            seconds = (now(images.device) - started + network.seconds_recalled) / len(images)
            network.tell("evaluating", 0, masks=maps.saliency)
            if not bool(maps.saliency.isfinite().all()):
                raise MisureError(f"{self.name} gave a map that is not finite: logits or gradients are NaN or infinity")
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
                image=of_its_own(images[i]),
                target=target.cpu(),
                evaluations=tuple(rows[i] for rows in evaluations),
                **maps.of_image(i),
                **shared,
            )
            for i, target in enumerate(targets)
        ]

    @classmethod
    def as_mask(cls, maps: Tensor) -> Tensor:
        """Return what maps (N x spatial) keep of each pixel where no threshold cuts them, 0 to 1."""
        return maps if cls.map_is_mask else min_max(maps)

    def _check_gradients(self, model: SegmentationModel) -> None:
        if self.needs_gradients and not model.differentiable:
            others = ", ".join(method.name for method in methods() if not method.needs_gradients)
            raise MisureError(
                f"{model.title} gives no gradients, and {self.name} needs them: choose another method, out of {others}"
            )

    def _evaluate(
        self, network: FrozenNetwork, images: Tensor, batch: TargetBatch, maps: SaliencyMaps, threshold: float | None
    ) -> list[Evaluation]:
        masks = self.as_mask(maps.saliency) if threshold is None else min_max(maps.saliency) > threshold
        return evaluate(
            network,
            images,
            batch,
            masks.to(images.dtype),
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


_COLOURS = (1, 3, 4)
"""Channels of pictures: grey, colours, colours with transparency."""


def check_images(images: Tensor | NDArray[Any], model: SegmentationModel) -> Tensor:
    """Return a batch of valid images on the network's device and in its floating type, but at least float32.

    Half-precision images for a network without parameters stay what they are: they say what it computes in.

    Raises:
        MisureError: On what is no tensor or array, a wrong rank, type or channel count, channels that come last, and
            NaN or infinite pixels.
    """
    given = plain_tensor("the image", images)
    _check_layout(given, model)
    if not bool(given.isfinite().all()):
        bad = (~given.isfinite()).flatten(1).any(1).nonzero().flatten().tolist()
        raise MisureError(f"image {bad[0]} of the batch has NaN or infinite pixels: clean it before explaining")
    with torch.inference_mode(mode=False):
        own = given.clone() if given.is_inference() else given
    model.given_type = None
    if is_half(own.dtype) and model.dtype is None:
        model.given_type = own.dtype
        return own.detach()
    return own.detach().to(model.device or own.device, counted_in(model.dtype or own.dtype))


def _check_layout(images: Tensor, model: SegmentationModel) -> None:
    if images.ndim not in {4, 5} or not images.numel():
        raise MisureError(
            f"images have shape {tuple(images.shape)}: expected N x C x H x W (or C x H x W for one image), volumes "
            "N x C x D x H x W"
        )
    if not is_real(images):
        raise MisureError(
            f"images have type {images.dtype}: convert and normalise them as for the network's training (bytes: "
            "image / 255, then mean and standard deviation)"
        )
    wanted, found = model.in_channels or _first_channels(model), images.shape[1]
    if found != wanted and images.shape[-1] in _COLOURS and min(images.shape[1:-1]) > max(_COLOURS):
        raise MisureError(
            f"images have shape {tuple(images.shape)}, channels last: move them before the sides, as in C x H x W "
            "(numpy.moveaxis(image, -1, 0), image.movedim(-1, 0))"
        )
    if model.in_channels is not None and found != wanted:
        raise MisureError(f"images have {found} channels, the network takes {wanted}")
    if (normalised := max(len(model.mean), len(model.std))) not in {1, found}:
        raise MisureError(f"images have {found} channels, the network's mean and std are for {normalised}")


def _first_channels(model: SegmentationModel) -> int | None:
    first = _first_convolution(model)
    return None if first is None else first.in_channels


def _first_convolution(model: SegmentationModel) -> nn.Conv2d | nn.Conv3d | None:
    layers = chain.from_iterable(module.modules() for module in model.modules)
    return next((m for m in layers if isinstance(m, nn.Conv2d | nn.Conv3d)), None)
