"""Needs of a setup before anything can be explained: images, weights, training, room on the disk."""

from __future__ import annotations

import importlib
import warnings
from contextlib import suppress
from dataclasses import dataclass

import torch
from omegaconf import DictConfig, OmegaConf
from torch import nn

from misure.config import build
from misure.datasets.available import Available
from misure.errors import MisureError
from misure.models.checkpoint import without_pretrained
from misure.sweep.experiment import Experiment
from misure.sweep.images import available
from misure.sweep.networks import elsewhere, import_network, is_at_hand, may_start_randomly
from misure.sweep.pace import Pace, duration, side_of

_ROW = 1300
"""Bytes of a row of a record: 1180 and 1300 were measured, as the mean of 108 rows of tests and in a smoke run."""

_FLOAT, _HALF = 4, 2


@dataclass(frozen=True)
class Needs:
    """Needs besides explaining.

    Attributes:
        images: What they are taken from.
        network: Where its weights come from, in a few words.
        training: Seconds.
        downloads: What is downloaded, with sizes where they are known.
        to_write: Bytes of generated images and of the checkpoint.
    """

    images: Available
    network: str
    training: float
    downloads: tuple[str, ...]
    to_write: int

    @classmethod
    def of(cls, cfg: DictConfig, pace: Pace, *, anew: bool = False) -> Needs:
        """Find out without a change to anything.

        Args:
            cfg: A run configuration.
            pace: Of its network.
            anew: Whether the network is trained although there is a checkpoint.
        """
        images = available(cfg)
        network, training, download, checkpoint = "ready", 0.0, "", 0
        if anew or not is_at_hand(cfg):
            module = _untrained(cfg)
            checkpoint = _size(module)
            if not anew and (weights := elsewhere(cfg)) is not None:
                download = weights.download
                network = "to download" if download else f"at hand, {weights.source}"
            else:
                training = pace.training(cfg)
                network, download = f"to train, about {duration(training)}", _encoder_weights(cfg, module)
        wanted = tuple(filter(None, (images.download, download)))
        return cls(images, network, training, wanted, images.to_write + checkpoint)


def bytes_of(experiment: Experiment, explanations: int) -> int:
    """Estimate what an experiment writes, from above.

    A record has a row for each threshold. The maps of the first samples are the image and the saliency as float16,
    counted as if they did not compress (they do, to between 0.1 and 0.6 in what was measured); masks hardly count.

    Args:
        experiment: What is run.
        explanations: How many it has to make.
    """
    with_maps = min(explanations, experiment.n_maps)
    maps = _HALF * (int(experiment.cfg.dataset.in_channels) + 1) * side_of(experiment.cfg) ** 2
    return explanations * _ROW * max(1, len(experiment.explainer.thresholds)) + with_maps * maps


def _untrained(cfg: DictConfig) -> nn.Module:
    """Build the network without any numbers in it, which takes no memory."""
    with torch.device("meta"):
        network: nn.Module = build(cfg.model.network, **without_pretrained(cfg.model.network))
    return network


def _size(module: nn.Module) -> int:
    numbers: int = sum(tensor.numel() for tensor in module.state_dict().values())
    return _FLOAT * numbers


def fetch_ahead(cfg: DictConfig) -> None:
    """Fetch what a worker, who may have no internet, would download: images, and weights to explain or to train from.

    What cannot be had is no error: whoever needs it says so.

    Args:
        cfg: A run configuration.
    """
    with suppress(MisureError), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if (fetch := available(cfg).fetch) is not None:
            fetch()
        if is_at_hand(cfg):
            return
        if (weights := elsewhere(cfg)) is None and _missing_weights(cfg) is not None:
            build(cfg.model.network)  # which keeps them in the Hub's cache
        elif weights is not None and weights.download:
            import_network(cfg)


def _missing_weights(cfg: DictConfig) -> str | None:
    """Say which pre-trained weights the builder would download; builders that download say which."""
    arguments = OmegaConf.to_container(cfg.model.network, resolve=True)
    assert isinstance(arguments, dict)  # noqa: S101 - a node that is built
    named = {str(key): value for key, value in arguments.items()}
    builder = importlib.import_module(str(named.pop("_target_")).rpartition(".")[0])
    repository: str | None = getattr(builder, "missing_weights", lambda **_: None)(**named)
    return repository


def _encoder_weights(cfg: DictConfig, module: nn.Module) -> str:
    """Name the weights that are missing, with their size."""
    if (repository := _missing_weights(cfg)) is None:
        return ""
    size = _size(module.get_submodule("encoder")) / 1e6
    otherwise = " if it answers, otherwise training starts randomly" if may_start_randomly(cfg) else ""
    return f"{repository}, about {size:.0f} MB, from huggingface.co{otherwise}"
