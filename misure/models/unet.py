"""U-Nets of segmentation-models-pytorch (paper 4.1: VGG-16 for Triangle, ResNet-34 for Synapse)."""

from __future__ import annotations

from functools import partial
from typing import Any, cast

import segmentation_models_pytorch as smp
from segmentation_models_pytorch.encoders import encoders
from torch import nn

from misure.errors import MisureError, did_you_mean
from misure.models.checkpoint import RANDOM
from misure.models.pretrained import built_from_hub, is_cached
from misure.validation import Count


def build_unet(encoder: str, in_channels: Count, classes: Count, *, pretrained: str | None = "imagenet") -> nn.Module:
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
    build = partial(smp.Unet, encoder, in_channels=in_channels, classes=classes)
    network: Any = None
    if pretrained is not None:
        network = built_from_hub(
            partial(build, encoder_weights=pretrained),
            *_repository(encoder, pretrained),
            title=encoder,
            weights=pretrained,
            stacklevel=2,
        )
    initial_weights = pretrained
    if network is None:
        network, initial_weights = build(encoder_weights=None), RANDOM
        initialise_randomly(network)
    network.initial_weights = initial_weights
    return cast("nn.Module", network)


def initialise_randomly(network: nn.Module) -> None:
    """Give every convolution He-normal weights by fan-in, so that one-channel images start at a useful scale."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")


def missing_weights(encoder: str, *, pretrained: str | None = "imagenet", **_: object) -> str | None:
    """Name the pre-trained weights that :func:`build_unet` would download; None where there are none to download."""
    if pretrained is None:
        return None
    repository, revision = _repository(encoder, pretrained)
    return None if is_cached(repository, revision) else repository


def _repository(encoder: str, pretrained: str) -> tuple[str, str]:
    """Return the repository and the revision of an encoder's weights on the hub."""
    settings = encoders[encoder]["pretrained_settings"].get(pretrained)
    if settings is None:
        raise MisureError(
            f"{encoder} has no weights {pretrained!r}: use one of {list(encoders[encoder]['pretrained_settings'])}"
        )
    return settings["repo_id"], settings["revision"]
