"""Setups: a dataset's validation images and a trained network, ready to be explained."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from misure.config import build, compute_of, scale_of, setup_name
from misure.datasets.base import SegmentationDataset, Stage
from misure.errors import MisureError
from misure.evaluation.volumes import VolumeDataset, score_volumes
from misure.io.atomic import safe_name
from misure.io.installed import package_version
from misure.io.locks import alone
from misure.models.checkpoint import (
    CheckpointInfo,
    architecture,
    load_checkpoint,
    read_info,
    save_checkpoint,
)
from misure.models.compute import Compute, Precision, choose_precision, default_device
from misure.models.pretrained import PublishedWeights
from misure.models.wrapper import SegmentationModel, frozen
from misure.sweep.predictions import Predictions, predict_all
from misure.sweep.sampling import Sample, Sampling
from misure.sweep.volume_scores import read_volumes, write_volumes
from misure.training.config import Recipe
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


def checkpoint_path(cfg: DictConfig) -> Path:
    """Where a configuration's checkpoint lies."""
    return Path(cfg.checkpoint or Path(cfg.outputs) / "checkpoints" / f"{checkpoint_name(cfg)}.safetensors")


def checkpoint_name(cfg: DictConfig) -> str:
    """Name of a configuration's checkpoint; published weights are the same in every profile and at every scale."""
    if is_published(cfg):
        return f"{setup_name(cfg)}-published"
    scale = scale_of(cfg)
    return f"{setup_name(cfg)}-{cfg.profile.name}" + ("" if scale == 1 else f"-{scale:g}")


def is_published(cfg: DictConfig) -> bool:
    """Say whether the network comes with its weights instead of being trained here."""
    return OmegaConf.select(cfg, "model.weights") is not None


def is_at_hand(cfg: DictConfig) -> bool:
    """Say whether the checkpoint exists."""
    return checkpoint_path(cfg).with_suffix(".json").exists()


def needs_no_training(cfg: DictConfig) -> bool:
    """Say whether the network is trained, by us or by its publishers."""
    return is_at_hand(cfg) or is_published(cfg)


def prepare(cfg: DictConfig) -> Setup:
    """Load a setup, importing or training its network first where there is no checkpoint.

    Raises:
        MisureError: If data is missing or the checkpoint does not fit the configuration.
    """
    path = checkpoint_path(cfg)
    expected = architecture(_plain(cfg.model.network))
    if is_at_hand(cfg):
        remove_finished_state(path)
    if not is_at_hand(cfg):
        import_network(cfg) if is_published(cfg) else train_network(cfg, anew=False)
    elif is_published(cfg) and cfg.checkpoint is None and architecture(read_info(path).network) != expected:
        import_network(cfg)  # the same weights in a network with other arguments
    info = read_info(path)
    if architecture(info.network) != expected:
        raise MisureError(
            f"{path} holds {architecture(info.network)}, the configuration asks for {expected}: "
            "choose the model it was trained as, or train another with misure train"
        )
    setup = described(cfg, build(cfg.dataset.val))
    _check_same_kind(path, info, cfg, setup.dataset)
    model = setup.load()  # here, where what is wrong with it is a failure of the setup and not of each sample
    return replace(setup, load=lambda: model)


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


def _check_same_kind(path: Path, info: CheckpointInfo, cfg: DictConfig, dataset: SegmentationDataset) -> None:
    """Raise a MisureError if a network trained on generated images would explain real or other generated ones.

    Generated images are others after a change of the generator; a network trained on real images explains real ones.
    """
    trained_on_stand_in, fingerprint = (info.data.get(key) for key in ("stand_in", "fingerprint"))
    if trained_on_stand_in is None:
        return
    same = trained_on_stand_in == dataset.stand_in
    if same and dataset.stand_in and fingerprint is not None:
        same = build(cfg.dataset.train).fingerprint == fingerprint
    if not same:
        raise MisureError(
            f"{path} was trained on {info.data.get('source')}, but the images are now {dataset.source}, made anew "
            "since then where the words are the same: delete it (or set checkpoint=<another file>) to train anew"
        )


