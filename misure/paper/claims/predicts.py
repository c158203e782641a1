"""Claims about reliability (5.5): whether MSR's features tell good predictions from bad ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from misure.paper.claims.claim import Finding, Part
from misure.paper.claims.samples import Subject
from misure.paper.claims.significance import FEWEST_GROUPS, bootstrap_p, group_weights, limits
from misure.paper.query import every_draw
from misure.paper.reliability import ALL_ORGANS, samples_by_organ
from misure.paper.source import Origin
from misure.reliability import FEATURE_SETS, OutOfFold, Samples, cross_validate
from misure.reliability.scores import area_under_curve, auroc

_CHANCE = 0.5
_PROTOCOL = "honest"


def reliability_findings(subject: Subject) -> Iterator[Finding]:
    """Test Table 7's message on one dataset and model, by folds of whole volumes."""
    pair, run = subject.pair, subject.material.run
    organs = samples_by_organ(run, pair)
    origin = Origin.of(every_draw(run, pair))

    def finding(name: str, statement: str, *parts: Part) -> Finding:
        return Finding(name, "5.5", statement, pair, parts, origin, "table7")

    yield finding(
        "reliability-all-organs",
        "MSR's features predict reliability, one classifier for all organs: its AUC on unseen volumes is above 0.5.",
        _above_chance(ALL_ORGANS, organs[ALL_ORGANS]),
    )
    yield finding(
        "reliability-each-organ",
        "MSR's features predict reliability in every organ: a classifier's AUC on unseen volumes is above 0.5.",
        *(_above_chance(name, samples) for name, samples in organs.items() if name != ALL_ORGANS),
    )
    yield finding(
        "reliability-beyond-size",
        "MSR's features predict reliability beyond what the prediction's size does (not tested by the paper).",
        _above_size(organs[ALL_ORGANS]),
    )


def _above_chance(organ: str, samples: Samples) -> Part:
    statistic = f"AUC of MSR's features minus 0.5, {organ}"
    return _tested(statistic, samples, [_held_out(samples, "explanation")], _CHANCE)


def _above_size(samples: Samples) -> Part:
    statistic = f"AUC of MSR's features minus AUC of prediction size, {ALL_ORGANS}"
    return _tested(statistic, samples, [_held_out(samples, name) for name in ("explanation", "size")], 0.0)


def _held_out(samples: Samples, features: str) -> OutOfFold:
    return cross_validate(samples, _PROTOCOL, FEATURE_SETS[features])


def _tested(statistic: str, samples: Samples, outs: Sequence[OutOfFold], chance: float) -> Part:
    """Test that the first AUC is above the second, or above chance, by a bootstrap over volumes."""
    counts: dict[str, Any] = {
        "n": len(samples.rows),
        "n_groups": samples.n_volumes,
        "units": tuple(samples.rows["unit"]),
    }
    reason = next((out.reason for out in outs if out.reason), "")
    if not reason and samples.n_volumes < FEWEST_GROUPS:
        reason = f"{samples.n_volumes} volumes, too few (it takes {FEWEST_GROUPS})"
    areas = [area_under_curve(out) for out in outs]
    if not reason and np.isnan(areas).any():
        reason = "no fold tests both labels"
    if reason:
        return Part(statistic, missing=f"{statistic}: {reason}", **counts)
    _, places = np.unique(samples.groups, return_inverse=True)
    weights = list(group_weights(places.astype(np.int64)))
    draws = _minus([np.concatenate([auroc(out, some) for some in weights]) for out in outs], chance)
    draws = draws[~np.isnan(draws)]
    value = float(_minus([np.array([area]) for area in areas], chance)[0])
    low, high = limits(draws)
    return Part(statistic, value, low, high, bootstrap_p(draws), value > 0, abs(value), **counts)


def _minus(areas: Sequence[NDArray[np.float64]], chance: float) -> NDArray[np.float64]:
    return areas[0] - (areas[1] if len(areas) > 1 else chance)
