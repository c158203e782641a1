"""Scores of many masks of RISE, kept in files as they are made, so that a measurement of hours can be cut short."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from misure.bench.measurement import PredictedSamples
from misure.errors import MisureError
from misure.explainers.perturbation import mask_scores
from misure.explainers.rise import RISE
from misure.io.atomic import write_atomically
from misure.models.compute import Compute
from misure.models.wrapper import FrozenNetwork, frozen
from misure.target import TargetBatch

AT_ONCE = 100
"""Masks between two writings: a whole block of stratified pairs."""

REFERENCE_SEED = 1_000_003
"""Of the reference's masks: no other run has them."""

_OF_MASKS = (
    "grid", "keep_probability", "style", "shift", "antithetic", "stratified", "seed", "blanking", "blur_sigma",
)  # fmt: skip
"""Parameters on which a mask's score depends."""


@dataclass(frozen=True)
class ScoredMasks:
    """Masks 0 to ``n_masks`` of one kind on one image.

    Attributes:
        kind: What the masks are for: ``"reference"``, ``"plain"``, ``"antithetic"`` or ``"stratified pairs"``.
        image: Index of the image.
        masks: Which masks.
        n_masks: How many of them are wanted, a multiple of :data:`AT_ONCE`.
        path: The file that keeps the scores.
    """

    kind: str
    image: int
    masks: RISE
    n_masks: int
    path: Path

    def scores(self) -> Tensor:
        """Return what is there: float64, K, in the order of the masks' numbers.

        Raises:
            MisureError: If the file is damaged.
        """
        if not self.path.is_file():
            return torch.zeros(0, dtype=torch.float64)
        try:
            kept = json.loads(self.path.read_text(encoding="utf-8"))
            return torch.tensor(kept, dtype=torch.float64)
        except (OSError, ValueError, TypeError) as error:
            raise MisureError(f"{self.path} cannot be read: delete it, its masks are scored anew") from error

    def add(self, scores: Tensor) -> None:
        """Keep the scores of the masks that come next."""
        kept = [*self.scores().tolist(), *scores.tolist()]
        write_atomically(self.path, lambda path: path.write_text(json.dumps(kept), encoding="utf-8"))


def all_masks(
    samples: PredictedSamples, explainer: RISE, n_masks: dict[str, int], compute: Compute, folder: Path
) -> list[ScoredMasks]:
    """Name the masks that are compared, and their files.

    Args:
        samples: The network and the images.
        explainer: Everything about the masks but their coupling.
        n_masks: By kind.
        compute: Of the network's passes.
        folder: Where scores are kept.
    """
    kinds = {
        "reference": replace(explainer, seed=REFERENCE_SEED, antithetic=True, stratified=True),
        "plain": replace(explainer, antithetic=False, stratified=False),
        "antithetic": replace(explainer, antithetic=True, stratified=False),
        "stratified pairs": replace(explainer, antithetic=True, stratified=True),
    }
    runs = []
    for image in range(len(samples.images)):
        for kind, masks in kinds.items():
            identity = [samples.setup.info.fingerprint, _content(samples, image), compute.precision]
            identity += [masks.parameters[name] for name in _OF_MASKS]
            digest = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:12]
            path = folder / f"{samples.setup.name}-{image}-{kind.replace(' ', '_')}-{digest}.json"
            runs.append(ScoredMasks(kind, image, masks, n_masks[kind], path))
    return runs


def _content(samples: PredictedSamples, image: int) -> str:
    """Return the fingerprint of an image and of what is explained in it."""
    target = samples.targets[image]
    content = hashlib.sha256(f"{target.class_id}".encode())
    for tensor in (samples.images[image], target.region):
        content.update(tensor.cpu().contiguous().numpy().tobytes())
    return content.hexdigest()


def score(samples: PredictedSamples, runs: Sequence[ScoredMasks], compute: Compute, max_minutes: float) -> None:
    """Score the masks that are missing, all runs in step, so that what is there can be compared at any time.

    Args:
        samples: The network and the images.
        runs: The masks.
        compute: Precision and batch size.
        max_minutes: After which the next masks are left to a later call.
    """
    end = time.monotonic() + 60 * max_minutes
    missing = list(_missing(runs))
    with (
        frozen(samples.setup.model, compute, samples.images.device) as network,
        network.folded(samples.images[0]),
        tqdm(total=AT_ONCE * len(missing), unit="mask", desc="masks", leave=False) as bar,
    ):
        for run, numbers in missing:
            if time.monotonic() >= end:
                break
            one = slice(run.image, run.image + 1)
            targets = TargetBatch.stack(samples.targets[one], samples.images.device)
            run.add(_scores(network, samples.images[one], targets, run.masks, numbers))
            bar.update(len(numbers))


def _missing(runs: Sequence[ScoredMasks]) -> Iterator[tuple[ScoredMasks, range]]:
    parts = [
        (first / run.n_masks, run, range(first, first + AT_ONCE))
        for run in runs
        for first in range(len(run.scores()), run.n_masks, AT_ONCE)
    ]
    for _, run, numbers in sorted(parts, key=lambda part: part[0]):
        yield run, numbers


@torch.no_grad()
def _scores(network: FrozenNetwork, images: Tensor, targets: TargetBatch, masks: RISE, numbers: range) -> Tensor:
    done = mask_scores(
        network,
        images,
        targets,
        baseline=masks.fill.baseline(network, images),
        make_masks=lambda k: masks.masks(k, images.shape[2:]),
        numbers=numbers,
    )
    return torch.cat([scores for _, scores, _ in done])
