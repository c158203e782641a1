"""Setups: a dataset's validation images and a trained network, ready to be explained."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig

from misure.config import build, compute_of, plain, setup_name
from misure.datasets.base import SegmentationDataset
from misure.errors import MisureError
from misure.evaluation.volumes import VolumeDataset, score_volumes
from misure.io.atomic import safe_name
from misure.io.locks import alone
from misure.models.checkpoint import PUBLISHED, TRAINED_HERE, CheckpointInfo, architecture, load_checkpoint, read_info
from misure.models.compute import Compute, Precision, choose_precision, default_device
from misure.models.wrapper import SegmentationModel, frozen
from misure.sweep.networks import (
    check_same_kind,
    checkpoint_path,
    import_network,
    is_at_hand,
    is_published,
    kept_with_weights,
    needs_no_training,
    train_network,
)
from misure.sweep.predictions import Predictions, predict_all
from misure.sweep.sampling import Sample, Sampling
from misure.sweep.volume_scores import read_volumes, write_volumes
from misure.training.state import remove_finished_state

_LONGEST = 200  # bytes of the name of what is kept
_PREDICTIONS = "surveys"  # the folder's name in the outputs of earlier versions, which stay of use


@dataclass(frozen=True)
class Setup:
    """A dataset and a trained network, ready to be explained.

    Attributes:
        name: ``dataset-model``.
        dataset: The validation images; entries are dicts with ``image`` and ``mask``.
        load: Loads the network with its trained weights onto the device it runs on; called when it is first needed.
        info: The checkpoint's description.
        folder: Folder where predictions are kept; None keeps none.
        settled: The precision of passes, where it was settled before, maybe on another machine.
    """

    name: str
    dataset: SegmentationDataset
    load: Callable[[], SegmentationModel]
    info: CheckpointInfo
    folder: Path | None = None
    settled: Precision | None = None
    _orders: dict[str, list[Sample]] = field(default_factory=dict, init=False, repr=False, compare=False)

    @cached_property
    def model(self) -> SegmentationModel:
        """The network."""
        return self.load()

    @property
    def quality(self) -> str:
        """The network's score, or whose it is, in a few words."""
        score, start = self.info.metrics.get("val_dice"), self.info.initial_weights
        if score is None:
            return f"weights: {self.info.data.get('source')}"
        return f"validation Dice {score:.3f}" + (f", trained from {start} weights" if start else "")

    def predictions(self, compute: Compute) -> Predictions:
        """Return what the network predicts in all validation images, from a file where it was done before."""
        if self.folder is None:
            return predict_all(self.model, self.dataset, compute)
        path = self.folder / f"{safe_name(self.identity(compute), _LONGEST)}.npz"
        if (kept := self._kept(path)) is not None:
            return kept
        model = self.model  # before anything is written: a plan has none
        with alone(path.with_suffix(".lock"), lambda: print(f"{self.name}: another process predicts", flush=True)):
            if (kept := self._kept(path)) is None:
                kept = predict_all(model, self.dataset, compute)
                kept.save(path)
        return kept

    def _kept(self, path: Path) -> Predictions | None:
        """Read predictions in all images; None where there are none, or damaged ones."""
        found = Predictions.load(path)
        return found if found is not None and len(found.groups) == len(self.dataset) else None

    def identity(self, compute: Compute) -> str:
        """Name the predictions by network, weights, images and, unless it is float32, precision."""
        precision = self.precision(compute)
        lowered = "" if precision == "32" else f"-{precision}"
        return f"{self.name}-{self.info.fingerprint}-{self.dataset.fingerprint}{lowered}"

    def precision(self, compute: Compute) -> Precision:
        """The precision of passes on the first image, measured where it is left open."""
        if self.settled is not None:
            return self.settled
        if chosen := choose_precision(compute, default_device()):
            return chosen.precision
        device = self.model.device or torch.device("cpu")
        with frozen(self.model, compute, device) as lent:
            return lent.settle(self.dataset[0]["image"].to(device)).precision

    def samples(self, sampling: Sampling, seed: int, compute: Compute) -> list[Sample]:
        """Draw what is explained, in the order in which it is explained: a small profile takes the first few."""
        key = repr((sampling, seed, compute))
        if key not in self._orders:
            self._orders[key] = sampling.draw(len(self.dataset), lambda: self.predictions(compute), seed)
        return self._orders[key]


