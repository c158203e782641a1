"""What Lightning calls while a segmentation network is trained: steps, validation, the clock, and the best weights."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from misure.datasets.datamodule import SegmentationData
from misure.errors import MisureError
from misure.metrics import dice
from misure.models.checkpoint import CheckpointInfo, save_checkpoint
from misure.models.logits import to_logits
from misure.training.config import Recipe
from misure.training.processes import gathered, summed
from misure.training.state import sync


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
        self._validated: int | None = None

    @property
    def n_validated(self) -> int:
        """How many images a validation looks at."""
        return self._validated or self.recipe.validation_samples

    def training_step(self, batch: Mapping[str, Tensor], _index: int) -> Tensor:
        """Return the loss of one batch."""
        logits = to_logits(self.network(batch["image"]), batch["image"])
        loss = self.recipe.loss_of(logits, batch["mask"])
        self.log("train_loss", loss, prog_bar=True, sync_dist=True)
        return loss

    def validation_step(self, batch: Mapping[str, Tensor], _index: int) -> None:
        """Collect the Dice of every image and class that is present or predicted."""
        logits = to_logits(self.network(batch["image"]), batch["image"])
        self.scores.append(image_dice(logits.argmax(1), batch["mask"], logits.shape[1]))

    def on_validation_epoch_end(self) -> None:
        """Log the mean validation Dice."""
        if self.scores:
            scores = gathered(torch.cat(self.scores))[: self._validated]
            self.log("val_dice", scores.float().mean(), prog_bar=True, rank_zero_only=True)
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
        data = getattr(self.trainer, "datamodule", None)
        self._validated = data.validated if isinstance(data, SegmentationData) else None

    def on_train_batch_start(self, _batch: Any, _index: int) -> None:
        """Set the learning rate by how much of the budget is used."""
        self.elapsed = time.monotonic() - self._started
        if math.isfinite(self.recipe.max_minutes):  # one clock for all devices: they have to stop at the same step
            self.elapsed = self.trainer.strategy.broadcast(self.elapsed)
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
        if self.trainer.is_last_batch and not bool(torch.isfinite(summed(outputs["loss"].detach()))):
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
        metrics = {"val_dice": score, "val_images": float(pl_module.n_validated)}
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
