"""The base class of Captum's methods: the score it differentiates, and gradients a batch at a time."""

from __future__ import annotations

import importlib
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from misure.errors import MisureError
from misure.explainers.activations import summed_scores
from misure.explainers.base import Explainer, SaliencyMaps
from misure.models.wrapper import FrozenNetwork
from misure.target import TargetBatch
from misure.validation import Share

Score = Callable[[Tensor], Tensor]
"""Perturbed copies of one image, K x C x spatial, to the sum of its class's logits over its target, K."""


@dataclass(frozen=True, kw_only=True)
class CaptumExplainer(Explainer):
    """A method of Captum on each image by itself, so that no result depends on the images beside it.

    Captum makes all perturbed copies of an image at once, which fixes their order of summation and their
    noise; their gradients are taken a batch at a time, which bounds the memory.
    """

    needs_gradients: ClassVar[bool] = True
    map_is_mask: ClassVar[bool] = False

    thresholds: tuple[Share, ...] = (0.05, 0.1)

    @abstractmethod
    def attributions(self, captum: Any, network: FrozenNetwork, image: Tensor, score: Score) -> Tensor:
        """Return the map of one image.

        Args:
            captum: The module ``captum.attr``.
            network: The frozen network.
            image: 1 x C x spatial.
            score: What is attributed.

        Returns:
            1 x spatial.
        """

    def saliency_maps(self, network: FrozenNetwork, images: Tensor, targets: TargetBatch) -> SaliencyMaps:
        """Return raw maps.

        Raises:
            MisureError: If Captum is not installed or no gradient reaches the image.
        """
        captum = _captum(self.name)
        maps = []
        for i in range(len(images)):
            score = _score(network, targets[i : i + 1])
            maps.append(self.attributions(captum, network, images[i : i + 1], score).detach().to(images))
            network.tell("differentiating", i + 1, len(images))
        return SaliencyMaps(torch.cat(maps))


def in_batches(method: Any, network: FrozenNetwork, image: Tensor) -> Any:
    """Let a gradient method of Captum take its gradients in batches, on the image's device.

    Args:
        method: An object of Captum with its ``gradient_func``.
        network: The frozen network.
        image: 1 x C x spatial; says the device and type that copies are differentiated in.

    Returns:
        The same object.
    """
    direct = method.gradient_func

    def gradients(forward_fn: Score, inputs: tuple[Tensor], *_args: Any, **_options: Any) -> tuple[Tensor]:
        (copies,) = inputs

        def work(part: slice) -> Tensor:
            given = copies[part].detach().to(image).requires_grad_()
            gradient: Tensor = direct(forward_fn, (given,))[0]
            return gradient.to(copies.device)

        return (network.map(work, len(copies), image[0]),)

    method.gradient_func = gradients
    return method


def _score(network: FrozenNetwork, target: TargetBatch) -> Score:
    def score(copies: Tensor) -> Tensor:
        many = target[torch.zeros(len(copies), dtype=torch.int64, device=copies.device)]
        value = summed_scores(network(copies), many)
        if not value.requires_grad:
            raise MisureError(
                "no gradient reaches the image: the network detaches it, choose a method without gradients"
            )
        return value

    return score


def _captum(method: str) -> Any:
    try:
        return importlib.import_module("captum.attr")
    except ImportError as error:
        raise MisureError(f"{method} needs the package captum: pip install 'misure[captum]'") from error