def prepare(cfg: DictConfig) -> Setup:
    """Load a setup, importing or training its network first where there is no checkpoint.

    Raises:
        MisureError: If data is missing or the checkpoint does not fit the configuration.
    """
    path = checkpoint_path(cfg)
    expected = {"network": architecture(plain(cfg.model.network)), **kept_with_weights(cfg)}
    if not needs_no_training(cfg):
        train_network(cfg, anew=False)
    elif not is_at_hand(cfg):
        import_network(cfg)
    elif is_published(cfg) and cfg.checkpoint is None and _differences(read_info(path), expected):
        import_network(cfg)  # the same weights, described otherwise
    elif read_info(path).origin in {"", TRAINED_HERE}:
        remove_finished_state(path)
    info = read_info(path)
    if differs := _differences(info, expected):
        held, asked = (", ".join(f"{name} {value}" for name, value in of.items()) for of in differs)
        raise MisureError(
            f"{path} holds {held}, the configuration asks for {asked}: choose the model it was trained as (CAM methods "
            "look at explainer.layer=...), or train another with misure train"
        )
    setup = described(cfg, build(cfg.dataset.val))
    check_same_kind(path, info, cfg, setup.dataset)
    model = setup.load()  # here, where what is wrong with it is a failure of the setup and not of each sample
    return replace(setup, load=lambda: model)


def _differences(info: CheckpointInfo, expected: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """Return what a checkpoint has otherwise than expected, and what was; None where all is the same.

    What is said of a network from elsewhere is its own: only its architecture has to be that of the configuration.
    """
    held = {"network": architecture(info.network), "bottleneck": info.bottleneck, "mean": info.mean, "std": info.std}
    compared = expected if info.origin in {TRAINED_HERE, PUBLISHED} else ["network"]
    names = [name for name in compared if held[name] != expected[name]]
    return ({name: held[name] for name in names}, {name: expected[name] for name in names}) if names else None


def described(cfg: DictConfig, dataset: SegmentationDataset, settled: Precision | None = None) -> Setup:
    """Describe a setup whose network is trained; it is loaded when it is first needed.

    Args:
        cfg: A run configuration.
        dataset: Its validation images.
        settled: The precision of passes, where it was settled before.

    Raises:
        MisureError: If the checkpoint's description is missing or damaged.
    """
    path = checkpoint_path(cfg)
    kept_in = Path(cfg.outputs) / _PREDICTIONS
    return Setup(setup_name(cfg), dataset, partial(_load, path), read_info(path), kept_in, settled)


def _load(path: Path) -> SegmentationModel:
    return load_checkpoint(path).to(default_device())


def keep_volume_scores(cfg: DictConfig, setup: Setup) -> None:
    """Score a setup's volumes unless that was done or its dataset has none.

    The predictions are those that samples were drawn from, so the network is not run again.

    Raises:
        MisureError: If a library is missing or the scores cannot be written.
    """
    volumes: object = setup.dataset
    if not isinstance(volumes, VolumeDataset):
        return
    convention = "original" if cfg.dataset.empty_truth_counts else "strict"
    compute = compute_of(cfg)
    path = Path(cfg.outputs, "volumes") / f"{safe_name(setup.identity(compute), _LONGEST)}-{convention}.json"
    with suppress(MisureError):  # there is none, or a damaged one
        read_volumes(path)
        return
    predictions = setup.predictions(compute)
    scores = score_volumes(predictions.of_group, volumes, empty_truth_counts=bool(cfg.dataset.empty_truth_counts))
    meta = {
        "dataset": cfg.dataset.name,
        "model": cfg.model.title,
        "profile": cfg.profile.name,
        "source": setup.dataset.source,
        "stand_in": setup.dataset.stand_in,
        "dataset_fingerprint": setup.dataset.fingerprint,
        "weights": setup.info.fingerprint,
        "precision": setup.precision(compute),
    }
    write_volumes(path, scores, meta)
