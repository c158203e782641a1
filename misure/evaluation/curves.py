"""Dice over every share of the image that a map can keep: by threshold, and by insertion and deletion (paper 2.3)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from misure.errors import MisureError
from misure.explainers.base import Explainer, methods
from misure.explanation import Explanation
from misure.metrics import Blanking, dice, keep
from misure.models.compute import Compute
from misure.models.wrapper import SegmentationModel, frozen
from misure.target import TargetBatch
from misure.validation import Whole, check_arguments

SMALLEST_RATIO = 0.05
"""The threshold curve starts where a map may keep this many times the object's pixels."""

Curve = Mapping[str, NDArray[Any]]
"""Arrays of one explanation by name, as :func:`explanation_curves` returns them."""

_MOST_POINTS = 100_000
"""Of a curve: more than distinct sets that images have, each of which takes a pass."""

_CLOSENESS = 3
"""Insertion and deletion steps grow as this power: objects are small, so most happens where few pixels are changed."""

_COUNTS = ("seed", "n_masks", "n_iterations", "thresholds")
"""Parameters that a profile changes without making another method."""


def is_plain(explainer: Explainer, scale: float = 1.0) -> bool:
    """Say whether a method is as published at a scale, except for its seed, thresholds and amount of work."""
    usual = type(explainer).published().at_scale(scale).parameters
    return all(value == usual[name] for name, value in explainer.parameters.items() if name not in _COUNTS)


def explanation_curves(
    model: SegmentationModel,
    explanation: Explanation,
    blanking: Blanking,
    compute: Compute,
    *,
    n_levels: Annotated[int, Whole(2, _MOST_POINTS)] = 16,
    n_steps: Annotated[int, Whole(1, _MOST_POINTS)] = 12,
) -> dict[str, NDArray[Any]]:
    """Measure what the network still finds of the object when more and more of a map's pixels are kept.

    Every set of pixels here is ``map > level``: pixels of equal value go in or out together. So of all sets that a
    threshold can choose, each point has the largest with at most the allowed number of pixels, and that may be none.

    A map that is evaluated without thresholds is itself the mask, min-max scaled where the method's maps are none: its
    zeros are left out at every level, and what lies outside its sufficient region is zero. Its threshold curve ends at
    ``mask > 0`` and stays there. Any other map's curve ends with the whole image. Insertion and deletion always go from
    one end to the other.

    Args:
        model: The adapted network.
        explanation: Made on this network.
        blanking: What switched-off pixels become.
        compute: Precision and batch size.
        n_levels: Points of the threshold curve, in equal steps of the logarithm of the allowed ratio.
        n_steps: Steps of insertion and of deletion; short where few pixels are changed.

    Returns:
        Arrays of ``n_levels`` values: ``curve_allowed`` (ratio of kept pixels to the object's that was allowed, from
        :data:`SMALLEST_RATIO` to the whole image), ``curve_levels`` (-inf where everything is kept), ``curve_dice``
        (0..1), ``curve_ratio`` (of what was really kept) and ``curve_region_ratio`` (the same, without pixels that
        blanking does not change). Arrays of ``n_steps + 1`` values: ``insertion_fraction`` and ``deletion_fraction``
        (share of all pixels that really was inserted or deleted, 0..1), ``insertion_dice`` and ``deletion_dice``.

    Raises:
        MisureError: If a number of points is too small or too large, the map or what the network returns for masked
            images is not finite, or a single image does not fit into the memory.
    """
    check_arguments(explanation_curves, locals())
    is_mask = explanation.evaluations[0].threshold is None
    ranked = _ranked(explanation, is_mask=is_mask)
    allowed = np.geomspace(SMALLEST_RATIO, ranked.size / explanation.target.size, n_levels)
    levels = _levels(ranked, np.floor(allowed * explanation.target.size + 1e-6))  # against rounding of the last
    levels = np.maximum(levels, 0) if is_mask else levels
    steps = _levels(ranked, np.round(ranked.size * np.linspace(0, 1, n_steps + 1) ** _CLOSENESS))
    every_level = np.concatenate([levels, steps, steps])
    inverted = np.arange(len(every_level)) >= len(levels) + len(steps)
    scores, changed = _scores(model, explanation, blanking, compute, (ranked, every_level, inverted))
    by_threshold, inserted, deleted = np.split(scores, [len(levels), len(levels) + len(steps)])
    fraction = _n_above(ranked, steps) / ranked.size
    return {
        "curve_allowed": allowed,
        "curve_levels": levels,
        "curve_dice": by_threshold,
        "curve_ratio": _n_above(ranked, levels) / explanation.target.size,
        "curve_region_ratio": _n_above(ranked[changed], levels) / explanation.target.size,
        "insertion_fraction": fraction,
        "insertion_dice": inserted,
        "deletion_fraction": fraction,
        "deletion_dice": deleted,
    }


