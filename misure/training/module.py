"""Training a segmentation network with Lightning, within a budget of images and of time."""

from __future__ import annotations

import shutil
import warnings
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import Logger, WandbLogger
from torch import Tensor, nn

from misure.datasets.datamodule import SegmentationData
from misure.errors import MisureError, set_up_messages
from misure.io.locks import alone
from misure.models.checkpoint import RANDOM, CheckpointInfo, load_checkpoint, read_info, started_from
from misure.models.compute import Compute, Precision, default_device, tf32
from misure.models.wrapper import SegmentationModel, frozen
from misure.training.config import Recipe, memory_format
from misure.training.processes import ending_when_told, in_processes, with_shared_statistics
from misure.training.state import STATE, identity, resumable, state_of
from misure.training.state_io import StateIO
from misure.training.task import BestWeights, SegmentationTask


def _as_begun(info: CheckpointInfo, recipe: Recipe, saved: dict[str, Any] | None) -> tuple[CheckpointInfo, Recipe]:
    """Let a training that goes on say what it started from, and keep the precision that was measured then."""
    if saved is None:
        return info, recipe
    return started_from(info, saved["initial_weights"]), replace(recipe, precision=saved["precision"])


_LIGHTNING_CHATTER = (
    ".*treespec, LeafSpec.*",  # Lightning's use of a torch function that newer versions deprecate
    ".*does not have many workers.*",  # samples take milliseconds, a step takes a second
    ".*Checkpoint directory .* exists and is not empty.*",  # on resume it should be
    ".*`srun` command is available.*",  # training begins its processes itself
    ".*when logging on epoch level in distributed setting.*",  # the first process logs what is of all
    ".*The dirpath has changed from .*",  # outputs may be moved; the best weights are in the state
)


def settled(recipe: Recipe, network: nn.Module, image: Tensor, device: torch.device) -> tuple[Recipe, Precision]:
    """Choose the precision that a recipe leaves open, by passes of the network on one image.

    Args:
        recipe: How the network is trained.
        network: It is moved to the device.
        image: float32, C x H x W.
        device: Where it is trained.

    Returns:
        The recipe with the precision that is taken, and that precision.
    """
    network.to(device)
    compute = Compute(str(recipe.precision), allow_tf32=recipe.allow_tf32)
    with frozen(SegmentationModel(network), compute, device) as lent:
        choice = lent.settle(image.to(device))
    why = f": {choice.reason}" if recipe.precision == "auto" else ""  # else whoever chose it has said why
    print(f"training in precision {choice.precision}{why}", flush=True)
    return replace(recipe, precision=choice.setting), choice.precision


def train(
    network: nn.Module,
    data: SegmentationData,
    recipe: Recipe,
    *,
    path: Path,
    info: CheckpointInfo,
    logger: Logger | bool,
    anew: bool = True,
) -> CheckpointInfo:
    """Train and write the best weights to ``path``; an interrupted training of the same kind goes on where it was.

    The resumable state lies beside the checkpoint in a folder that goes away when training is complete. One process
    at a time trains a checkpoint: others wait, and take the one that it has made.

    Args:
        network: Also left with the best weights.
        data: Training and validation images.
        recipe: How it is trained.
        path: The checkpoint (.safetensors).
        info: Its description; what the network started from and what training measures is filled in.
        logger: Lightning's, or False for none.
        anew: Whether a checkpoint that is there already is replaced.

    Returns:
        The description of the best weights.

    Raises:
        MisureError: If the loss is not finite or the checkpoint cannot be written.
    """
    waited = False

    def wait() -> None:
        nonlocal waited
        waited = True
        print(f"another process trains {path}: waiting for it", flush=True)

    with alone(path.with_suffix(".lock"), busy=wait):
        if (waited or not anew) and path.with_suffix(".json").exists():
            print(f"another process has trained {path}: it is used", flush=True)
            return read_info(path)
        best = _trained(network, data, recipe, path=path, info=info, logger=logger)
        shutil.rmtree(state_of(path), ignore_errors=True)
    return best


