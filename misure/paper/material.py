"""Records, maps and volume scores that tables, figures, claims and the report are made from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

import pandas as pd

from misure.paper.published import Pair

_P = ParamSpec("_P")
_R = TypeVar("_R")

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
        made: What several tables and figures are made from, see :func:`made_once`.
    """

    run: pd.DataFrame
    profile: str
    maps_folder: Path
    volumes: pd.DataFrame
    pairs: Sequence[Pair]
    further: Sequence[Pair] = ()
    reference: Material | None = None
    made: dict[tuple[Any, ...], Any] = field(default_factory=dict, init=False, repr=False)

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


def made_once(make: Callable[Concatenate[Material, _P], _R]) -> Callable[Concatenate[Material, _P], _R]:
    """Let several tables and figures of one material share what they are made from; none of them may change it."""

    @wraps(make)
    def shared(material: Material, /, *arguments: _P.args, **named: _P.kwargs) -> _R:
        key = (make, *arguments, *named.items())
        if key not in material.made:
            material.made[key] = make(material, *arguments, **named)
        return material.made[key]  # type: ignore[no-any-return]

    return shared