def knots(curve: Curve) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the ends of the intervals of allowed ratios where Dice explained is known, and its values there.

    Each measured set is the largest for every allowed ratio from its own up to the one that it was chosen for.

    Returns:
        Ratios, not falling, and values 0..1; between two intervals the logarithm of the ratio is interpolated.
    """
    allowed = curve["curve_allowed"]
    before = np.append(allowed[:1], allowed[:-1])
    own = np.clip(curve["curve_ratio"], before, allowed)
    return np.column_stack([own, allowed]).ravel(), np.repeat(curve["curve_dice"], 2)


def dice_at(curve: Curve, ratio: float) -> float:
    """Return Dice explained when a ratio is allowed; NaN where the image has no room for it.

    Below the first measured ratio it is that of the first.
    """
    ratios, scores = knots(curve)
    if ratio > ratios[-1] * (1 + 1e-9):
        return float("nan")
    return float(np.interp(np.log10(ratio), np.log10(ratios), scores))


def area(curve: Curve, low: float, high: float) -> float:
    """Return the area under Dice explained against the logarithm of the allowed ratio, over the interval's width.

    Args:
        curve: Of one sample.
        low: The smallest ratio.
        high: The largest; the whole image where that is less.

    Returns:
        0..1: the mean Dice explained between the limits.
    """
    ratios, _ = knots(curve)
    high = min(high, float(ratios[-1]))
    ends = np.concatenate([[low], ratios[(ratios > low) & (ratios < high)], [high]])
    scores = [dice_at(curve, ratio) for ratio in ends]
    return float(np.trapezoid(scores, np.log10(ends)) / np.log10(high / low))


def _ranked(explanation: Explanation, *, is_mask: bool) -> NDArray[np.floating]:
    saliency = explanation.saliency
    method = next((method for method in methods() if method.name == explanation.method), Explainer)
    values: NDArray[np.floating] = (method.as_mask(saliency[None])[0] if is_mask else saliency).numpy()
    if is_mask and explanation.sufficient_region is not None:
        values = np.where(explanation.sufficient_region.numpy(), values, values.dtype.type(0))
    if not np.isfinite(values).all():
        raise MisureError("the map has NaN or infinite values, so its pixels have no order: explain the image again")
    return values


def _levels(ranked: NDArray[np.floating], allowed: NDArray[np.float64]) -> NDArray[np.floating]:
    """Return the lowest level above which at most the allowed numbers of pixels lie: that of the next pixel in line."""
    descending = np.append(np.sort(ranked, axis=None)[::-1], ranked.dtype.type(-np.inf))
    return descending[allowed.astype(np.int64)]


def _n_above(values: NDArray[np.floating], levels: NDArray[np.floating]) -> NDArray[np.int64]:
    """Count the values above each level."""
    counts: NDArray[np.int64] = values.size - np.searchsorted(np.sort(values, axis=None), levels, side="right")
    return counts


@torch.no_grad()
def _scores(
    model: SegmentationModel,
    explanation: Explanation,
    blanking: Blanking,
    compute: Compute,
    sets: tuple[NDArray[np.floating], NDArray[np.floating], NDArray[np.bool_]],
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return Dice for each level, and where blanking changes anything.

    Kept is what lies above the level, or with ``inverted`` everything else. A set that occurs several times is passed
    through the network once.
    """
    ranked, levels, inverted = sets
    _, first, place = np.unique(_identity(ranked, levels, inverted), return_index=True, return_inverse=True)
    device = model.device or explanation.image.device
    image = explanation.image.to(device)[None]
    values, cuts = (torch.from_numpy(array).to(device) for array in (ranked, levels[first]))
    flipped = torch.from_numpy(inverted[first]).to(device)
    target = TargetBatch.stack([explanation.target], device)  # broadcasts over the sets
    of_set = (-1, *(1,) * values.ndim)
    with frozen(model, compute, device) as network:
        baseline = blanking.baseline(network, image)

        def work(part: slice) -> Tensor:
            masks = (values > cuts[part].view(of_set)) ^ flipped[part].view(of_set)
            return dice(target.hits(network(keep(image, masks, baseline))), target.regions)

        done = network.map(work, len(first), image[0])
        changed = (image != (0 if baseline is None else baseline)).any(1)[0]
    return done.cpu().numpy()[place], changed.cpu().numpy()


def _identity(
    ranked: NDArray[np.floating], levels: NDArray[np.floating], inverted: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """Give equal sets an equal number: sets above a level are told apart by their size."""
    n_above = _n_above(ranked, levels)
    n_kept = np.where(inverted, ranked.size - n_above, n_above)
    partial = (n_kept > 0) & (n_kept < ranked.size)
    return np.where(inverted & partial, -n_kept, n_kept)
