"""Training a segmentation network with Lightning, within a budget of images and of time."""

from __future__ import annotations

import shutil
import time
import warnings
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import Logger, WandbLogger
from torch import Tensor, nn

from misure.datasets.datamodule import SegmentationData
from misure.errors import MisureError
from misure.io.locks import alone
from misure.metrics import dice
from misure.models.checkpoint import RANDOM, CheckpointInfo, read_info, save_checkpoint, started_from
from misure.models.compute import Compute, Precision, default_device, tf32
from misure.models.logits import to_logits
from misure.models.wrapper import SegmentationModel, frozen
from misure.training.config import Recipe
from misure.training.state import STATE, identity, resumable, state_of, sync
from misure.training.state_io import StateIO


class SegmentationTask(pl.LightningModule):
    """Training by a recipe; the validation Dice is per image, the mean over the classes present or predicted in it."""

    def __init__(
        self, network: nn.Module, recipe: Recipe, initial_weights: str = "", identity: Mapping[str, str] | None = None
    ) -> None:
        super().__init__()
        self.network = network
        self.recipe = recipe
        self.identity = dict(identity or {})
        self.initial_weights = initial_weights
        self.elapsed = 0.0
        self.steps_done = 0
        self.scores: list[Tensor] = []
        self._started = 0.0

    def training_step(self, batch: Mapping[str, Tensor], _index: int) -> Tensor:
        """Return the loss of one batch."""
        logits = to_logits(self.network(batch["image"]), batch["image"])
        loss = self.recipe.loss_of(logits, batch["mask"])
        self.log("train_loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: Mapping[str, Tensor], _index: int) -> None:
        """Collect the Dice of every image and class that is present or predicted."""
        logits = to_logits(self.network(batch["image"]), batch["image"])
        self.scores.append(image_dice(logits.argmax(1), batch["mask"], logits.shape[1]))

    def on_validation_epoch_end(self) -> None:
        """Log the mean validation Dice."""
        if self.scores:
            self.log("val_dice", torch.cat(self.scores).float().mean(), prog_bar=True)
        self.scores.clear()

    def configure_gradient_clipping(self, *_: Any, **__: Any) -> None:
        """Limit the gradients' norm as the recipe says.

        Lightning's own clipping refuses fused optimisers in mixed precision because they may unscale float16 gradients;
        bfloat16 scales nothing.
        """
        if self.recipe.gradient_clip:
            nn.utils.clip_grad_norm_(self.parameters(), self.recipe.gradient_clip)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """The recipe's optimiser; its learning rate is set before every step."""
        return self.recipe.make_optimiser(self.parameters())

    def on_fit_start(self) -> None:
        """Start the clock."""
        self._started = time.monotonic() - self.elapsed
        self._tell_data()

    def on_train_batch_start(self, _batch: Any, _index: int) -> None:
        """Set the learning rate by how much of the budget is used."""
        self.elapsed = time.monotonic() - self._started
        rate = self.recipe.lr_at(self.progress)
        for group in self.optimizers().optimizer.param_groups:  # type: ignore[union-attr]
            group["lr"] = rate
        if self.progress >= 1:
            self.trainer.should_stop = True

    def on_train_epoch_end(self) -> None:
        """Tell the data how much of the budget is used, for its curriculum."""
        self._tell_data()

    def _tell_data(self) -> None:
        data = getattr(self.trainer, "datamodule", None)
        if isinstance(data, SegmentationData):
            data.progress = self.progress

    def on_train_batch_end(self, outputs: Any, _batch: Any, _index: int) -> None:
        """Count steps; stop on a loss that is not finite, checked once an epoch to spare synchronisations."""
        self.steps_done += 1
        if self.trainer.is_last_batch and not bool(torch.isfinite(outputs["loss"])):
            raise MisureError("the training loss became NaN or infinite: lower lr or use precision=32")

    @property
    def progress(self) -> float:
        """Share of the budget used, 0..1 and beyond."""
        recipe = self.recipe
        steps = recipe.max_epochs * max(1, recipe.samples_per_epoch // recipe.batch_size)
        return max(self.steps_done / steps, self.elapsed / (60 * recipe.max_minutes))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the clock and the step count for a resumed run."""
        checkpoint["identity"] = self.identity
        checkpoint["precision"] = self.recipe.precision
        checkpoint["initial_weights"] = self.initial_weights
        checkpoint["elapsed"] = self.elapsed
        checkpoint["steps_done"] = self.steps_done

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on from the saved clock."""
        self.elapsed = float(checkpoint["elapsed"])
        self.steps_done = int(checkpoint["steps_done"])


def image_dice(predicted: Tensor, truth: Tensor, n_classes: int) -> Tensor:
    """Dice per image, averaged over the foreground classes that are present or predicted in it.

    Args:
        predicted: int64, N x H x W.
        truth: int64, N x H x W.
        n_classes: With background.

    Returns:
        float64, N; an image with neither true nor predicted foreground scores 1.
    """
    per_class = torch.stack([dice(predicted == c, truth == c) for c in range(1, n_classes)], 1)
    present = torch.stack([((predicted == c) | (truth == c)).flatten(1).any(1) for c in range(1, n_classes)], 1)
    mean = (per_class * present).sum(1) / present.sum(1).clamp(min=1)
    return torch.where(present.any(1), mean, 1.0)


class BestWeights(pl.Callback):
    """Keeps the weights of the best validation Dice, also in the state of a half-done training."""

    def __init__(self) -> None:
        self.dice = -1.0
        self.found: dict[str, Any] = {}
        self.tensors: dict[str, Tensor] = {}
        self.validated_at = -1

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Copy the weights when the Dice improved."""
        if trainer.sanity_checking or not isinstance(pl_module, SegmentationTask):
            return
        self.validated_at = pl_module.steps_done
        score = float(trainer.callback_metrics.get("val_dice", -1.0))
        if score <= self.dice:
            return
        self.dice = score
        metrics = {"val_dice": score, "val_images": float(pl_module.recipe.validation_samples)}
        training = {**asdict(pl_module.recipe), "steps": pl_module.steps_done, "seconds": pl_module.elapsed}
        self.found = {"metrics": metrics, "training": training}
        self.tensors = {k: v.detach().to("cpu", copy=True) for k, v in pl_module.network.state_dict().items()}

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs."""
        return {"dice": self.dice, "found": self.found, "tensors": self.tensors}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on comparing with the best so far."""
        self.dice, self.found, self.tensors = (state_dict[name] for name in ("dice", "found", "tensors"))

    def save(self, path: Path, network: nn.Module, info: CheckpointInfo) -> CheckpointInfo:
        """Put the best weights into the network and write its checkpoint."""
        network.load_state_dict(self.tensors)
        info = save_checkpoint(path, network, replace(info, **self.found))
        for written in (path, path.with_suffix(".json")):
            sync(written)
        return info


def _as_begun(info: CheckpointInfo, recipe: Recipe, saved: dict[str, Any] | None) -> tuple[CheckpointInfo, Recipe]:
    """Let a training that goes on say what it started from, and keep the precision that was measured then."""
    if saved is None:
        return info, recipe
    return started_from(info, saved["initial_weights"]), replace(recipe, precision=saved["precision"])


_LIGHTNING_CHATTER = (
    ".*treespec, LeafSpec.*",  # Lightning's use of a torch function that newer versions deprecate
    ".*does not have many workers.*",  # samples take milliseconds, a step takes a second
    ".*Checkpoint directory .* exists and is not empty.*",  # on resume it should be
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


def _trained(
    network: nn.Module,
    data: SegmentationData,
    recipe: Recipe,
    *,
    path: Path,
    info: CheckpointInfo,
    logger: Logger | bool,
) -> CheckpointInfo:
    device, state = default_device(), state_of(path)
    whose = identity(network, data, recipe, info)
    saved = resumable(state, whose, recipe)
    info, recipe = _as_begun(started_from(info, getattr(network, "initial_weights", RANDOM)), recipe, saved)
    recipe, precision = settled(recipe, network, data.train[0]["image"], device)
    if device.type == "cuda" or precision == "bf16":  # a CPU's float32 convolutions are as fast without
        network.to(memory_format=torch.channels_last)
    best = BestWeights()
    trainer = pl.Trainer(
        max_epochs=max(recipe.max_epochs, saved["epoch"] if saved else 0),  # Lightning refuses fewer than were begun
        reload_dataloaders_every_n_epochs=1 if data.curriculum else 0,
        check_val_every_n_epoch=recipe.validate_every,
        accelerator="gpu" if device.type == "cuda" else "cpu",
        devices=1,
        precision="bf16-mixed" if precision == "bf16" else "32-true",
        callbacks=[
            best,
            ModelCheckpoint(state, filename="last", save_top_k=1, every_n_epochs=1, enable_version_counter=False),
        ],
        plugins=[StateIO()],
        logger=logger,
        num_sanity_val_steps=0,
        enable_model_summary=False,
        log_every_n_steps=5,
    )
    task = SegmentationTask(network, recipe, info.initial_weights, whose)
    with warnings.catch_warnings(), tf32(allowed=precision == "tf32"):
        for message in _LIGHTNING_CHATTER:
            warnings.filterwarnings("ignore", message=message)
        trainer.fit(task, data, ckpt_path=None if saved is None else state / STATE, weights_only=True)
        if best.validated_at != task.steps_done:
            trainer.validate(task, data, verbose=False)
    for used in trainer.loggers:
        if isinstance(used, WandbLogger):
            used.experiment.finish()  # else the next job of a multirun writes into this run
    return best.save(path, network, info)
