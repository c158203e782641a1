"""The entry points ``misure explain`` and ``misure layers``, both configured by ``configs/explain.yaml``."""

from __future__ import annotations

import torch
from omegaconf import DictConfig

from misure.cli.entry import entry_point
from misure.explaining.network import named_network
from misure.explaining.request import Request
from misure.explaining.work import explain_files, prepared, reading_of, side_lengths
from misure.io.finding import find_images
from misure.io.images import read_image

_SIDES = {2: 224, 3: 64}


@entry_point("explain")
def explain(cfg: DictConfig) -> None:
    """Explain image files and write a folder for each explanation."""
    explain_files(cfg)


@entry_point("layers", "explain")
def layers(cfg: DictConfig) -> None:
    """Print a network's layers with the shapes of their outputs, and a suggestion for the bottleneck."""
    images = Request.of(cfg).image
    network = named_network(cfg)
    reading = reading_of(cfg, network)
    if not images:
        sides = side_lengths(cfg.size or network.size or _SIDES[reading.dimensions], reading.dimensions)
        image = torch.zeros(network.channels or 3, *(sides or ()))
    else:
        image = prepared(read_image(find_images(images[0])[0], reading), network, cfg)
    image = image.to(network.model.device or image.device)
    listed = network.model.layers(image)
    name_width = max((len(layer.name) for layer in listed), default=0)
    kind_width = max((len(layer.kind) for layer in listed), default=0)
    for layer in listed:
        shape = " x ".join(map(str, layer.shape)) if layer.shape else ""
        print(f"{layer.name:{name_width}}  {layer.kind:{kind_width}}  {shape}")
    suggested = network.model.bottleneck or network.model.suggest_bottleneck(image)
    print(f"\nlayer of the CAM methods: {suggested} (bottleneck=<name> chooses another)")
