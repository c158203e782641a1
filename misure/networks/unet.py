"""U-Nets of segmentation-models-pytorch (paper 4.1: VGG-16 for Triangle, ResNet-34 for Synapse)."""

from __future__ import annotations

import warnings
from typing import Any, cast

import segmentation_models_pytorch as smp
from segmentation_models_pytorch.encoders import encoders
from torch import nn

from misure.download import is_reachable
from misure.errors import MisureError, did_you_mean
from misure.networks.checkpoint import RANDOM

_HUB = "https://huggingface.co"


def build_unet(encoder: str, in_channels: int, classes: int, *, pretrained: str | None = "imagenet") -> nn.Module:
    """Build a U-Net, with pre-trained encoder weights where they can be had.

    Args:
        encoder: An encoder name of segmentation-models-pytorch.
        in_channels: Image channels.
        classes: Number of logits per pixel.
        pretrained: Name of the encoder's weights, or None for random ones.

    Returns:
        The network; its ``initial_weights`` names what it starts from, ``"random"`` or the encoder's weights. Without
        weights its convolutions are initialised with He's fan-in rule, and a single warning says so.

    Raises:
        MisureError: If the encoder does not exist.
    """
    if encoder not in encoders:
        raise MisureError(f"there is no encoder {encoder!r}{did_you_mean(encoder, encoders)}")
    network: Any
    if pretrained is not None:
        if _hub_is_useful(encoder, pretrained):
            try:
                network = smp.Unet(encoder, encoder_weights=pretrained, in_channels=in_channels, classes=classes)
            except (OSError, ValueError, RuntimeError) as error:
                reason = str(error).splitlines()[0]
            else:
                network.initial_weights = pretrained
                return cast("nn.Module", network)
        else:
            reason = f"{_HUB} cannot be reached and no cached copy exists"
        warnings.warn(f"{encoder}: training starts from random weights, not {pretrained}: {reason}", stacklevel=2)
    network = smp.Unet(encoder, encoder_weights=None, in_channels=in_channels, classes=classes)
    initialise_randomly(network)
    network.initial_weights = RANDOM
    return cast("nn.Module", network)


def initialise_randomly(network: nn.Module) -> None:
    """Give every convolution He-normal weights by fan-in, so that one-channel images start at a useful scale."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")


def _hub_is_useful(encoder: str, pretrained: str) -> bool:
    """Say whether the hub's cache holds the weights already or the hub answers within seconds."""
    from huggingface_hub import try_to_load_from_cache

    settings = encoders[encoder]["pretrained_settings"].get(pretrained)
    if settings is None:
        raise MisureError(
            f"{encoder} has no weights {pretrained!r}: use one of {list(encoders[encoder]['pretrained_settings'])}"
        )
    cached = try_to_load_from_cache(settings["repo_id"], "model.safetensors", revision=settings["revision"])
    return isinstance(cached, str) or is_reachable(_HUB)