def n_devices(recipe: Recipe, device: torch.device) -> int:
    """Say on how many devices of a kind a recipe is trained.

    Raises:
        MisureError: If there are fewer.
    """
    there = torch.cuda.device_count() if device.type == "cuda" else 1
    if isinstance(recipe.devices, str):
        return max(n for n in range(1, there + 1) if recipe.batch_size % n == 0)
    if device.type == "cuda" and recipe.devices > there:
        raise MisureError(f"training.devices={recipe.devices}: this machine has {there}; take as many, or auto")
    return recipe.devices


def _trained(
    network: nn.Module,
    data: SegmentationData,
    recipe: Recipe,
    *,
    path: Path,
    info: CheckpointInfo,
    logger: Logger | bool,
) -> CheckpointInfo:
    device, whose = default_device(), identity(network, data, recipe, info)
    recipe = replace(recipe, devices=n_devices(recipe, device))
    saved = resumable(state_of(path), whose, recipe)
    info, recipe = _as_begun(started_from(info, getattr(network, "initial_weights", RANDOM)), recipe, saved)
    recipe, precision = settled(recipe, network, data.train[0]["image"], device)
    begun = saved["epoch"] if saved else None
    fit = partial(
        _fit,
        data=data,
        recipe=recipe,
        precision=precision,
        path=path,
        info=info,
        logger=logger,
        whose=whose,
        begun=begun,
    )
    if recipe.devices == 1:
        return fit(network)
    print(f"training on {recipe.devices} devices", flush=True)
    in_processes(int(recipe.devices), fit, network.cpu())
    load_checkpoint(path, network)
    return read_info(path)


def _fit(
    network: nn.Module,
    *,
    data: SegmentationData,
    recipe: Recipe,
    precision: Precision,
    path: Path,
    info: CheckpointInfo,
    logger: Logger | bool,
    whose: dict[str, str],
    begun: int | None,
) -> CheckpointInfo:
    """Train in this process, which may be one of several; the first of them writes the checkpoint.

    Args:
        network: Also left with the best weights.
        data: As of :func:`train`.
        recipe: The same.
        precision: What the recipe's comes to.
        path: The checkpoint.
        info: Its description.
        logger: Lightning's.
        whose: The training's identity.
        begun: Epochs that were begun in an earlier session, whose state is gone on from; None where there is none.
    """
    set_up_messages()  # Lightning, imported just now, has set up its own
    device, state, best = default_device(), state_of(path), BestWeights()
    network.to(memory_format=memory_format(device, precision))
    if recipe.devices != 1:
        network = with_shared_statistics(network)
    trainer = pl.Trainer(
        max_epochs=max(recipe.max_epochs, begun or 0),  # Lightning refuses fewer than were begun
        reload_dataloaders_every_n_epochs=1 if data.curriculum else 0,
        check_val_every_n_epoch=recipe.validate_every,
        accelerator="gpu" if device.type == "cuda" else "cpu",
        devices=recipe.devices,
        strategy="auto" if recipe.devices == 1 else recipe.strategy.replace("auto", "ddp"),
        use_distributed_sampler=False,
        precision="bf16-mixed" if precision == "bf16" else "32-true",
        callbacks=[
            best,
            ModelCheckpoint(state, filename="last", save_top_k=1, every_n_epochs=1, enable_version_counter=False),
        ],
        plugins=[StateIO(), LightningEnvironment()],  # whatever SLURM or torchrun say: its processes are ours
        logger=logger,
        num_sanity_val_steps=0,
        enable_model_summary=False,
        log_every_n_steps=5,
    )
    if trainer.world_size > 1:
        torch.manual_seed(recipe.seed + trainer.global_rank)  # each draws its own dropout
    task = SegmentationTask(network, recipe, info.initial_weights, whose)
    with ending_when_told(), warnings.catch_warnings(), tf32(allowed=precision == "tf32"):
        for message in _LIGHTNING_CHATTER:
            warnings.filterwarnings("ignore", message=message)
        trainer.fit(task, data, ckpt_path=None if begun is None else state / STATE, weights_only=True)
        if best.validated_at != task.steps_done:
            trainer.validate(task, data, verbose=False)
    for used in trainer.loggers:
        if isinstance(used, WandbLogger):
            used.experiment.finish()  # else the next job of a multirun writes into this run
    return best.save(path, network, info) if trainer.is_global_zero else info
