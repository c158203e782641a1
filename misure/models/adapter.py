"""Any segmentation network seen as images to logits, with its modules, layers and names."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from misure.errors import MisureError
from misure.models.compute import Compute, PrecisionChoice
from misure.models.description import checked_network, first_pass, names_of_classes, normalisation_of
from misure.models.exported import Fixed
from misure.models.hidden import found_in
from misure.models.layers import Layer, find_layer, image_axes, list_layers, suggest
from misure.models.lending import lent, own_copy, weights_of
from misure.models.logits import OutputKind, OutputReading, located
from misure.models.onnx import OnnxNetwork, Shape
from misure.models.recall import Recall
from misure.validation import Count, check_arguments, plain_tensor

Reshape = Callable[[Tensor], Tensor]
"""Turns a layer's tokens (N x T x C) into a feature map (N x C x H x W)."""

_TYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
"""Of parameters that say which images a network takes; 8-bit weights do not."""


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
        class_names: Names by class index, or a dictionary {number: name}, whose numbers may be text.
        in_channels: Number of image channels, checked when given.
        mean: What was subtracted from images in [0, 1]: a number, or one a channel.
        std: Divisor applied after that, likewise; above 0.
        multi_label: Each logit channel is a yes or no of its own: a class is predicted where its logit
            exceeds 0, classes overlap, there is no background channel, and a single channel stays one.
        output: What the network returns: ``"logits"``, ``"probabilities"`` (after a softmax or sigmoid),
            ``"class_numbers"``, or ``"auto"``: logits, unless the first image shows that it can only be another;
            what could be several things is refused.
        differentiable: Whether gradients flow from the logits to the images.
        title: What messages call the network; by default the name of its class or function.
    """

    def __init__(
        self,
        network: Callable[[Tensor], Any],
        *,
        bottleneck: str | None = None,
        reshape: Reshape | None = None,
        class_names: Iterable[str] | Mapping[Any, Any] | None = None,
        in_channels: Count | None = None,
        mean: float | Iterable[float] = (0.0,),
        std: float | Iterable[float] = (1.0,),
        multi_label: bool = False,
        output: OutputKind = "auto",
        differentiable: bool = True,
        title: str | None = None,
    ) -> None:
        self.network = checked_network(network)
        check_arguments(SegmentationModel.__init__, locals())
        self.bottleneck = bottleneck
        self.reshape = reshape
        self.class_names = names_of_classes(class_names)
        self.in_channels = in_channels
        self.mean, self.std = normalisation_of(mean, std, in_channels)
        self.multi_label = multi_label
        self.output = OutputReading(output)
        self.differentiable = differentiable
        self.title = title or str(getattr(network, "__name__", type(network).__name__))
        self._found: tuple[Callable[[Tensor], Any], list[nn.Module]] | None = None
        self.given_type: torch.dtype | None = None  # of half-precision images, for a network without parameters
        self.takes_channels_last = True  # until a pass fails that works without
        self.draws_from: list[str] | None = None  # packages whose random numbers it draws; None before a first pass
        self.activation_bytes: dict[torch.Size, int] = {}  # by image shape, measured when first needed
        self.precision_choices: dict[tuple[Any, ...], PrecisionChoice] = {}  # likewise
        self.recall: Recall | None = None  # given by who knows that the weights stay what they are

    @classmethod
    def of(cls, network: SegmentationModel | Callable[[Tensor], Any]) -> SegmentationModel:
        """Wrap a network unless it is wrapped already."""
        return network if isinstance(network, SegmentationModel) else cls(network)

    @property
    def module(self) -> nn.Module | None:
        """The network as a module, or None for a plain callable."""
        return self.network if isinstance(self.network, nn.Module) else None

    @property
    def modules(self) -> list[nn.Module]:
        """The network itself, or the outermost modules that a callable hides."""
        if isinstance(self.network, nn.Module):
            return [self.network]
        if self._found is None or self._found[0] is not self.network:
            self._found = self.network, found_in(self.network)[0]
        return self._found[1]

    @property
    def shape(self) -> Shape:
        """N, C and the spatial sides that a program or an ONNX file takes, None where any; empty for other networks."""
        return self.network.shape if isinstance(self.network, Fixed | OnnxNetwork) else ()

    @property
    def image_axes(self) -> int | None:
        """How many spatial axes its images have, 2 or 3 (volumes); None where nothing tells."""
        return len(self.shape) - 2 if len(self.shape) in {4, 5} else image_axes(self.modules)

    @property
    def device(self) -> torch.device | None:
        """The device of the network's parameters, or None if it has none."""
        parameter = next(self.parameters(), None)
        return None if parameter is None else parameter.device

    @property
    def dtype(self) -> torch.dtype | None:
        """The floating type of the network's parameters; of one without any that of half-precision images, or None."""
        return next((p.dtype for p in self.parameters() if p.dtype in _TYPES), self.given_type)

    def parameters(self) -> Iterator[nn.Parameter]:
        """The network's weights, also of modules that a callable hides."""
        return chain.from_iterable(map(weights_of, self.modules))

    def class_label(self, class_id: int) -> str:
        """Return a class's name, or ``class_<number>`` where it has none."""
        names = self.class_names or ()
        return names[class_id] if 0 <= class_id < len(names) else f"class_{class_id}"

    def to(self, device: torch.device) -> SegmentationModel:
        """Move the network's modules and return the model."""
        for module in self.modules:
            module.to(device)
        return self

    def __call__(self, images: Tensor, *, unperturbed: bool = True, channels_last: bool = False) -> Tensor:
        """Return logits N x L x spatial for images N x C x spatial; L >= 2 unless the head is multi-label.

        Args:
            images: What the network is given: a copy, which it may write into, of its own type.
            unperturbed: Whether the images are whole, so that the output's values show what it is.
            channels_last: Whether the copy is channels-last.

        Raises:
            MisureError: If the output is none, see :mod:`misure.models.logits`.
        """
        found = located(self.network(own_copy(images, self.dtype, channels_last=channels_last)), images)
        if unperturbed:
            self.output.examine(found, multi_label=self.multi_label)
        self.differentiable &= found.is_floating_point() and self.output.kind != "class_numbers"
        return self.output.logits(found, images, multi_label=self.multi_label, n_names=len(self.class_names or ()))

    def layer(self, name: str | None = None) -> nn.Module:
        """Find a layer by its dotted name or a pattern (see :func:`misure.models.layers.find_layer`).

        Args:
            name: The layer, or None for the bottleneck.

        Raises:
            MisureError: If the network is no module, no name is known, or not one layer has it.
        """
        check_arguments(SegmentationModel.layer, {"name": name})
        name = name or self.bottleneck
        module = self._module_with_layers()
        if name is None:
            raise MisureError("no layer is named: pass layer=..., such as model.suggest_bottleneck(image)")
        return find_layer(module, name)

    def layers(self, image: Tensor, pattern: str = "*") -> list[Layer]:
        """List the layers whose name fits a pattern, with what each gives for an image (C x spatial), in forward order.

        Raises:
            MisureError: If the network is no module, or does not take the image.
        """
        check_arguments(SegmentationModel.layers, {"pattern": pattern})
        module, pixels = self._module_with_layers(), plain_tensor("the image", image)
        pixels = pixels.to(self.device or pixels.device)
        with (
            first_pass(self.title, pixels.shape),
            lent(self.network, Compute("32", channels_last=False), pixels.device),
        ):
            listed = list_layers(module, lambda: self(pixels[None]))
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
        if not self.modules:
            raise MisureError(f"{self.title} is a plain callable, not an nn.Module, so it has no layers to explain at")
        return self.modules[0] if len(self.modules) == 1 else nn.ModuleList(self.modules)
