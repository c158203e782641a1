"""A fitted reliability classifier: plain numbers, saved as JSON, applied to new explanations."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from misure.errors import MisureError
from misure.explanation import Explanation
from misure.io.atomic import write_atomically
from misure.io.reading import reading
from misure.reliability.classifier import design, labels_of, obstacle, pipeline
from misure.validation import AtLeast, Count, OneOf, Share, check, check_arguments, check_fields, path_of, shown

FEATURES = ("n_dilations", "dice_explained", "perturbation_ratio")
"""What the paper reads off an explanation (5.5)."""

RELIABLE_FROM = 0.9
"""Dice with the ground truth from which the paper calls a prediction correct (Table 7)."""

FORMAT_VERSION = 1


@dataclass(frozen=True)
class Reliability:
    """How far a prediction can be trusted.

    Attributes:
        probability: That its Dice with the ground truth reaches the model's label threshold, 0..1.
        features: What the probability was computed from, by name, untransformed.
    """

    probability: float
    features: Mapping[str, float]


@dataclass(frozen=True)
class NotFitted:
    """Why there is no classifier for a class.

    Attributes:
        class_name: The class.
        reason: One line.
        n: Samples there were.
        prevalence: Share of them that was reliable; NaN without samples.
    """

    class_name: str
    reason: str
    n: int
    prevalence: float


@dataclass(frozen=True)
class ReliabilityModel:
    """A fitted classifier of one class.

    Attributes:
        class_name: The class it was fitted to.
        means: Of the features, after log1p of the ratio, in the order of ``features``.
        scales: Their standard deviations (1 for a constant feature), all above 0.
        coefficients: Of the scaled features.
        intercept: Log-odds at the means.
        label_threshold: Dice with the ground truth from which a sample counted as reliable.
        n: Samples fitted to.
        prevalence: Share of them that was reliable.
        source: Where the samples came from.
        versions: Package versions.
        features: Always :data:`FEATURES`, so that the file can be read by itself.
        format_version: Of the JSON.
    """

    class_name: str
    means: tuple[float, ...]
    scales: tuple[Annotated[float, AtLeast(1e-300)], ...]
    coefficients: tuple[float, ...]
    intercept: float
    label_threshold: float
    n: Count
    prevalence: Share
    source: str
    versions: Mapping[str, str]
    features: tuple[str, ...] = FEATURES
    format_version: int = field(default=FORMAT_VERSION)

    def __post_init__(self) -> None:
        check_fields(self)
        check("features", tuple(self.features), OneOf((FEATURES,)))
        for name in ("means", "scales", "coefficients"):
            if len(getattr(self, name)) != len(FEATURES):
                raise MisureError(f"{name}={shown(getattr(self, name))} is not one number for each feature")

    def probabilities(self, rows: pd.DataFrame) -> NDArray[np.float64]:
        """Return one probability of being reliable per row.

        Args:
            rows: With the columns of ``features``, untransformed.

        Raises:
            MisureError: If a column is missing or a value is not usable.
        """
        check_arguments(ReliabilityModel.probabilities, locals())
        scaled = (design(rows, self.features) - self.means) / self.scales
        log_odds = scaled @ np.array(self.coefficients) + self.intercept
        return np.asarray(np.exp(-np.logaddexp(0, -log_odds)))

    def predict(self, explanation: Explanation) -> Reliability:
        """Judge the prediction that an explanation is about.

        Args:
            explanation: Of method ``"msr"``, with the parameters that the training samples were explained with.

        Raises:
            MisureError: If it comes from another method.
        """
        check_arguments(ReliabilityModel.predict, locals())
        if explanation.method != "msr" or explanation.n_dilations is None:
            raise MisureError(
                f"an explanation by {explanation.method} lacks the features ({', '.join(self.features)}) "
                'of the minimally sufficient region: explain with method="msr"'
            )
        values = {name: float(getattr(explanation, name)) for name in self.features}
        return Reliability(float(self.probabilities(pd.DataFrame([values]))[0]), values)

    def save(self, path: Path | str) -> Path:
        """Write a JSON file, whole or not at all.

        Raises:
            MisureError: If the place cannot be written.
        """
        text = json.dumps(asdict(self), indent=2, allow_nan=False) + "\n"
        return write_atomically(path_of("path", path), lambda partial: partial.write_text(text, encoding="utf-8"))

    @classmethod
    def load(cls, path: Path | str) -> ReliabilityModel:
        """Read what :meth:`save` wrote.

        Raises:
            MisureError: If the file is missing, damaged or of another format.
        """
        path = path_of("path", path)
        if not path.exists():
            raise MisureError(f"there is no reliability model {path}: fit one and save it there")
        with reading(path, "fit the reliability model again and save it there"):
            raw = json.loads(path.read_text(encoding="utf-8"))
            _check_keys(raw)
            try:
                values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in raw.items()}
                return cls(**values)
            except MisureError as error:
                raise ValueError(f"unusable: {error}") from error


def fit(
    features: pd.DataFrame,
    reliable: Any,
    *,
    class_name: str,
    threshold: Share = RELIABLE_FROM,
    source: str = "",
) -> ReliabilityModel | NotFitted:
    """Fit a classifier to one class's samples.

    Args:
        features: One row per sample, with the columns :data:`FEATURES`.
        reliable: Whether each sample's Dice with the ground truth reaches ``threshold``: a column, list or array of
            truth values, of 0 and 1, or of the words true and false.
        class_name: Of the samples, for the record.
        threshold: What ``reliable`` was decided with, for the record.
        source: Where the samples came from, for the record.

    Returns:
        The classifier, or why there is none: one label value only, or fewer than 20 samples or than 5 of
        either label, which is too little to fit four numbers.

    Raises:
        MisureError: If columns are missing, values are not finite, the lengths differ or a label is none.
    """
    check_arguments(fit, locals())
    labels = labels_of(reliable)
    if len(features) != len(labels):
        raise MisureError(f"{len(features)} samples but {len(labels)} labels: pass one label per sample")
    inputs = design(features, FEATURES)
    prevalence = float(labels.mean()) if len(labels) else math.nan
    if reason := obstacle(labels):
        return NotFitted(class_name, reason, len(labels), prevalence)
    fitted = pipeline().fit(inputs, labels)
    scaler, regression = fitted[0], fitted[1]
    return ReliabilityModel(
        class_name=class_name,
        means=tuple(scaler.mean_.tolist()),
        scales=tuple(scaler.scale_.tolist()),
        coefficients=tuple(regression.coef_[0].tolist()),
        intercept=float(regression.intercept_[0]),
        label_threshold=float(threshold),
        n=len(labels),
        prevalence=prevalence,
        source=source,
        versions={name: metadata.version(name) for name in ("misure", "scikit-learn", "numpy")},
    )


def _check_keys(raw: Any) -> None:
    """Raise ValueError with the reason unless a JSON value has a model's keys."""
    if not isinstance(raw, dict):
        raise ValueError("it is not a JSON object")  # noqa: TRY004 - one kind of damage among others
    if raw.get("format_version") != FORMAT_VERSION:
        raise ValueError(f"it has format {raw.get('format_version')}, this version reads {FORMAT_VERSION}")
    names = {single.name for single in fields(ReliabilityModel)}
    if differing := sorted(names ^ raw.keys()):
        raise ValueError(f"it lacks or has in excess: {', '.join(differing)}")
