"""A look inside the network: a layer's activations, their gradients, and the same with channels taken away."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from misure.errors import MisureError
from misure.models.wrapper import FrozenNetwork
from misure.target import TargetBatch

_SMALLEST_SHARE = 2.0**-20
"""Of a score that is differentiated in float16, which has no values between 0 and 2^-24."""


def run_through(
    network: FrozenNetwork, images: Tensor, layer: str | None, change: Callable[[Tensor], Tensor]
) -> Tensor:
    """Run the network and let ``change`` replace what a layer gives.

    Args:
        network: The frozen network.
        images: N x C x spatial.
        layer: Dotted name; None means the model's bottleneck.
        change: From the layer's activation, in the layer's own layout, to what the network goes on with.

    Returns:
        Logits, N x L x spatial.

    Raises:
        MisureError: If there is no such layer, it gives no tensor, or it does not run exactly once.
    """
    module = network.model.layer(layer)
    runs = 0

    def replace(_module: Any, _inputs: Any, output: Any) -> Any:
        nonlocal runs
        runs += 1
        activation = output[0] if isinstance(output, tuple) else output
        if not isinstance(activation, Tensor):
            raise MisureError(f"the layer gives a {type(activation).__name__}, not a tensor: name another")
        passed_on = change(activation)
        return (passed_on, *output[1:]) if isinstance(output, tuple) else passed_on

    def run() -> Tensor:
        nonlocal runs
        runs = 0
        return network.once(images)

    handle = module.register_forward_hook(replace)
    try:
        logits = network.in_any_layout(run)
    finally:
        handle.remove()
    if runs != 1:
        raise MisureError(f"layer {_title(network, layer)} ran {runs} times: name another")
    return logits


@torch.no_grad()
def activations(network: FrozenNetwork, images: Tensor, layer: str | None) -> Tensor:
    """Return a layer's feature maps, N x K x (the layer's size), of the images' type."""
    captured: list[Tensor] = []

    def capture(activation: Tensor) -> Tensor:
        captured.append(activation.clone())  # the next layer may work in place
        return activation

    run_through(network, images, layer, capture)
    return _feature_map(network, captured[-1].to(images.dtype), images.ndim)


def activations_and_gradients(
    network: FrozenNetwork, images: Tensor, targets: TargetBatch, layer: str | None
) -> tuple[Tensor, Tensor]:
    """Return a layer's feature maps and the gradient of the class's logits, summed over the target, to them.

    Returns:
        Two tensors, N x K x (the layer's size), of the images' type.

    Raises:
        MisureError: As :func:`run_through`; also if no gradient reaches the layer.
    """
    captured: list[Tensor] = []

    def capture(activation: Tensor) -> Tensor:
        captured.append(activation.detach().requires_grad_())
        return captured[-1].clone()  # the next layer may work in place

    with torch.enable_grad():
        logits = run_through(network, images.detach(), layer, capture)
        scores = (targets.scores(logits) * targets.regions).flatten(1).sum(1)

    def as_map(found: Tensor) -> Tensor:
        return _feature_map(network, found.detach().to(images.dtype), images.ndim)

    gradient = _gradient(scores, captured[-1], as_map, is_short=network.model.dtype == torch.float16)
    if gradient is None:
        raise no_influence(network, layer)
    return as_map(captured[-1]), gradient


def _gradient(
    scores: Tensor, activation: Tensor, as_map: Callable[[Tensor], Tensor], *, is_short: bool
) -> Tensor | None:
    """Differentiate scores (N); where float16 is too short for an image's gradient, a share of its score instead."""
    shares = torch.ones_like(scores)
    differentiate = partial(torch.autograd.grad, inputs=activation, retain_graph=is_short, allow_unused=True)
    while True:
        found = differentiate((scores * shares).sum())[0] if scores.requires_grad else None
        if found is None:
            return None
        gradient = as_map(found)
        fits = gradient.flatten(1).isfinite().all(1)
        if not is_short or bool(fits.all() | (shares.amin() < _SMALLEST_SHARE)):
            return gradient / shares.view(-1, *(1,) * (gradient.ndim - 1))
        shares = torch.where(fits, shares, shares / 16)


def without_channels(network: FrozenNetwork, activation: Tensor, channels: Tensor, rank: int) -> Tensor:
    """Set one channel of each activation to zero, in the layer's own layout.

    In a token layer, ``reshape`` tells which entries make a channel: its derivative puts the feature
    map's channel back to where it came from. Entries that it drops (a class token) stay.

    Args:
        network: The frozen network.
        activation: What the layer gives for K inputs.
        channels: int64, K: the channel of the feature map to remove from each.
        rank: Number of dimensions of the images, N and C included.

    Raises:
        MisureError: If the layer gives no feature map.
    """
    rows = torch.arange(len(channels), device=activation.device)
    with torch.enable_grad():
        source = activation.detach().requires_grad_()
        features = _feature_map(network, source, rank)
        chosen = torch.zeros_like(features).detach()
        chosen[rows, channels] = 1
        removed = chosen if features is source else torch.autograd.grad(features, source, chosen)[0]
    return torch.where(removed == 1, 0, activation.detach())


@torch.no_grad()
def influences(network: FrozenNetwork, image: Tensor, layer: str | None) -> bool:
    """Say whether a layer has any way to the logits of an image (C x spatial): whether NaN there is seen."""
    with network.expecting_nan():
        logits = run_through(network, image[None], layer, lambda activation: torch.full_like(activation, torch.nan))
    return bool(logits.isnan().any())


def no_influence(network: FrozenNetwork, layer: str | None) -> MisureError:
    """Make the error of a layer that the logits do not depend on."""
    return MisureError(f"layer {_title(network, layer)} does not influence the logits")


def summed_scores(logits: Tensor, targets: TargetBatch) -> Tensor:
    """Sum the class's logits over the target: float64, N; gradients pass through."""
    return (targets.scores(logits) * targets.regions).flatten(1).sum(1, dtype=torch.float64)


def _feature_map(network: FrozenNetwork, activation: Tensor, rank: int) -> Tensor:
    if activation.ndim != rank and network.model.reshape is not None:
        activation = network.model.reshape(activation)
    if activation.ndim != rank:
        wanted = "N x C x H x W" if rank == 4 else "N x C x D x H x W"
        raise MisureError(
            f"the layer gives shape {tuple(activation.shape)}, not {wanted}: name a convolutional layer or give "
            "SegmentationModel(reshape=...)"
        )
    return activation


def _title(network: FrozenNetwork, layer: str | None) -> str | None:
    return layer or network.model.bottleneck
