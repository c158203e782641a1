"""The Lightning data module around any of the datasets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, cast

import pytorch_lightning as pl
from torch.utils.data import DataLoader, Dataset, Sampler, Subset

from misure.datasets.base import SegmentationDataset, Stage
from misure.randomness import permutation


class KeyedSampler(Sampler[int]):
    """Training order keyed by (seed, pass): a resumed run sees the images it would have seen.

    An epoch is a slice of ``samples_per_epoch`` images of an endless sequence of shuffled passes
    over the dataset, so that checkpoints and validation come at a steady pace for any dataset.
    """

    def __init__(self, n: int, samples_per_epoch: int, seed: int) -> None:
        self.n = n
        self.samples_per_epoch = samples_per_epoch
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the slice; Lightning calls this before every epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.samples_per_epoch

    def __iter__(self) -> Iterator[int]:
        start = self.epoch * self.samples_per_epoch
        passes: dict[int, list[int]] = {}
        for position in range(start, start + self.samples_per_epoch):
            number, rank = divmod(position, self.n)
            if number not in passes:
                passes[number] = permutation(self.n, self.seed, number).tolist()
            yield passes[number][rank]


class SegmentationData(pl.LightningDataModule):
    """Training and validation images of one dataset.

    Args:
        train: Training images.
        curriculum: Easier or cheaper images for the first parts of the budget, in order.
        val: Validation images.
        batch_size: Images per training step.
        samples_per_epoch: See :class:`KeyedSampler`.
        validation_samples: How many validation images are used while training.
        seed: Key of the training order.
        workers: Data-loading processes.
    """

    def __init__(
        self,
        train: SegmentationDataset,
        val: SegmentationDataset,
        *,
        batch_size: int,
        samples_per_epoch: int,
        validation_samples: int,
        seed: int = 0,
        workers: int = 0,
        curriculum: Sequence[Stage] = (),
    ) -> None:
        super().__init__()
        self.train = train
        self.val = val
        self.batch_size = batch_size
        self.samples_per_epoch = samples_per_epoch
        self.validation_samples = validation_samples
        self.seed = seed
        self.workers = workers
        self.curriculum = tuple(curriculum)
        self.progress = 0.0

    def train_dataloader(self) -> DataLoader[dict[str, Any]]:
        """Batches in keyed order, from the stage the budget has reached."""
        dataset = next((stage.dataset for stage in self.curriculum if self.progress < stage.until), self.train)
        sampler = KeyedSampler(len(dataset), self.samples_per_epoch, self.seed)
        return DataLoader(
            cast("Dataset[dict[str, Any]]", dataset),
            self.batch_size,
            sampler=sampler,
            drop_last=True,
            **self._loading,
        )

    def val_dataloader(self) -> DataLoader[dict[str, Any]]:
        """Validation images at even distances, so that they come from every volume."""
        count = min(self.validation_samples, len(self.val))
        chosen = [i * len(self.val) // count for i in range(count)]
        images = Subset(cast("Dataset[dict[str, Any]]", self.val), chosen)
        return DataLoader(images, max(self.batch_size, 4), **self._loading)

    @property
    def _loading(self) -> dict[str, Any]:
        return {"num_workers": self.workers, "persistent_workers": self.workers > 0}
