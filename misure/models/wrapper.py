"""A segmentation network seen as images to logits, and lent for explanation in evaluation mode."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from fnmatch import fnmatchcase
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from misure.errors import MisureError
from misure.models import fusion
from misure.models.compute import (
    Batches,
    Compute,
    Precision,
    PrecisionChoice,
    automatic_batch_size,
    choose_precision,
    joined,
    seconds_of,
    setting_of,
)
from misure.models.layers import Layer, activation_bytes, find_layer, list_layers, suggest
from misure.models.lending import lent
from misure.models.logits import to_logits
from misure.progress import Progress, Watch

Reshape = Callable[[Tensor], Tensor]
"""Turns a layer's tokens (N x T x C) into a feature map (N x C x H x W)."""

_Result = TypeVar("_Result")

_TIMED_TOGETHER = {"cuda": 8}
"""Images of the pass that is timed to choose the precision: on a GPU a single one would be bound by launches."""

_UNKNOWN_ACTIVATIONS = 400
"""Activations per input value assumed where no layer can be watched (a VGG-16 U-Net has about 350)."""


class SegmentationModel:
    """Any segmentation network seen as ``images -> logits``.

    Accepts a network that returns a tensor, a dict with ``out`` or ``logits``, an object with
    ``.logits`` or a sequence whose first entry is one of these. Logits smaller than the image are
    upsampled bilinearly, those of volumes trilinearly. A one-channel (sigmoid) head ``z`` becomes
    the two logits ``(0, z)``, whose softmax is exactly the sigmoid, unless the head is multi-label.

    Args:
        network: An ``nn.Module`` or any callable; inputs are N x C x H x W or N x C x D x H x W.
        bottleneck: Name of the layer that CAM methods use unless told otherwise.
        reshape: Turns that layer's tokens into a feature map, for transformers.
        class_names: Names by class index.
        in_channels: Number of image channels, checked when given.
        mean: Per-channel mean that was subtracted from images in [0, 1].
        std: Per-channel divisor applied after that.
        multi_label: Each logit channel is a yes or no of its own: a class is predicted where its logit
            exceeds 0, classes overlap, there is no background channel, and a single channel stays one.
        differentiable: Whether gradients flow from the logits to the images.
        title: What messages call the network; by default the name of its class or function.
    """

    def __init__(
        self,
        network: Callable[[Tensor], Any],
        *,
        bottleneck: str | None = None,
        reshape: Reshape | None = None,
        class_names: Sequence[str] | None = None,
        in_channels: int | None = None,
        mean: Sequence[float] = (0.0,),
        std: Sequence[float] = (1.0,),
        multi_label: bool = False,
        differentiable: bool = True,
        title: str | None = None,
    ) -> None:
        self.network = network
        self.bottleneck = bottleneck
        self.reshape = reshape
        self.class_names = tuple(class_names) if class_names else None
        self.in_channels = in_channels
        self.mean = tuple(mean)
        self.std = tuple(std)
        self.multi_label = multi_label
        self.differentiable = differentiable
        self.title = title or str(getattr(network, "__name__", type(network).__name__))
        self.activation_bytes: dict[torch.Size, int] = {}  # by image shape, measured when first needed
        self.precision_choices: dict[tuple[Any, ...], PrecisionChoice] = {}  # likewise

    @classmethod
    def of(cls, network: SegmentationModel | Callable[[Tensor], Any]) -> SegmentationModel:
        """Wrap a network unless it is wrapped already."""
        return network if isinstance(network, SegmentationModel) else cls(network)

    @property
    def module(self) -> nn.Module | None:
        """The network as a module, or None for a plain callable."""
        return self.network if isinstance(self.network, nn.Module) else None

    @property
    def device(self) -> torch.device | None:
        """The device of the network's parameters, or None if it has none."""
        parameter = next(self.module.parameters(), None) if self.module else None
        return None if parameter is None else parameter.device

    @property
    def dtype(self) -> torch.dtype | None:
        """The floating type of the network's parameters, or None if it has none."""
        parameters = self.module.parameters() if self.module else iter(())
        return next((p.dtype for p in parameters if p.is_floating_point()), None)

    def class_label(self, class_id: int) -> str:
        """Return a class's name, or ``class_<number>`` where it has none."""
        names = self.class_names or ()
        return names[class_id] if class_id < len(names) else f"class_{class_id}"

    def to(self, device: torch.device) -> SegmentationModel:
        """Move the network, if it is a module, and return the model."""
        if self.module is not None:
            self.module.to(device)
        return self

    def __call__(self, images: Tensor) -> Tensor:
        """Return logits N x L x spatial for images N x C x spatial; L >= 2 unless the head is multi-label."""
        return to_logits(self.network(images), images, multi_label=self.multi_label)

    def layer(self, name: str | None = None) -> nn.Module:
        """Find a layer by its dotted name or a pattern (see :func:`misure.models.layers.find_layer`).

        Args:
            name: The layer, or None for the bottleneck.

        Raises:
            MisureError: If the network is no module, no name is known, or not one layer has it.
        """
        name = name or self.bottleneck
        module = self._module_with_layers()
        if name is None:
            raise MisureError("no layer is named: pass layer=..., such as model.suggest_bottleneck(image)")
        return find_layer(module, name)

    def layers(self, image: Tensor, pattern: str = "*") -> list[Layer]:
        """List the layers whose name fits a pattern, with what each gives for an image (C x spatial), in forward order.

        Raises:
            MisureError: If the network is no module.
        """
        module = self._module_with_layers()
        image = image.to(self.device or image.device, self.dtype or image.dtype)
        with lent(module, Compute("32", channels_last=False), image.device):
            listed = list_layers(module, lambda: self(image[None]))
        return [layer for layer in listed if fnmatchcase(layer.name, pattern)]

    def suggest_bottleneck(self, image: Tensor) -> str:
        """Name the end of the encoder for an image, C x spatial by :func:`misure.models.layers.suggest`.

        Raises:
            MisureError: If no layer gives feature maps.
        """
        name = suggest(self.layers(image), image.shape[1:])
        if name is None:
            raise MisureError(
                f"no layer of {self.title} gives feature maps: name one and give SegmentationModel(reshape=)"
            )
        return name

    def _module_with_layers(self) -> nn.Module:
        if self.module is None:
            raise MisureError(f"{self.title} is a plain callable, not an nn.Module, so it has no layers to explain at")
        return self.module


