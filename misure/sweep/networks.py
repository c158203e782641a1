"""Networks of setups: found trained, imported from where others trained them, or trained here."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from misure.config import build, plain, scale_of, setup_name
from misure.datasets.base import SegmentationDataset, Stage
from misure.errors import MisureError
from misure.io.installed import package_version
from misure.models.checkpoint import CheckpointInfo, save_checkpoint
from misure.models.pretrained import PublishedWeights
from misure.training.config import Recipe


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


def check_same_kind(path: Path, info: CheckpointInfo, cfg: DictConfig, dataset: SegmentationDataset) -> None:
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
        network=plain(cfg.model.network),
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
    train = plain(cfg.dataset.train)
    changed = [OmegaConf.merge(train, plain(stage.train)) for stage in cfg.dataset.curriculum]
    return [Stage(stage.until, build(plain(c))) for stage, c in zip(cfg.dataset.curriculum, changed, strict=True)]


def versions() -> dict[str, str]:
    """Versions of what decides the numbers."""
    packages = ("torch", "torchvision", "segmentation-models-pytorch", "pytorch-lightning", "numpy")
    return {"python": platform.python_version(), "misure": package_version(), **{p: version(p) for p in packages}}
