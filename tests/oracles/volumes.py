"""Random volumes for the tests of three-dimensional explanations."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def random_volumes(*shape: int, seed: int = 0) -> Tensor:
    """Normal values in float64, N x C x D x H x W."""
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape))
