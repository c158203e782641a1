"""The adapter: whatever a network returns becomes logits, and it comes back exactly as it was lent."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from misure.errors import MisureError
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
    tf32,
)
from misure.models.fusion import folded, pairs
from misure.models.layers import Layer, activation_bytes, find_layer, list_layers, suggest
from misure.models.winograd import pays_off, winograd
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
        """Where the network's parameters live, or None if it has none."""
        parameter = next(self.module.parameters(), None) if self.module else None
        return None if parameter is None else parameter.device

    @property
    def dtype(self) -> torch.dtype | None:
        """The floating type of the network's parameters, or None if it has none."""
        parameters = self.module.parameters() if self.module else iter(())
        return next((p.dtype for p in parameters if p.is_floating_point()), None)

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
        with frozen(self, Compute("32"), image.device) as network:
            listed = list_layers(module, lambda: network(image[None]))
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


def to_logits(output: Any, images: Tensor, *, multi_label: bool = False) -> Tensor:
    """Normalise a network's output to logits N x L x spatial of the images' size (see the class above).

    Args:
        output: Whatever the network returned.
        images: N x C x spatial, what it was given.
        multi_label: Keep a single channel as it is.

    Raises:
        MisureError: If no logits can be found in the output, or their shape does not fit.
    """
    logits = _find_tensor(output)
    if logits.ndim == images.ndim - 1 and logits.shape[0] == images.shape[0]:
        logits = logits[:, None]
    if logits.ndim != images.ndim or logits.shape[0] != images.shape[0]:
        raise MisureError(
            f"the network returned shape {tuple(logits.shape)} for images {tuple(images.shape)}: "
            "expected N x classes x H x W"
        )
    if logits.shape[2:] != images.shape[2:]:
        mode = "bilinear" if images.ndim == 4 else "trilinear"
        logits = interpolate(logits, size=images.shape[2:], mode=mode, align_corners=False)
    if logits.shape[1] == 1 and not multi_label:
        logits = torch.cat([torch.zeros_like(logits), logits], dim=1)
    return logits


def _find_tensor(output: Any) -> Tensor:
    if isinstance(output, Tensor):
        return output
    if isinstance(output, Mapping):
        for key in ("out", "logits"):
            if key in output:
                return _find_tensor(output[key])
    elif hasattr(output, "logits"):
        return _find_tensor(output.logits)
    elif isinstance(output, Sequence) and output and not isinstance(output, str):
        return _find_tensor(output[0])
    keys = f" with keys {sorted(output)}" if isinstance(output, Mapping) else ""
    raise MisureError(
        f"the network returned {type(output).__name__}{keys}; expected logits as a tensor, under 'out' or as .logits"
    )


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
                choices[key] = _measured_choice(self.model, self.compute, image)
            self._choice = choices[key]
        return self._choice

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
    def sustained(self, image: Tensor | None = None) -> Iterator[None]:
        """Announce so many passes that preparing the weights for them pays off.

        Args:
            image: One like those that follow, C x spatial: batch normalisation may then be folded into convolutions.
                Only for methods that watch no layer, since a folded convolution's output is the normalisation's.
        """
        if image is not None:
            self.settle(image)
        wanted = self.compute.winograd
        if wanted == "auto":
            wanted = pays_off(self.device)
        module = self.model.module
        with ExitStack() as undo:
            if module is not None and self.precision in {"32", "tf32"}:  # both move what 16 bits would round
                if image is not None and self.compute.fold:
                    undo.enter_context(folded(pairs(module, lambda: self(image[None]))))
                if wanted and self.device.type == "cpu":
                    undo.enter_context(winograd(module))
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
                known = self.model.activation_bytes
                if image.shape not in known:
                    known[image.shape] = self._activation_bytes(image)
                size = automatic_batch_size(self.device, known[image.shape])
            self._batches = Batches(int(size))
        return self._batches

    def _activation_bytes(self, image: Tensor) -> int:
        """Measure what a forward and backward pass of one image keeps, or assume it where nothing can be watched."""
        module = self.model.module
        measured = 0 if module is None else activation_bytes(module, lambda: self(image[None]))
        return 2 * measured or image.numel() * image.element_size() * _UNKNOWN_ACTIVATIONS


@torch.no_grad()
def _measured_choice(model: SegmentationModel, compute: Compute, image: Tensor) -> PrecisionChoice:
    """Time a pass in each precision that could be taken."""
    images = image.expand(_TIMED_TOGETHER.get(image.device.type, 1), *image.shape)

    def seconds(precision: Precision) -> float:
        fixed = FrozenNetwork(model, replace(compute, precision=setting_of(precision)), image.device)
        return seconds_of(lambda: fixed(images), image.device)

    choice = choose_precision(compute, image.device, seconds)
    assert choice is not None  # noqa: S101 - there is something to measure with
    return choice


@contextmanager
def frozen(
    model: SegmentationModel, compute: Compute, device: torch.device, watch: Watch | None = None
) -> Iterator[FrozenNetwork]:
    """Lend a network for explanation and give it back exactly as it was.

    Training flags, ``requires_grad``, gradients, weight storage and the random state of torch,
    NumPy and Python are restored, also after an exception.

    Args:
        model: The adapted network.
        compute: Precision and batch size.
        device: Where the images are.
        watch: Sees every step of the explanation and can stop it.
    """
    with ExitStack() as undo:
        undo.enter_context(torch.inference_mode(mode=False))
        undo.enter_context(torch.enable_grad())
        undo.enter_context(torch.random.fork_rng(devices=[device] if device.type == "cuda" else []))
        if device.type == "cuda":
            undo.enter_context(tf32(allowed=compute.allow_tf32))
        undo.callback(random.setstate, random.getstate())
        undo.callback(np.random.set_state, np.random.get_state())  # noqa: NPY002 - the user's global state
        if model.module is not None:
            undo.callback(_restore_flags, [(m, m.training) for m in model.module.modules()])
            model.module.eval()
            for parameter in model.module.parameters():
                undo.callback(_restore_parameter, parameter, parameter.requires_grad, parameter.data)
                parameter.requires_grad_(False)
                if compute.channels_last and parameter.ndim == 4:
                    parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
        yield FrozenNetwork(model, compute, device, watch)


def _restore_flags(flags: list[tuple[nn.Module, bool]]) -> None:
    for module, training in flags:
        module.training = training


def _restore_parameter(parameter: nn.Parameter, requires_grad: bool, data: Tensor) -> None:
    parameter.data = data
    parameter.requires_grad_(requires_grad)