def import_network(cfg: DictConfig) -> CheckpointInfo:
    """Put a configuration's published weights into its network and keep it as a checkpoint.

    Raises:
        MisureError: If the weights cannot be had or do not fit.
    """
    weights: PublishedWeights = build(cfg.model.weights)
    network = build(cfg.model.network)
    try:
        weights.load_into(network)
    except MisureError as error:
        networks = chain.from_iterable([n] if isinstance(n, str) else n for n in cfg.dataset.get("networks", ()))
        others = [f"model={name}" for name in networks if name != cfg.model.name]
        raise MisureError(f"{error}; or take {' or '.join(others)}" if others else str(error)) from error
    return save_checkpoint(checkpoint_path(cfg), network, _description(cfg, {"source": weights.source}))


def train_network(cfg: DictConfig, *, anew: bool = True) -> CheckpointInfo:
    """Train a configuration's network and keep it as a checkpoint.

    Args:
        cfg: A run configuration.
        anew: Whether a checkpoint that another process has made meanwhile is replaced.

    Raises:
        MisureError: If the data is missing or the loss is not finite.
    """
    from misure.datasets.datamodule import SegmentationData  # which imports Lightning, as training does
    from misure.training.module import train

    recipe: Recipe = build(cfg.training)
    torch.manual_seed(recipe.seed)
    data = SegmentationData(
        build(cfg.dataset.train),
        build(cfg.dataset.val),
        batch_size=recipe.batch_size,
        samples_per_epoch=recipe.samples_per_epoch,
        validation_samples=recipe.validation_samples,
        seed=recipe.seed,
        loaders=recipe.loaders,
        curriculum=_curriculum(cfg),
    )
    print(f"data: {cfg.dataset.name} from {data.train.source}", flush=True)
    origin = {
        "dataset": cfg.dataset.name,
        "source": data.train.source,
        "fingerprint": data.train.fingerprint,
        "stand_in": data.train.stand_in,
    }
    network, logger = build(cfg.model.network), build(cfg.logger)
    info = _description(cfg, origin)
    return train(network, data, recipe, path=checkpoint_path(cfg), info=info, logger=logger, anew=anew)


def _description(cfg: DictConfig, data: Mapping[str, Any]) -> CheckpointInfo:
    """Describe a network for its new checkpoint."""
    return CheckpointInfo(
        name=checkpoint_name(cfg),
        network=_plain(cfg.model.network),
        bottleneck=cfg.model.bottleneck,
        class_names=tuple(cfg.dataset.class_names),
        in_channels=cfg.dataset.in_channels,
        data=data,
        metrics={},
        training={},
        versions=versions(),
        mean=tuple(OmegaConf.select(cfg, "model.mean", default=(0.0,))),
        std=tuple(OmegaConf.select(cfg, "model.std", default=(1.0,))),
    )


def _curriculum(cfg: DictConfig) -> list[Stage]:
    """The training images with each stage's changes to the dataset's configuration."""
    train = _plain(cfg.dataset.train)
    changed = [OmegaConf.merge(train, _plain(stage.train)) for stage in cfg.dataset.curriculum]
    return [Stage(stage.until, build(_plain(c))) for stage, c in zip(cfg.dataset.curriculum, changed, strict=True)]


def versions() -> dict[str, str]:
    """Versions of what decides the numbers."""
    packages = ("torch", "torchvision", "segmentation-models-pytorch", "pytorch-lightning", "numpy")
    return {"python": platform.python_version(), "misure": package_version(), **{p: version(p) for p in packages}}


def _plain(node: Any) -> dict[str, Any]:
    container: Mapping[Any, Any] = OmegaConf.to_container(node, resolve=True)  # type: ignore[assignment]
    return {str(k): v for k, v in container.items()}


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
