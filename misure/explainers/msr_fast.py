"""MiSuRe in a third of the passes: larger steps, fewer of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from misure.explainers.msr import MSR
from misure.validation import Count, Weight


@dataclass(frozen=True, kw_only=True)
class FastMSR(MSR):
    """MSR with a learning rate of 0.3 and 33 iterations instead of 0.1 and 100.

    The values of a mask are clipped to [0, 1] and zeroed below 0.2 after every step, so that larger steps lead to about
    the same mask: Dice explained within 0.005 and the perturbation ratio within 5 % of the paper's setting on the
    networks that it was tried on, see the README.

    Reference:
        Hasany, Mériaudeau and Petitjean, MiSuRe is all you need to explain your image segmentation, 2024, sections 3.1
        and 4.2, https://arxiv.org/abs/2406.12173

    Attributes:
        lr: AdamW's learning rate.
        n_iterations: Optimiser steps.

    Example:
        >>> explanation = misure.explain(network, image, target=1, method=FastMSR(n_iterations=7, mask_size=16))
        >>> explanation.dice_explained, explanation.perturbation_ratio
        (1.0, 1.0)
    """

    name: ClassVar[str] = "msr_fast"
    title: ClassVar[str] = "MSR, fast"

    lr: Weight = 0.3
    n_iterations: Count = 33
