"""Networks of setups: found trained, imported from where others trained them, or trained here."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from functools import partial
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch import nn

from misure.config import build, plain, scale_of, setup_name
from misure.datasets.base import SegmentationDataset, Stage
from misure.errors import MisureError
from misure.io.installed import package_version
from misure.models.checkpoint import PUBLISHED, RANDOM, TRAINED_HERE, CheckpointInfo, architecture, save_checkpoint
from misure.models.pretrained import Elsewhere, PublishedWeights
from misure.models.trained import ServedCheckpoint, TrainedWeights, checkpoints_in
from misure.sweep.images import available
from misure.sweep.provenance import code_version
from misure.training.config import Recipe
from misure.training.state import STATE, state_of
from misure.validation import shown


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


def training_state(cfg: DictConfig) -> Path:
    """Where the state of a configuration's half-done training lies."""
    return state_of(checkpoint_path(cfg)) / STATE


def needs_no_training(cfg: DictConfig) -> bool:
    """Say whether the network is trained, here or elsewhere."""
    return is_at_hand(cfg) or elsewhere(cfg) is not None


def elsewhere(cfg: DictConfig) -> Elsewhere | None:
    """Return the weights that take the place of training a configuration's network; nothing is downloaded.

    Raises:
        MisureError: If a file in the data root is damaged, is of another network or dataset, or is one of several.
    """
    return _published(cfg) if is_published(cfg) else _trained(cfg)


def _published(cfg: DictConfig) -> PublishedWeights:
    weights: PublishedWeights = build(cfg.model.weights)
    return weights


def _trained(cfg: DictConfig) -> TrainedWeights | None:
    """Return the checkpoint that was trained elsewhere with this project; none where the user names its file.

    It lies in ``<data root>/<dataset>_<model>``, or at the address that the model names for the dataset
    (``model.trained.<dataset>``). It is for images of the size that it was trained on (``dataset.size``), and for real
    ones: a network for a stand-in is trained on the very images that were generated.
    """
    if cfg.checkpoint is not None or available(cfg).state == "stand-in":
        return None
    folder, size = Path(cfg.data_root, f"{cfg.dataset.name}_{cfg.model.name}"), OmegaConf.select(cfg, "dataset.size")
    found = [file for file in checkpoints_in(folder) if file.info.size == size]
    if len(found) > 1:
        names = " and ".join(file.path.name for file in found)
        raise MisureError(f"{folder} has {names} for the same images: keep one there, or name one with checkpoint=...")
    for file in found:
        _check_fits(file.path, file.info, cfg)
        return file
    served = OmegaConf.select(cfg, f"model.trained.{cfg.dataset.name}")
    return _served(served) if served is not None and served.get("size") == size else None


def _served(node: DictConfig) -> ServedCheckpoint:
    served: ServedCheckpoint = build({**plain(node), "_target_": "misure.models.trained.ServedCheckpoint"})
    return served


def _check_fits(place: Path | str, info: CheckpointInfo, cfg: DictConfig) -> None:
    """Raise a MisureError if a network trained elsewhere is not the one that a configuration describes."""
    for what, has, wanted in (
        ("the dataset", info.data.get("dataset"), cfg.dataset.name),
        ("a network", architecture(info.network), architecture(plain(cfg.model.network))),
        ("classes", list(info.class_names), list(cfg.dataset.class_names)),
        ("generated images", bool(info.data.get("stand_in")), False),
    ):
        if has != wanted:
            raise MisureError(
                f"{place} is of {what} {shown(has)}, the configuration asks for {shown(wanted)}: replace or remove it, "
                "or train here with misure train"
            )


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
    """Take a configuration's network from :func:`elsewhere`, and keep it as the checkpoint.

    Raises:
        MisureError: If the weights cannot be had or do not fit.
    """
    path = checkpoint_path(cfg)
    if not is_published(cfg) and (trained := _trained(cfg)) is not None:
        print(f"{setup_name(cfg)}: weights from {trained.source}", flush=True)
        return trained.import_as(path, partial(_check_fits, trained.source, cfg=cfg))
    weights, network = _published(cfg), build(cfg.model.network)
    try:
        weights.load_into(network)
    except MisureError as error:
        networks = chain.from_iterable([n] if isinstance(n, str) else n for n in cfg.dataset.get("networks", ()))
        others = [f"model={name}" for name in networks if name != cfg.model.name]
        raise MisureError(f"{error}; or take {' or '.join(others)}" if others else str(error)) from error
    return save_checkpoint(path, network, _description(cfg, {"source": weights.source}, PUBLISHED))


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
        "size": OmegaConf.select(cfg, "dataset.size"),
    }
    network, logger = build(cfg.model.network), build(cfg.logger)
    _check_start(network, cfg)
    info = _description(cfg, origin, TRAINED_HERE)
    return train(network, data, recipe, path=checkpoint_path(cfg), info=info, logger=logger, anew=anew)


def may_start_randomly(cfg: DictConfig) -> bool:
    """Say whether a training may begin from random weights where those that it asks for cannot be had."""
    return bool(cfg.stand_in or OmegaConf.select(cfg, "profile.stand_in", default=True))


def _check_start(network: nn.Module, cfg: DictConfig) -> None:
    """Raise a MisureError if a training begins without the weights it asks for, and nothing may take their place."""
    wanted, begun = OmegaConf.select(cfg, "model.network.pretrained"), training_state(cfg).exists()
    if (
        wanted is not None
        and not (begun or may_start_randomly(cfg))
        and getattr(network, "initial_weights", wanted) == RANDOM
    ):
        raise MisureError(
            f"{setup_name(cfg)} would be trained from random weights, as {wanted} weights cannot be had: fetch them "
            "where huggingface.co answers (the same command does), or set model.network.pretrained=null"
        )


def _description(cfg: DictConfig, data: Mapping[str, Any], origin: str) -> CheckpointInfo:
    """Describe a network for its new checkpoint."""
    return CheckpointInfo(
        name=checkpoint_name(cfg),
        network=plain(cfg.model.network),
        class_names=tuple(cfg.dataset.class_names),
        in_channels=cfg.dataset.in_channels,
        data=data,
        metrics={},
        training={},
        versions={**versions(), "misure": code_version()},
        origin=origin,
        **kept_with_weights(cfg),
    )


def kept_with_weights(cfg: DictConfig) -> dict[str, Any]:
    """Return what a configuration says of its network that a checkpoint keeps and later runs take from there."""
    mean, std = (
        tuple(map(float, OmegaConf.select(cfg, f"model.{name}", default=(default,))))
        for name, default in (("mean", 0.0), ("std", 1.0))
    )
    return {"bottleneck": cfg.model.bottleneck, "mean": mean, "std": std}


def _curriculum(cfg: DictConfig) -> list[Stage]:
    """The training images with each stage's changes to the dataset's configuration."""
    train = plain(cfg.dataset.train)
    changed = [OmegaConf.merge(train, plain(stage.train)) for stage in cfg.dataset.curriculum]
    return [Stage(stage.until, build(plain(c))) for stage, c in zip(cfg.dataset.curriculum, changed, strict=True)]


def versions() -> dict[str, str]:
    """Versions of what decides the numbers."""
    packages = ("torch", "torchvision", "segmentation-models-pytorch", "pytorch-lightning", "numpy")
    return {"python": platform.python_version(), "misure": package_version(), **{p: version(p) for p in packages}}
