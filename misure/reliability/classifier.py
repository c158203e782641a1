"""The classifier: scaling and logistic regression, and when there is too little to fit one."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Sequence
from numbers import Real
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from misure.errors import MisureError
from misure.validation import plain, shown

MINIMUM_SAMPLES = 20
"""Five for each of the four numbers fitted (three slopes and the intercept)."""

MINIMUM_PER_LABEL = 5
"""One for each of five stratified folds, so that every fold tests both labels."""

_LOGARITHMIC = ("perturbation_ratio", "prediction_size")
"""Features over several orders of magnitude: log1p brings their tail to the scale of the rest."""


def design(rows: pd.DataFrame, names: Sequence[str]) -> NDArray[np.float64]:
    """Return the classifier's input before scaling: N x features, log1p of ratio and size.

    Args:
        rows: One row per sample.
        names: Columns to take.

    Raises:
        MisureError: If a column is missing or holds something that is not a finite number, or if a
            ratio or size is negative.
    """
    if not len(names):
        raise MisureError("no features are named: give the columns that the classifier looks at")
    if missing := [name for name in names if name not in rows.columns]:
        raise MisureError(f"the samples lack the columns {', '.join(missing)}: pass records of method msr")
    values = numeric(rows, names)
    unusable = ~np.isfinite(values)
    for column, name in enumerate(names):
        if name in _LOGARITHMIC:
            unusable[:, column] |= values[:, column] < 0
            values[:, column] = np.log1p(np.maximum(values[:, column], 0))
        if bad := int(unusable[:, column].sum()):
            raise MisureError(f"{bad} of {len(values)} samples have no usable {name}: leave those samples out")
    return values


def numeric(rows: pd.DataFrame, names: Sequence[str]) -> NDArray[np.float64]:
    """Return columns as a new array, N x names; NaN where something is neither a number nor one as text.

    Raises:
        MisureError: If several columns have one of the names.
    """
    return np.stack([_numbers(rows, name) for name in names], axis=1)


def _numbers(rows: pd.DataFrame, name: str) -> NDArray[np.float64]:
    column: Any = rows[name]
    if isinstance(column, pd.DataFrame):
        raise MisureError(f"the samples have {column.shape[1]} columns {name}: keep one of them")
    if column.dtype.kind not in "biuf":
        column = column.map(_number).astype(np.float64)
    numbers: NDArray[np.float64] = column.to_numpy(dtype=np.float64, na_value=np.nan)
    return numbers


def _number(value: Any) -> float:
    try:
        return float(value) if isinstance(value, Real | str) else math.nan
    except (ValueError, OverflowError):
        return math.nan


def labels_of(values: Any) -> NDArray[np.bool_]:
    """Return labels as truth values.

    Args:
        values: A list, an array or a column of truth values, of the numbers 0 and 1 or of the words true and false
            (in letters of any size).

    Raises:
        MisureError: On anything else, which it names.
    """
    column = values if isinstance(values, pd.Series) else plain(values)
    if not isinstance(column, pd.Series | list | tuple):
        raise MisureError(
            f"the labels are a {type(values).__name__}: give a list, an array or a column of truth values"
        )
    column = pd.Series(column, dtype=None if isinstance(column, pd.Series) else object)
    if column.dtype != np.bool_:
        for row, value in column.items():
            if _label(value) is None:
                raise MisureError(
                    f"the label of row {row} is {shown(value)}: give True or False, or leave the sample out"
                )
        column = column.map(_label)
    return column.to_numpy(dtype=np.bool_)


def _label(value: Any) -> bool | None:
    if isinstance(value, str):
        return {"true": True, "false": False}.get(value.lower())
    found = plain(value)
    return bool(found) if isinstance(found, Real) and found in {0, 1} else None


def obstacle(reliable: NDArray[np.bool_]) -> str:
    """Say why nothing can be fitted to these labels; empty where it can.

    Args:
        reliable: One label per sample.
    """
    n, positives = len(reliable), int(reliable.sum())
    reasons = []
    if not n:
        return "no samples"
    if positives in {0, n}:
        reasons.append(f"all {n} reliable" if positives else f"none of {n} reliable")
    if n < MINIMUM_SAMPLES:
        reasons.append(f"too few samples: {n} of at least {MINIMUM_SAMPLES}")
    elif not reasons and (rarer := min(positives, n - positives)) < MINIMUM_PER_LABEL:
        label = "reliable" if rarer == positives else "unreliable"
        reasons.append(f"too few {label} samples: {rarer} of at least {MINIMUM_PER_LABEL}")
    return "; ".join(reasons)


def pipeline() -> Any:
    """Return an unfitted scikit-learn pipeline: StandardScaler, then LogisticRegression at its defaults (L2, C = 1).

    Raises:
        MisureError: If scikit-learn is not installed.
    """
    need_scikit_learn()
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))


def need_scikit_learn() -> None:
    """Raise a MisureError that says what to install if scikit-learn is absent."""
    if importlib.util.find_spec("sklearn") is None:
        raise MisureError('the reliability classifier needs scikit-learn: pip install "misure[reliability]"')
