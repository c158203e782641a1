"""Claims about Table 1 (5.1, 5.2): Dice explained, perturbation ratio and thresholds of the three methods."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from misure.paper.claims.claim import Finding, Over, Part
from misure.paper.claims.samples import (
    CAM_HIGH,
    CAM_LOW,
    MSR,
    RISE_HIGH,
    RISE_LOW,
    SUFFICIENT,
    Subject,
    Values,
    shift,
    unpaired,
)
from misure.paper.claims.significance import FEWEST_GROUPS
from misure.paper.published import Pair
from misure.paper.source import Origin

ORDER_OF_MAGNITUDE = 10.0

_TABLE = "table1"
_OTHERS = (CAM_LOW, CAM_HIGH, RISE_LOW, RISE_HIGH)
_DICE, _RATIO = "dice_explained", "perturbation_ratio"


def comparison_findings(subject: Subject) -> Iterator[Finding]:
    """Test what the paper says of the methods on one dataset and model."""
    pair, origin = subject.pair, subject.origin

    def finding(name: str, section: str, statement: str, *parts: Part) -> Finding:
        return Finding(name, section, statement, pair, parts, origin, _TABLE)

    yield finding(
        "stage2-prunes",
        "5.1",
        "The optimisation prunes the sufficient region: MSR's ratio is below that of SR.",
        subject.higher(_RATIO, SUFFICIENT, MSR),
    )
    yield finding(
        "rise-best-dice",
        "5.2",
        "RISE at 0.2 has the highest Dice explained.",
        *(subject.higher(_DICE, RISE_LOW, other) for other in (MSR, RISE_HIGH, CAM_LOW, CAM_HIGH)),
    )
    yield finding(
        "msr-second-dice",
        "5.2",
        "MSR follows RISE at 0.2 in Dice explained, ahead of all others.",
        *(subject.higher(_DICE, MSR, other) for other in (RISE_HIGH, CAM_LOW, CAM_HIGH)),
    )
    yield finding(
        "msr-lowest-ratio",
        "5.2",
        "MSR has the lowest perturbation ratio.",
        *(subject.higher(_RATIO, other, MSR) for other in _OTHERS),
    )
    yield finding(
        "msr-order-of-magnitude",
        "5.2",
        "MSR's perturbation ratio is an order of magnitude (10 times) below each of the others.",
        *(subject.times_higher(_RATIO, other, MSR, ORDER_OF_MAGNITUDE) for other in _OTHERS),
    )
    above = pair.dataset == "synapse"
    yield finding(
        f"msr-ratio-{'above' if above else 'below'}-1",
        "5.2",
        f"MSR needs {'more' if above else 'fewer'} pixels than the object has: its ratio is "
        f"{'above' if above else 'below'} 1.",
        subject.beyond(_RATIO, MSR, 1.0, above=above),
    )
    for name, low, high in (("rise", RISE_LOW, RISE_HIGH), ("cam", CAM_LOW, CAM_HIGH)):
        yield finding(
            f"threshold-{name}",
            "5.2",
            f"A lower threshold raises Dice explained and ratio: {low.label} against {high.threshold:g}.",
            subject.higher(_DICE, low, high),
            subject.higher(_RATIO, low, high),
        )
    if pair.dataset != "coco":
        yield finding(
            "cam-poor",
            "5.2",
            "Seg-Grad-CAM does not do well: at 0.05 it explains less Dice than MSR and than RISE at 0.2, and its "
            "ratio is above MSR's.",
            subject.higher(_DICE, MSR, CAM_LOW),
            subject.higher(_DICE, RISE_LOW, CAM_LOW),
            subject.higher(_RATIO, CAM_LOW, MSR),
        )


def network_findings(subjects: Mapping[Pair, Subject]) -> Iterator[Finding]:
    """Test what the paper says across datasets and models."""
    by_dataset: dict[str, list[Subject]] = {}
    for subject in subjects.values():
        by_dataset.setdefault(subject.pair.dataset, []).append(subject)
    for convolutional, transformer in (pair for pair in by_dataset.values() if len(pair) == 2):
        yield _transformer(convolutional, transformer)
    photographs = [subject for subject in subjects.values() if subject.pair.dataset == "coco"]
    others = [subject for subject in subjects.values() if subject.pair.dataset != "coco"]
    if photographs and others:
        yield _best_dataset(photographs[0], others)


def _transformer(convolutional: Subject, transformer: Subject) -> Finding:
    labels = [subject.pair.model_label for subject in (convolutional, transformer)]
    return Finding(
        "cam-worse-on-transformer",
        "5.2",
        f"Seg-Grad-CAM is worse on {labels[1]} than on {labels[0]}: its Dice explained is lower at both thresholds.",
        convolutional.pair,
        [_between(convolutional, transformer, threshold) for threshold in (0.05, 0.1)],
        _joint_origin(convolutional, transformer),
        _TABLE,
        over=Over.MODELS,
    )


def _between(convolutional: Subject, transformer: Subject, threshold: float) -> Part:
    """Compare over the samples that both networks' explanations share, or where they are few over all."""
    method = CAM_LOW if threshold == CAM_LOW.threshold else CAM_HIGH
    labels = [subject.pair.model_label for subject in (convolutional, transformer)]
    statistic = f"mean difference in Dice explained of {method.label}, {labels[0]} minus {labels[1]}"
    first, second = (subject.rows(method) for subject in (convolutional, transformer))
    shared = first.index.intersection(second.index)
    if first.loc[shared, "place"].nunique() >= FEWEST_GROUPS:
        differences = (first.loc[shared, _DICE] - second.loc[shared, _DICE]).to_numpy(dtype=float)
        units = tuple(sorted({*first.loc[shared, "unit"], *second.loc[shared, "unit"]}))
        groups = first.loc[shared, "place"].to_numpy(dtype=np.int64)
        return shift(f"{statistic}, same samples", Values(differences, groups, units, convolutional.group_word), 0.0)
    sides = [subject.table(_DICE, method)[1] for subject in (convolutional, transformer)]
    return unpaired(f"{statistic}, each network's own samples", *sides)


def _best_dataset(photographs: Subject, others: list[Subject]) -> Finding:
    parts = []
    for other in others:
        gaps = []
        for subject in (other, photographs):
            (msr, cam), samples = subject.table(_DICE, MSR, CAM_LOW)
            gaps.append(samples.of(msr - cam))
        statistic = (
            f"lead of MSR over {CAM_LOW.label} in Dice explained, {other.pair.label} minus {photographs.pair.label}"
        )
        parts.append(unpaired(statistic, *gaps))
    return Finding(
        "cam-best-on-coco",
        "5.2",
        "COCO-2017 is the only dataset where Seg-Grad-CAM does comparatively well: at 0.05 it lies less far behind "
        "MSR in Dice explained there than elsewhere.",
        photographs.pair,
        parts,
        _joint_origin(photographs, *others),
        _TABLE,
        over=Over.DATASETS,
    )


def _joint_origin(*subjects: Subject) -> Origin:
    origins = [subject.origin for subject in subjects]
    return Origin(
        ", ".join(dict.fromkeys(origin.source for origin in origins if origin.source)),
        any(origin.stand_in for origin in origins),
        ", ".join(dict.fromkeys(origin.substitution for origin in origins if origin.substitution)),
    )