class FrozenNetwork:
    """A network lent for explanation: evaluation mode, no parameter gradients, chosen precision.

    Made by :func:`frozen`. Calling it returns float32 logits (float64 for float64 images). With ``precision="auto"``
    on hardware that is fast at bfloat16, the first call times a pass each way; the model keeps the result for all
    images of that size.
    """

    def __init__(
        self, model: SegmentationModel, compute: Compute, device: torch.device, watch: Watch | None = None
    ) -> None:
        self.model = model
        self.compute = compute
        self.device = device
        self.watch = watch
        self._choice = choose_precision(compute, device)
        self._batches: Batches | None = None

    @property
    def precision(self) -> Precision | None:
        """The precision of the passes; None until the first of them where it has to be measured."""
        return self._choice.precision if self._choice else None

    def settle(self, image: Tensor) -> PrecisionChoice:
        """Choose the precision for images like this one (C x spatial), unless it is chosen."""
        if self._choice is None:
            choices, key = self.model.precision_choices, (image.shape, self.device, self.compute.allow_tf32)
            if key not in choices:
                choice = choose_precision(self.compute, self.device, partial(self._seconds_of_a_pass, image))
                assert choice is not None  # noqa: S101 - there is something to measure with
                choices[key] = choice
            self._choice = choices[key]
        return self._choice

    @torch.no_grad()
    def _seconds_of_a_pass(self, image: Tensor, precision: Precision) -> float:
        images = image.expand(_TIMED_TOGETHER.get(image.device.type, 1), *image.shape)
        network = FrozenNetwork(self.model, replace(self.compute, precision=setting_of(precision)), self.device)
        return seconds_of(lambda: network(images), self.device)

    def __call__(self, images: Tensor) -> Tensor:
        """Return logits, N x L x H x W, of the images' type."""
        if self.compute.channels_last and images.ndim == 4:
            images = images.contiguous(memory_format=torch.channels_last)
        lowered = images.dtype == torch.float32 and self.settle(images[0]).precision == "bf16"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=lowered):
            logits = self.model(images)
        return logits.to(images.dtype)

    def tell(
        self, stage: str, done: int, total: int | None = None, masks: Tensor | None = None, start: int = 0
    ) -> None:
        """Let the watcher, if there is one, see a step (see :class:`misure.progress.Progress`)."""
        if self.watch is not None:
            self.watch(Progress(stage, done, total, masks, start))

    @contextmanager
    def folded(self, image: Tensor) -> Iterator[None]:
        """Fold batch normalisation into the convolutions before it, for many passes.

        Only for methods that watch no layer, since a folded convolution's output is the normalisation's. Nothing is
        folded in bfloat16, which would round what folding moves, nor with ``Compute(fold=False)``.

        Args:
            image: One like those that follow, C x spatial.
        """
        module = self.model.module
        if module is None or not self.compute.fold or self.settle(image).precision == "bf16":
            yield
            return
        with fusion.folded(fusion.foldable_layers(module, lambda: self(image[None]))):
            yield

    @torch.no_grad()
    def predict(self, images: Tensor) -> Tensor:
        """Return the predicted class of every pixel, N x H x W."""
        return self(images).argmax(1)

    def map(
        self, work: Callable[[slice], _Result], n_items: int, image: Tensor, *, stage: str | None = None
    ) -> _Result:
        """Do some work in batches that fit into the memory, and join the results along their first axis.

        Args:
            work: Computes the items of a slice of ``range(n_items)``: a tensor or a list with one entry an item, or a
                tuple of these. It must not change state outside itself.
            n_items: How many items there are, at least 1.
            image: One like those that the work passes through the network, C x spatial.
            stage: What the watcher is told after each batch.

        Raises:
            MisureError: If a single item does not fit.
        """
        results = []
        for part, result in self.batches(image).attempt(work, n_items):
            results.append(result)
            if stage is not None:
                self.tell(stage, part.stop, n_items)
        return joined(results)

    def batches(self, image: Tensor) -> Batches:
        """Return the batch cutter, sized on first use for images like this one (C x H x W)."""
        if self._batches is None:
            size = self.compute.batch_size
            if size == "auto":
                measured = self.model.activation_bytes
                if image.shape not in measured:
                    measured[image.shape] = self._activation_bytes(image)
                size = automatic_batch_size(self.device, measured[image.shape])
            self._batches = Batches(int(size))
        return self._batches

    def _activation_bytes(self, image: Tensor) -> int:
        """Measure what a forward and backward pass of one image keeps, or assume it where nothing can be watched."""
        module = self.model.module
        measured = 0 if module is None else activation_bytes(module, lambda: self(image[None]))
        return 2 * measured or image.numel() * image.element_size() * _UNKNOWN_ACTIVATIONS


@contextmanager
def frozen(
    model: SegmentationModel, compute: Compute, device: torch.device, watch: Watch | None = None
) -> Iterator[FrozenNetwork]:
    """Lend a network for explanation and give it back exactly as it was, by :func:`misure.models.lending.lent`.

    Args:
        model: The adapted network.
        compute: Precision and batch size.
        device: Where the images are.
        watch: Sees every step of the explanation and can stop it.
    """
    with lent(model.module, compute, device):
        yield FrozenNetwork(model, compute, device, watch)
