"""Records, maps and volume scores that tables, figures, claims and the report are made from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from misure.paper.published import Pair

_JUDGED = "synapse"
"""Where the paper predicts reliability; it does not name the network, so both are shown."""


@dataclass(frozen=True)
class Material:
    """What tables and figures are made from.

    Attributes:
        run: The records, as :func:`misure.paper.query.latest_run` returns them.
        profile: Of the run.
        maps_folder: Where the saved maps are.
        volumes: Scores of whole volumes, as :func:`misure.paper.tables.volumes.read_all` returns them.
        pairs: Datasets and models of the paper to show.
        further: Those with records that the paper does not have.
        reference: The run that ships, which tables show beside this one; None beside itself, or where none ships.
    """

    run: pd.DataFrame
    profile: str
    maps_folder: Path
    volumes: pd.DataFrame
    pairs: Sequence[Pair]
    further: Sequence[Pair] = ()
    reference: Material | None = None

    @property
    def shown(self) -> list[Pair]:
        """All datasets and models: the paper's, then the further ones."""
        return [*self.pairs, *self.further]

    @property
    def judged(self) -> list[Pair]:
        """Where reliability is predicted."""
        return [pair for pair in self.pairs if pair.dataset == _JUDGED]

    def like(self, pair: Pair) -> Pair:
        """Return what is shown here under the label of a pair: another network of ours may stand for the paper's."""
        return next((shown for shown in self.shown if shown.label == pair.label), pair)
