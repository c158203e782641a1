"""The networks at hand: trained here, published and already downloaded, or named by the user; loaded when chosen."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from misure.app.sharing import SharedNetwork
from misure.config import build
from misure.errors import MisureError, did_you_mean
from misure.explaining.network import NamedNetwork, named_network, trained_network
from misure.explaining.request import Request
from misure.io.installed import CONFIG_FOLDER
from misure.io.reading import user_path
from misure.models.compute import default_device
from misure.models.nnunet import is_result
from misure.models.pretrained import OperatorListWeights
from misure.reliability import ReliabilityModel


@dataclass(frozen=True)
class Offer:
    """A network that can be loaded.

    Attributes:
        name: As the user knows it.
        load: Reads the weights.
        family: ``<dataset>-<model>``, which names the folder of its reliability models.
    """

    name: str
    load: Callable[[], NamedNetwork]
    family: str = ""


class Shelf:
    """The networks on offer, each loaded once and shared by all sessions.

    Args:
        offers: In the order shown.
        outputs: The folder that may hold ``reliability/``.

    Raises:
        MisureError: If there is none, or two have one name.
    """

    def __init__(self, offers: Iterable[Offer], outputs: Path) -> None:
        self._offers = {offer.name: offer for offer in offers}
        if not self._offers:
            raise MisureError("no network is at hand: pass one with --model <file>, or train one (misure reproduce)")
        self._outputs = outputs
        self._loaded: dict[str, SharedNetwork] = {}
        self._loading = threading.Lock()

    @property
    def names(self) -> list[str]:
        """What can be taken."""
        return list(self._offers)

    def take(self, name: str) -> SharedNetwork:
        """Return a network, loading it where that was not done before.

        Raises:
            MisureError: If there is no such network or its file cannot be used.
        """
        if name not in self._offers:
            raise MisureError(f"there is no network {name!r}{did_you_mean(name, self._offers)}")
        with self._loading:
            if name not in self._loaded:
                self._loaded[name] = _shared(name, self._offers[name].load())
            return self._loaded[name]

    def reliability(self, name: str, class_name: str) -> ReliabilityModel | None:
        """Return the reliability model of a network's class, or None where none was fitted."""
        file_name = Path(f"{class_name.casefold().replace(' ', '_')}.json").name
        folder = self._outputs / "reliability"
        places = (folder / self._offers[name].family / file_name, folder / file_name)
        file = next((path for path in places if path.is_file()), None)
        return ReliabilityModel.load(file) if file else None


def _shared(name: str, loaded: NamedNetwork) -> SharedNetwork:
    if loaded.dimensions == 3:
        raise MisureError(f"{name} takes volumes, this page shows slices: use misure explain")
    loaded.model.to(default_device())
    return SharedNetwork(name, loaded.model, loaded.channels or 3, loaded.size)


def offers_at_hand(
    models: Iterable[str], data_root: Path, outputs: Path, described: Mapping[str, Any] | None = None
) -> list[Offer]:
    """List what the user named, what was trained here, and published networks whose weights are on this disk.

    Args:
        models: Names of ``configs/model`` or files, see :func:`misure.models.loading.load_model`.
        data_root: Where published weights lie.
        outputs: Where ``checkpoints/`` are.
        described: What the user says of the files, by keys of ``configs/explain.yaml``.

    Raises:
        MisureError: If something named is neither a file nor a published network at hand, or a value is not allowed.
    """
    published = {offer.name: offer for offer in _published(data_root)}
    given = {user_path(model).absolute(): model for model in models}  # each once
    titles = [path.name for path in given]
    request = _request(described or {})
    named = [
        _named(model, path.name if titles.count(path.name) == 1 else model, published, request)
        for path, model in given.items()
    ]
    trained = [
        Offer(path.stem, partial(trained_network, path), path.stem.rpartition("-")[0])
        for path in sorted((outputs / "checkpoints").glob("*.safetensors"))
    ]
    unique: dict[str, Offer] = {}
    for offer in (*named, *trained, *published.values()):
        unique.setdefault(offer.name, offer)
    return list(unique.values())


def _request(described: Mapping[str, Any]) -> DictConfig:
    with initialize_config_dir(CONFIG_FOLDER, version_base="1.3"):
        cfg = compose("explain")
    cfg.merge_with(dict(described))
    Request.of(cfg)
    return cfg


def _named(model: str, title: str, published: dict[str, Offer], request: DictConfig) -> Offer:
    if model in published:
        return published[model]
    path = user_path(model)
    if not model or not os.path.exists(path):  # noqa: PTH110 - which takes names of any length
        hint = did_you_mean(model, published)
        raise MisureError(f"--model {model} is neither a file nor a published network at hand{hint}")
    if is_result(path):
        raise MisureError(f"--model {model} is a result of nnU-Net, which takes patches: use misure explain")
    cfg = request.copy()
    cfg.model_file = str(path.absolute()).replace("${", r"\${")
    return Offer(title, partial(named_network, cfg), path.stem.rpartition("-")[0])


def _published(data_root: Path) -> list[Offer]:
    """List networks of ``configs/model`` whose published weights are files on this disk; no server is asked."""
    offers = []
    with initialize_config_dir(CONFIG_FOLDER, version_base="1.3"):
        for path in sorted(Path(CONFIG_FOLDER, "model").glob("*.yaml")):
            cfg = compose("explain", [f"model={path.stem}"])
            if "weights" not in cfg.model:
                continue
            cfg.data_root = str(data_root)
            weights = build(cfg.model.weights)
            if isinstance(weights, OperatorListWeights) and weights.is_at_hand():
                offers.append(Offer(path.stem, partial(named_network, cfg), f"{cfg.dataset.name}-{path.stem}"))
    return offers
