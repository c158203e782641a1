"""What experiments explain: one dataset's validation images and one trained network."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from misure.compute import Compute
from misure.config import build
from misure.datasets.datamodule import SegmentationData, SegmentationDataset, Stage
from misure.errors import MisureError
from misure.model import SegmentationModel
from misure.networks.checkpoint import CheckpointInfo, load_checkpoint, read_info
from misure.recipe import Recipe
from misure.sweep.samples import Sample, Sampling
from misure.sweep.survey import Survey, take_survey
from misure.training import train


@dataclass(frozen=True)
class Subject:
    """A dataset and a network, ready to be explained.

    Attributes:
        name: ``dataset-model``.
        dataset: The validation images; entries are dicts with ``image`` and ``mask``.
        model: The network with its trained weights, on the device it runs on.
        info: The checkpoint's description.
        surveys: Folder where surveys are kept; None keeps none.
    """

    name: str
    dataset: SegmentationDataset
    model: SegmentationModel
    info: CheckpointInfo
    surveys: Path | None = None

    def survey(self, compute: Compute) -> Survey:
        """Return what the network predicts in all validation images, from a file where it was done before."""
        if self.surveys is None:
            return take_survey(self.model, self.dataset, compute)
        path = self.surveys / f"{self.name}-{self.info.fingerprint}-{self.dataset.fingerprint}.npz"
        known = Survey.load(path)
        if known is None:
            known = take_survey(self.model, self.dataset, compute)
            known.save(path)
        return known

    def samples(self, sampling: Sampling, seed: int, compute: Compute) -> list[Sample]:
        """Draw what is explained, in the order in which it is explained: a small profile takes the first few."""
        return sampling.draw(len(self.dataset), lambda: self.survey(compute), seed)


def checkpoint_path(cfg: DictConfig) -> Path:
    """Where a configuration's checkpoint lies."""
    return Path(cfg.checkpoint or Path(cfg.outputs) / "checkpoints" / f"{checkpoint_name(cfg)}.safetensors")


def checkpoint_name(cfg: DictConfig) -> str:
    """Name of a configuration's checkpoint."""
    return f"{cfg.dataset.name}-{cfg.model.name}-{cfg.profile.name}"


def is_trained(cfg: DictConfig) -> bool:
    """Say whether the checkpoint exists."""
    return checkpoint_path(cfg).with_suffix(".json").exists()


def prepare(cfg: DictConfig) -> Subject:
    """Load a subject, training its network first where there is no checkpoint.

    Raises:
        MisureError: If data is missing or the checkpoint does not fit the configuration.
    """
    path = checkpoint_path(cfg)
    if not is_trained(cfg):
        train_network(cfg)
    info = read_info(path)
    expected = _plain(cfg.model.network)
    if dict(info.network) != expected:
        raise MisureError(
            f"{path} holds {dict(info.network)}, the configuration asks for {expected}: "
            "choose the model it was trained as, or train another with scripts/train.py"
        )
    model = load_checkpoint(path)
    model.to(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    dataset = build(cfg.dataset.val)
    name = f"{cfg.dataset.name}-{cfg.model.name}"
    return Subject(name, dataset, model, info, Path(cfg.outputs) / "surveys")


def train_network(cfg: DictConfig) -> CheckpointInfo:
    """Train a configuration's network and keep it as a checkpoint.

    Raises:
        MisureError: If the data is missing or the loss is not finite.
    """
    recipe: Recipe = build(cfg.training)
    torch.manual_seed(recipe.seed)
    data = SegmentationData(
        build(cfg.dataset.train),
        build(cfg.dataset.val),
        batch_size=recipe.batch_size,
        samples_per_epoch=recipe.samples_per_epoch,
        validation_samples=recipe.validation_samples,
        seed=recipe.seed,
        workers=recipe.workers,
        curriculum=_curriculum(cfg),
    )
    print(f"data: {cfg.dataset.name} from {data.train.source}", flush=True)
    info = CheckpointInfo(
        name=checkpoint_name(cfg),
        network=_plain(cfg.model.network),
        bottleneck=cfg.model.bottleneck,
        class_names=tuple(cfg.dataset.class_names),
        in_channels=cfg.dataset.in_channels,
        data={"dataset": cfg.dataset.name, "source": data.train.source, "fingerprint": data.train.fingerprint},
        metrics={},
        training={},
        versions=versions(),
    )
    network, logger = build(cfg.model.network), build(cfg.logger)
    return train(network, data, recipe, path=checkpoint_path(cfg), info=info, logger=logger)


def _curriculum(cfg: DictConfig) -> list[Stage]:
    """The training images with each stage's changes to the dataset's configuration."""
    train = _plain(cfg.dataset.train)
    changed = [OmegaConf.merge(train, _plain(stage.train)) for stage in cfg.dataset.curriculum]
    return [Stage(stage.until, build(_plain(c))) for stage, c in zip(cfg.dataset.curriculum, changed, strict=True)]


def versions() -> dict[str, str]:
    """Versions of what decides the numbers."""
    packages = ("misure", "torch", "torchvision", "segmentation-models-pytorch", "pytorch-lightning", "numpy")
    return {"python": platform.python_version(), **{p: version(p) for p in packages}}


def _plain(node: Any) -> dict[str, Any]:
    container: Mapping[Any, Any] = OmegaConf.to_container(node, resolve=True)  # type: ignore[assignment]
    return {str(k): v for k, v in container.items()}
