"""Cross-validation by two protocols, for the paper's features and two baselines on the same folds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from misure.errors import MisureError, did_you_mean
from misure.reliability.classifier import design, need_scikit_learn, numeric, obstacle, pipeline
from misure.reliability.model import FEATURES, RELIABLE_FROM
from misure.validation import Share, Whole, check_arguments

PROTOCOLS = ("paper", "honest")
"""``"paper"``: five stratified folds of slices, whatever volume they come from (assumed; the paper states no split).
``"honest"``: five folds of whole volumes, stratified as far as volumes allow."""

FEATURE_SETS = {"explanation": FEATURES, "size": ("prediction_size",), "confidence": ("confidence",)}
"""What a classifier may look at: the paper's three features, or one of two baselines that need no explanation."""

N_FOLDS = 5

Seed = Annotated[int, Whole(0, 2**32 - 1)]
"""What scikit-learn takes as one."""

_NEEDED = (*FEATURES, "truth_dice", "group")
_EVENTS_PER_FEATURE = 10
"""The usual rule of thumb for logistic regression; below it the coefficients are unstable."""


@dataclass(frozen=True)
class Samples:
    """Samples that can be used, in the order of the records.

    Attributes:
        rows: The records, index 0..N-1.
        reliable: Whether their Dice with the ground truth reaches the threshold, N.
        groups: The volume each comes from, N.
        n_left_out: Records without ground truth (a Dice from 0 to 1), volume or one of the paper's features.
    """

    rows: pd.DataFrame
    reliable: NDArray[np.bool_]
    groups: NDArray[np.str_]
    n_left_out: int

    @property
    def prevalence(self) -> float:
        """Share of reliable samples; NaN without samples."""
        return float(self.reliable.mean()) if len(self.reliable) else float("nan")

    @property
    def majority_accuracy(self) -> float:
        """Accuracy of always naming the more frequent label; NaN without samples."""
        return max(self.prevalence, 1 - self.prevalence)

    @property
    def n_volumes(self) -> int:
        """Number of different volumes."""
        return len(set(self.groups.tolist()))


@dataclass(frozen=True)
class OutOfFold:
    """Probabilities of samples from classifiers that were fitted without them.

    Attributes:
        probabilities: Of being reliable, N; NaN where undefined.
        folds: The fold that each sample was tested in, N; -1 where undefined.
        reliable: The labels, N.
        groups: The volumes, N.
        reason: Why it is undefined; empty where it is defined.
        notes: What the numbers should be read with.
    """

    probabilities: NDArray[np.float64]
    folds: NDArray[np.int64]
    reliable: NDArray[np.bool_]
    groups: NDArray[np.str_]
    reason: str = ""
    notes: tuple[str, ...] = ()


def usable_samples(rows: pd.DataFrame, threshold: Share = RELIABLE_FROM) -> Samples:
    """Label records and leave out those that cannot be used.

    Args:
        rows: MSR's records, one row per sample, with :data:`FEATURES`, ``truth_dice`` and ``group``;
            ``prediction_size`` and ``confidence`` for the baselines.
        threshold: Dice with the ground truth from which a sample is reliable.

    Raises:
        MisureError: If a column is missing.
    """
    check_arguments(usable_samples, locals())
    if missing := [name for name in _NEEDED if name not in rows.columns]:
        raise MisureError(f"the records lack the columns {', '.join(missing)}: delete them and run MSR again")
    numbers = numeric(rows, [*FEATURES, "truth_dice"])
    usable = (
        np.isfinite(numbers).all(axis=1)
        & (numbers[:, -1] >= 0)
        & (numbers[:, -1] <= 1)
        & rows["group"].notna().to_numpy(dtype=bool)
    )
    kept = rows[usable].reset_index(drop=True)
    return Samples(
        kept,
        numbers[usable, -1] >= threshold,
        np.array([str(group) for group in kept["group"]], dtype=np.str_),
        len(rows) - len(kept),
    )


