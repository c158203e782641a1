"""Readings: ways to understand what the paper's text leaves open, as the sweeps that compare them list them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import pandas as pd
from omegaconf import OmegaConf

from misure.config import split_values
from misure.explainers import EXPLAINERS
from misure.io.installed import CONFIG_FOLDER
from misure.paper.extensions.paired import KEY
from misure.paper.published import Pair
from misure.paper.query import at_threshold, select

ENOUGH_IMAGES = 10
"""Fewer images give no verdict: a bootstrap of so few is no interval."""


@dataclass(frozen=True)
class Reading:
    """One way to understand the paper.

    Attributes:
        explainer: The method's name.
        title: The reading in words.
        parameters: What it sets of the method.
        swept: Whether its sweep runs it; another is shown only where there are records.
    """

    explainer: str
    title: str
    parameters: tuple[tuple[str, Any], ...] = ()
    swept: bool = True

    @cached_property
    def literal(self) -> bool:
        """Whether it is the literal reading, which the defaults are."""
        usual = EXPLAINERS[self.explainer].published().parameters
        return all(usual[name] == value for name, value in self.parameters)

    def differs_on(self, pair: Pair) -> bool:
        """Tell whether it can differ from the literal reading, or is that.

        Black is zero where images are not normalised, and where there is one class the rest is the background.
        """
        same = set() if pair.mean else {("blanking", "black")}
        same |= set() if pair.classes else {("background", "rest")}
        return not self.parameters or bool({*self.parameters} - same)

    def rows(self, records: pd.DataFrame, threshold: float | None = None, **fixed: Any) -> pd.DataFrame:
        """Select its records, by image and class.

        Args:
            records: Of one dataset and model.
            threshold: At which the map was cut; None where it is the mask itself.
            **fixed: Further parameters that differ from the defaults.
        """
        selected = select(records, self.explainer, **fixed, **dict(self.parameters))
        return at_threshold(selected, threshold).set_index(KEY).sort_index()


@cache
def readings_of(sweep: str) -> tuple[Reading, ...]:
    """Return the readings that ``configs/sweep/<sweep>.yaml`` lists, in its order, the literal one first."""
    node = OmegaConf.load(Path(CONFIG_FOLDER, "sweep", f"{sweep}.yaml"))
    params = OmegaConf.select(node, "hydra.sweeper.params")
    swept = split_values(str(params.reading))
    listed: Any = OmegaConf.to_container(node.readings)
    return tuple(
        Reading(str(params.explainer), entry.pop("title"), tuple(entry.items()), name in swept)
        for name, entry in listed.items()
    )
