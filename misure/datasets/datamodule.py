"""The Lightning data module around any of the datasets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, cast

import pytorch_lightning as pl
from torch.utils.data import BatchSampler, DataLoader, Dataset, Sampler, Subset

from misure.datasets.base import SegmentationDataset, Stage
from misure.randomness import permutation


class KeyedSampler(Sampler[int]):
    """Training order keyed by (seed, pass): a resumed run sees the images it would have seen.

    An epoch is a slice of ``samples_per_epoch`` images of an endless sequence of shuffled passes
    over the dataset, so that checkpoints and validation come at a steady pace for any dataset. Image i of pass k
    is place k n + i, see :class:`InPasses`.
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
            yield number * self.n + passes[number][rank]


class InPasses(Dataset[dict[str, Any]]):
    """A dataset by the places of an endless sequence of passes.

    One that augments has ``in_pass``: what it draws for an image depends on the pass alone, and not on which device or
    loading process asks, or whether a training was interrupted.
    """

    def __init__(self, dataset: SegmentationDataset) -> None:
        self.dataset = dataset

    def __getitem__(self, place: int) -> dict[str, Any]:
        number, index = divmod(place, len(self.dataset))
        in_pass = getattr(self.dataset, "in_pass", None)
        entry: dict[str, Any] = in_pass(index, number) if in_pass else self.dataset[index]
        return entry


class PartOfBatches(BatchSampler):
    """The part of every batch that one of several devices takes; together they take each image of it once.

    Args:
        sampler: The order of all images.
        batch_size: Images of a whole batch, a multiple of ``devices``.
        device: Which one, from 0.
        devices: How many.
    """

    def __init__(self, sampler: Sampler[int], batch_size: int, device: int, devices: int) -> None:
        super().__init__(sampler, batch_size, drop_last=True)
        self.part = slice(device, None, devices)

    def __iter__(self) -> Iterator[list[int]]:
        for batch in super().__iter__():
            yield batch[self.part]


class SegmentationData(pl.LightningDataModule):
    """Training and validation images of one dataset.

    Args:
        train: Training images.
        curriculum: Easier or cheaper images for the first parts of the budget, in order.
        val: Validation images.
        batch_size: Images per training step, of all devices together.
        samples_per_epoch: See :class:`KeyedSampler`.
        validation_samples: How many validation images are used while training.
        seed: Key of the training order.
        loaders: Data-loading processes of each device.
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
        loaders: int = 0,
        curriculum: Sequence[Stage] = (),
    ) -> None:
        super().__init__()
        self.train = train
        self.val = val
        self.batch_size = batch_size
        self.samples_per_epoch = samples_per_epoch
        self.validation_samples = validation_samples
        self.seed = seed
        self.loaders = loaders
        self.curriculum = tuple(curriculum)
        self.progress = 0.0

    def train_dataloader(self) -> DataLoader[dict[str, Any]]:
        """Batches in keyed order, from the stage the budget has reached."""
        dataset = next((stage.dataset for stage in self.curriculum if self.progress < stage.until), self.train)
        sampler = KeyedSampler(len(dataset), self.samples_per_epoch, self.seed)
        batches = PartOfBatches(sampler, self.batch_size, *self._device)
        return DataLoader(InPasses(dataset), batch_sampler=batches, **self._loading)

    @property
    def validated(self) -> int:
        """How many images are used for a validation."""
        return min(self.validation_samples, len(self.val))

    def val_dataloader(self) -> DataLoader[dict[str, Any]]:
        """Validation images at even distances, so that they come from every volume.

        Of several devices each takes equally many, in turns, so that they stay in step: the first images come again
        after the last.
        """
        device, devices = self._device
        turns = range(device, -(-self.validated // devices) * devices, devices)
        chosen = [i % self.validated * len(self.val) // self.validated for i in turns]
        images = Subset(cast("Dataset[dict[str, Any]]", self.val), chosen)
        return DataLoader(images, max(self.batch_size // devices, 4), **self._loading)

    @property
    def _device(self) -> tuple[int, int]:
        """Which device this is, and of how many."""
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)

    @property
    def _loading(self) -> dict[str, Any]:
        return {"num_workers": self.loaders, "persistent_workers": self.loaders > 0}
