"""Synthetic samples for the tests of reliability."""

from __future__ import annotations

import numpy as np
import pandas as pd


def records(n: int, volumes: int, seed: int = 0, *, signal: float = 1.0, between: float = 0.0) -> pd.DataFrame:
    """Samples whose ratio tells their quality by ``signal``; ``between`` is how much volumes differ in quality."""
    generator = np.random.default_rng(seed)
    volume = np.arange(n) % volumes
    quality = between * generator.normal(size=volumes)[volume] + generator.normal(size=n)
    return pd.DataFrame(
        {
            "n_dilations": generator.integers(0, 20, n),
            "dice_explained": 0.93 + 0.02 * generator.normal(size=n),
            "perturbation_ratio": np.exp(generator.normal(size=n) - signal * quality),
            "prediction_size": generator.integers(5, 5000, n),
            "confidence": generator.uniform(0.5, 1, n),
            "truth_dice": np.where(quality > 0, 0.95, 0.5),
            "group": [f"case{number:04d}" for number in volume],
        }
    )
