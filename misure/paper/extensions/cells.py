"""Cells of the paper's Tables 1 to 6, and the records of each reading at their settings."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pandas as pd

from misure.explainers import EXPLAINERS
from misure.paper.extensions.readings import Reading, readings_of
from misure.paper.published import Pair, PaperValue, lr_lambda_reference, table1_reference, table6_reference
from misure.paper.query import SETTING

_WORDS = {"lr": "learning rate", "lam": "lambda", "mask_size": "mask"}

_SWEEPS = ("ambiguities", "ambiguities_rise", "table5_readings")
"""Where readings are listed; the last has some for Table 5 alone."""


@dataclass(frozen=True)
class PrintedCell:
    """A row of Table 1 or a cell of Tables 2 to 6.

    Attributes:
        table: Its number.
        explainer: The method's name.
        paper: What is printed.
        threshold: At which the map was cut; None where it is the mask itself.
        varied: The parameters that its table varies.
    """

    table: int
    explainer: str
    paper: PaperValue
    threshold: float | None = None
    varied: tuple[tuple[str, float], ...] = ()

    @property
    def setting(self) -> str:
        """What its table varies, in words."""
        return ", ".join(f"{_WORDS[name]} {value:g}" for name, value in self.varied)

    @cached_property
    def changed(self) -> dict[str, float]:
        """What is not as in Table 1."""
        usual = EXPLAINERS[self.explainer].published().parameters
        return {name: value for name, value in self.varied if value != usual[name]}


def printed_cells(pair: Pair) -> Iterator[PrintedCell]:
    """List the cells of a dataset and model, in printed order."""
    names = {cls.title: name for name, cls in EXPLAINERS.items()}
    for (title, threshold), paper in table1_reference(pair).items():
        yield PrintedCell(1, names[title], paper, threshold)
    for (lam, lr), paper in lr_lambda_reference(pair).items():
        yield PrintedCell(pair.lr_lambda_table, "msr", paper, varied=(("lr", lr), ("lam", lam)))
    for size, paper in table6_reference(pair).items():
        yield PrintedCell(6, "msr", paper, varied=(("mask_size", size),))


def readings_at(cell: PrintedCell, pair: Pair, records: pd.DataFrame) -> dict[Reading, pd.DataFrame]:
    """Select the records of each reading at a cell's setting, by image and class, the literal reading first.

    Args:
        cell: Of the pair.
        pair: Dataset and model.
        records: Of the pair, as :func:`misure.paper.query.latest_run` returns them.

    Returns:
        At Table 1's settings every reading that its sweeps list, elsewhere those that were run.
    """
    method = EXPLAINERS[cell.explainer].published()
    usual = method.parameters
    own = records[records["explainer"].eq(cell.explainer)]
    settings = [json.loads(setting) for setting in own[SETTING].unique()]
    fixed = {name: value for name, value in cell.changed.items() if name not in method.in_pixels}
    literal = Reading(cell.explainer, "literal")
    found: set[frozenset[Any]] = {frozenset()}
    explained = {literal: literal.rows(own, cell.threshold, **cell.changed)}
    nothing = explained[literal].head(0)
    for sweep in _SWEEPS:
        for reading in readings_of(sweep):
            key, wanted = frozenset(reading.parameters), fixed | dict(reading.parameters)
            if key in found or reading.explainer != cell.explainer or not reading.differs_on(pair):
                continue
            was_run = any(all(s.get(k, usual[k]) == v for k, v in wanted.items()) for s in settings)
            rows = reading.rows(own, cell.threshold, **cell.changed) if was_run else nothing
            if len(rows) or (sweep != _SWEEPS[-1] and not cell.changed):
                found.add(key)
                explained[reading] = rows
    return explained
