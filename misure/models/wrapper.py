"""A network lent for explanation: passes in evaluation mode, in a precision, a memory layout and batches."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor

from misure.errors import MisureError, brief
from misure.models import fusion
from misure.models.adapter import SegmentationModel
from misure.models.compute import (
    Batches,
    Compute,
    Precision,
    PrecisionChoice,
    automatic_batch_size,
    choose_precision,
    is_out_of_memory,
    joined,
    now,
    seconds_of,
    setting_of,
)
from misure.models.half import counted_in, is_half, precision_of, with_gradients_in_range
from misure.models.layers import activation_bytes
from misure.models.lending import lent, mixes_images, set_layout
from misure.models.logits import unsound
from misure.models.random_sources import RandomSources
from misure.models.recall import digest
from misure.models.turns import TURNS
from misure.progress import Progress, Watch

__all__ = ["FrozenNetwork", "SegmentationModel", "frozen"]

_Result = TypeVar("_Result")

_TIMED_TOGETHER = {"cuda": 8}
"""Images of the pass that is timed to choose the precision: on a GPU a single one would be bound by launches."""

_UNKNOWN_ACTIVATIONS = 400
"""Activations per input value assumed where no layer can be watched (a VGG-16 U-Net has about 350)."""


class FrozenNetwork:
    """A network lent for explanation: evaluation mode, no parameter gradients, chosen precision.

    Made by :func:`frozen`. Calling it returns float32 logits (float64 for float64 images). With ``precision="auto"``
    on hardware that is fast at bfloat16, the first call times a pass each way; the model keeps the result for all
    images of that size.
    """

    def __init__(
        self,
        model: SegmentationModel,
        compute: Compute,
        device: torch.device,
        watch: Watch | None = None,
        sources: RandomSources | None = None,
    ) -> None:
        self.model = model
        self.compute = compute
        self.device = device
        self.watch = watch
        self.sources = sources or RandomSources(device)
        self._choice = precision_of(model.dtype) or choose_precision(compute, device)
        self._is_contiguous = False
        self._unsound: Tensor | None = None
        self._raised_by_watch: Exception | None = None
        self._batches: Batches | None = None
        self.seconds_recalled = 0.0

    @property
    def precision(self) -> Precision | None:
        """The precision of the passes; None until the first of them where it has to be measured."""
        return self._choice.precision if self._choice else None

    def settle(self, image: Tensor) -> PrecisionChoice:
        """Choose the precision for images like this one (C x spatial), unless it is chosen."""
        if self._choice is None:
            choices, key = self.model.precision_choices, (image.shape, self.device, self.compute.allow_tf32)
            if key not in choices:
                choice = choose_precision(self.compute, self.device, partial(self._seconds_of_a_pass, image))
                assert choice is not None  # noqa: S101 - there is something to measure with
                choices[key] = choice
            self._choice = choices[key]
        return self._choice

    @torch.no_grad()
    def _seconds_of_a_pass(self, image: Tensor, precision: Precision) -> float:
        images = image.expand(_TIMED_TOGETHER.get(image.device.type, 1), *image.shape)
        compute = replace(self.compute, precision=setting_of(precision))
        network = FrozenNetwork(self.model, compute, self.device, sources=self.sources)
        with self.sources.kept():
            return seconds_of(lambda: network(images), self.device)

    def __call__(self, images: Tensor, *, unperturbed: bool = False) -> Tensor:
        """Return logits, N x L x H x W, of the images' type; the values for ``unperturbed`` images are examined."""
        return self.in_any_layout(lambda: self.once(images, unperturbed=unperturbed))

    def in_any_layout(self, work: Callable[[], _Result]) -> _Result:
        """Do some work, and where it fails do it again without channels-last; what then works stays so for the model.

        Args:
            work: Makes passes or takes gradients; it must not change state outside itself.
        """
        try:
            return work()
        except (RuntimeError, ValueError, AssertionError) as error:
            if error is self._raised_by_watch or not self.channels_last or is_out_of_memory(error):
                raise
        self._is_contiguous = True
        for parameter in self.model.parameters():
            set_layout(parameter, torch.contiguous_format)
        result = work()
        self.model.takes_channels_last = False
        return result

    @property
    def channels_last(self) -> bool:
        """Whether images and weights are channels-last."""
        return self.compute.channels_last and self.model.takes_channels_last and not self._is_contiguous

    def once(self, images: Tensor, *, unperturbed: bool = False) -> Tensor:
        """Make a pass, in this memory layout alone."""
        run = partial(self._pass, unperturbed=unperturbed)
        if images.requires_grad and self.model.dtype == torch.float16:
            return with_gradients_in_range(run, images)
        return run(images)

    def _pass(self, images: Tensor, *, unperturbed: bool) -> Tensor:
        own = is_half(self.model.dtype)
        lowered = not own and images.dtype == torch.float32 and self.settle(images[0]).precision == "bf16"
        with self._watching_randomness(), torch.autocast(self.device.type, torch.bfloat16, enabled=lowered):
            logits = self.model(images, unperturbed=unperturbed, channels_last=self.channels_last)
        unsound_now = unsound(logits, multi_label=self.model.multi_label).any()
        self._unsound = unsound_now if self._unsound is None else self._unsound | unsound_now
        return logits.to(counted_in(images.dtype))

    @contextmanager
    def _watching_randomness(self) -> Iterator[None]:
        """Notice at a model's first pass whether it draws random numbers."""
        if self.model.draws_from is not None:
            yield
            return
        before = self.sources.states()
        yield
        self.model.draws_from = self.sources.changed(before)
        if self.model.draws_from:
            warnings.warn(
                f"{self.model.title} is random in evaluation mode (draws from {', '.join(self.model.draws_from)}): "
                "its explanation is that of one draw, which seed=... chooses; switch that off, such as by "
                "F.dropout(..., training=self.training)",
                RuntimeWarning,
                stacklevel=2,
            )

    @contextmanager
    def expecting_nan(self) -> Iterator[None]:
        """Make passes whose logits may be NaN without being remembered for it."""
        before = self._unsound
        yield
        self._unsound = before

    def check_sound(self) -> None:
        """Raise a MisureError if NaN or infinity came back in any pass so far."""
        if self._unsound is not None and bool(self._unsound):
            raise MisureError(
                f"{self.model.title} returned NaN or infinity for masked images, so that nothing measured on them "
                "counts: choose another blanking=..., such as mean or blur, or mend the network"
            )

    def tell(
        self, stage: str, done: int, total: int | None = None, masks: Tensor | None = None, start: int = 0
    ) -> None:
        """Let the watcher, if there is one, see a step (see :class:`misure.progress.Progress`)."""
        if self.watch is not None:
            try:
                with TURNS.paused():
                    self.watch(Progress(stage, done, total, masks, start))
            except Exception as error:
                self._raised_by_watch = error
                raise

    @contextmanager
    def working_for(self, method: str) -> Iterator[None]:
        """Turn what the network raises for a method, such as where it wants a gradient, into one line.

        Raises:
            MisureError: The network, the method and the reason.
        """
        try:
            yield
        except MisureError:
            raise
        except Exception as error:
            if error is self._raised_by_watch or is_out_of_memory(error):
                raise
            raise MisureError(
                f"{self.model.title} fails in {method} ({type(error).__name__}: {brief(error)}): choose another "
                "method, such as one without gradients, batch_size=1 if it takes one image alone, or mend the network"
            ) from error

    @contextmanager
    def folded(self, image: Tensor) -> Iterator[None]:
        """Fold batch normalisation into the convolutions before it, for many passes.

        Only for methods that watch no layer, since a folded convolution's output is the normalisation's. Nothing is
        folded in bfloat16, which would round what folding moves, nor with ``Compute(fold=False)``.

        Args:
            image: One like those that follow, C x spatial.
        """
        if not self.compute.fold or self.settle(image).precision in {"bf16", "fp16"}:
            yield
            return
        with fusion.folded(fusion.foldable_layers(self.model.modules, lambda: self(image[None]))):
            yield

    @torch.no_grad()
    def predict(self, images: Tensor) -> Tensor:
        """Return the predicted class of every pixel, N x H x W."""
        return self(images).argmax(1)

    def map(
        self, work: Callable[[slice], _Result], n_items: int, image: Tensor, *, stage: str | None = None
    ) -> _Result:
        """Do some work in batches that fit into the memory, and join the results along their first axis.

        Args:
            work: Computes the items of a slice of ``range(n_items)``: a tensor or a list with one entry an item, or a
                tuple of these. It must not change state outside itself.
            n_items: How many items there are, at least 1.
            image: One like those that the work passes through the network, C x spatial.
            stage: What the watcher is told after each batch.

        Raises:
            MisureError: If a single item does not fit.
        """
        results = []
        for part, result in self.batches(image).attempt(lambda p: self.in_any_layout(partial(work, p)), n_items):
            results.append(result)
            if stage is not None:
                self.tell(stage, part.stop, n_items)
        return joined(results)

    def recalled(
        self, work: Callable[[], tuple[Tensor, Tensor]], inputs: Sequence[Tensor], settings: Hashable
    ) -> tuple[Tensor, Tensor]:
        """Do some work once for the same batch and settings, where the model has a recall.

        The whole batch counts, because its composition can decide rounding. ``seconds_recalled`` grows by what the
        work took when it was done. Passes that are random or returned NaN are always made again.

        Args:
            work: Computes maps (bool, N x spatial) and a count for each (N).
            inputs: All tensors that it depends on, the images (N x C x spatial) first.
            settings: All else that it depends on, but for the network and the resources.
        """
        if (recall := self.model.recall) is None or self.model.draws_from:
            return work()
        image = inputs[0][0]
        key = (digest(inputs), self.compute, self.settle(image).precision, self.batches(image).size, settings)
        if (found := recall.find(key, self.device)) is not None:
            self.seconds_recalled += found[2]
            return found[:2]
        started = now(self.device)
        maps, counts = work()
        if self._unsound is None or not bool(self._unsound):
            recall.keep(key, maps, counts, now(self.device) - started)
        return maps, counts

    def batches(self, image: Tensor) -> Batches:
        """Return the batch cutter, sized on first use for images like this one (C x H x W).

        A network that mixes the images of a batch is given one at a time.
        """
        if self._batches is None:
            size = 1 if mixes_images(self.model.modules) else self.compute.batch_size
            if size == "auto":
                measured = self.model.activation_bytes
                if image.shape not in measured:
                    measured[image.shape] = self._activation_bytes(image)
                size = automatic_batch_size(self.device, measured[image.shape])
            self._batches = Batches(int(size))
        return self._batches

    def _activation_bytes(self, image: Tensor) -> int:
        """Measure what a forward and backward pass of one image keeps, or assume it where nothing can be watched."""
        with self.sources.kept():
            measured = activation_bytes(self.model.modules, lambda: self(image[None]))
        return 2 * measured or image.numel() * image.element_size() * _UNKNOWN_ACTIVATIONS


@contextmanager
def frozen(
    model: SegmentationModel, compute: Compute, device: torch.device, watch: Watch | None = None, seed: int = 0
) -> Iterator[FrozenNetwork]:
    """Lend a network for explanation and give it back exactly as it was, by :func:`misure.models.lending.lent`.

    Args:
        model: The adapted network.
        compute: Precision and batch size.
        device: Where the images are.
        watch: Sees every step of the explanation and can stop it.
        seed: Of the random numbers that the network draws.
    """
    lowest = replace(compute, channels_last=compute.channels_last and model.takes_channels_last)
    with lent(model.network, lowest, device, seed) as sources:
        network = FrozenNetwork(model, compute, device, watch, sources)
        yield network
        network.check_sound()