def fold_numbers(
    reliable: NDArray[np.bool_], groups: NDArray[np.str_], protocol: str, seed: int = 0
) -> NDArray[np.int64]:
    """Assign samples to at most five folds.

    Args:
        reliable: Labels, N, at least five of each.
        groups: Volumes, N, at least two different ones for ``"honest"``.
        protocol: One of :data:`PROTOCOLS`.
        seed: Of the shuffling.

    Returns:
        The fold each sample is tested in, N. With ``"honest"`` a volume lies in one fold.

    Raises:
        MisureError: If there is no such protocol, or scikit-learn is not installed.
    """
    if protocol not in PROTOCOLS:
        raise MisureError(f"there is no protocol {protocol!r}{did_you_mean(protocol, PROTOCOLS)}")
    need_scikit_learn()
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    inputs = np.zeros((len(reliable), 1))
    if protocol == "paper":
        splits = StratifiedKFold(N_FOLDS, shuffle=True, random_state=seed).split(inputs, reliable)
    else:
        n_folds = min(N_FOLDS, len(np.unique(groups)))
        splits = StratifiedGroupKFold(n_folds, shuffle=True, random_state=seed).split(inputs, reliable, groups)
    folds = np.full(len(reliable), -1, dtype=np.int64)
    for number, (_, tested) in enumerate(splits):
        folds[tested] = number
    return folds


def cross_validate(samples: Samples, protocol: str, features: Sequence[str] = FEATURES, *, seed: Seed = 0) -> OutOfFold:
    """Predict every sample by a classifier fitted without its fold; scaling is fitted inside the fold as well.

    Where a fold's training samples hold a single label, their prevalence (0 or 1) is predicted, and said.

    Args:
        samples: The samples; all feature sets share their folds.
        protocol: One of :data:`PROTOCOLS`.
        features: Columns the classifier sees, such as a value of :data:`FEATURE_SETS`.
        seed: Of the folds.

    Returns:
        Probabilities, or the reason why there are none.

    Raises:
        MisureError: If there is no such protocol, or scikit-learn is not installed.
    """
    check_arguments(cross_validate, locals())
    reliable, groups = samples.reliable, samples.groups
    undefined = np.full(len(reliable), np.nan), np.full(len(reliable), -1, dtype=np.int64), reliable, groups
    if reason := _obstacle(samples, protocol, features):
        return OutOfFold(*undefined, reason)
    inputs = design(samples.rows, features)
    folds = fold_numbers(reliable, groups, protocol, seed)
    probabilities = np.empty(len(reliable))
    single = 0
    tested = np.unique(folds)
    for number in tested:
        held_out = folds == number
        labels = reliable[~held_out]
        if labels.all() or not labels.any():
            single += 1
            probabilities[held_out] = labels.any()
        else:
            fitted = pipeline().fit(inputs[~held_out], labels)
            probabilities[held_out] = fitted.predict_proba(inputs[held_out])[:, 1]
    if single == len(tested):
        return OutOfFold(*undefined, "both labels never occur together outside a fold")
    notes = _notes(samples, features, folds, single)
    return OutOfFold(probabilities, folds, reliable, groups, "", notes)


def _obstacle(samples: Samples, protocol: str, features: Sequence[str]) -> str:
    if reason := obstacle(samples.reliable):
        return reason
    if protocol == "honest" and samples.n_volumes < 2:
        return f"{samples.n_volumes} volume: at least 2 are needed to hold one out"
    for name in features:
        finite = int(np.isfinite(numeric(samples.rows, [name])).sum()) if name in samples.rows.columns else 0
        if finite < len(samples.rows):
            return f"{name} known for {finite} of {len(samples.rows)} samples"
    return ""


def _notes(samples: Samples, features: Sequence[str], folds: NDArray[np.int64], single: int) -> tuple[str, ...]:
    notes = []
    labels = [samples.reliable[folds == number] for number in np.unique(folds)]
    if len(labels) < N_FOLDS:
        notes.append(f"{len(labels)} folds")
    if single:
        notes.append(f"training samples of one label in {single} of {len(labels)} folds: their prevalence predicted")
    if all(part.all() or not part.any() for part in labels):
        notes.append("no AUROC and AUPRC: no fold tests both labels")
    rarer = int(min(samples.reliable.sum(), (~samples.reliable).sum()))
    if rarer < _EVENTS_PER_FEATURE * len(features):
        notes.append(
            f"unstable: {rarer} samples of the rarer label (rule of thumb: {_EVENTS_PER_FEATURE * len(features)})"
        )
    return tuple(notes)
