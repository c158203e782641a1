"""Which of any number of records a page of bounded size shows: whole samples, of every network and class in turns."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from misure.paper.query import SAMPLE, SETTING

PAGE_BYTES = 25_000_000
"""What the page stays below, whatever the number of records: Plotly's script takes 5 MB of it, text and plots 4 MB."""

MOST_CARDS = 480
PICTURE_BYTES = 10_000_000
"""Characters of the gallery's pictures, all together."""

FIGURE_BYTES = 6_000_000
"""Characters of the figures, all together."""

MOST_POINTS = 1500
"""Of each plot; there are as many plots as datasets and networks, four in the paper."""

_NETWORK = ["dataset", "model"]


def turns(rows: pd.DataFrame) -> pd.Series:
    """Number the samples so that the first few are spread evenly.

    Datasets with their networks take turns, and in each its classes. A class begins with the samples that may be
    shown, among them with those that have the most rows, among them with the earliest draws.

    Args:
        rows: With the columns :data:`misure.paper.query.SAMPLE`, ``draw`` and ``showable``, any number a sample.

    Returns:
        The number of each row's sample, from 0.
    """
    draws = rows.assign(draw=pd.to_numeric(rows["draw"]))
    samples = draws.groupby(SAMPLE, as_index=False).agg(
        n=("sample", "size"), draw=("draw", "min"), showable=("showable", "any")
    )
    samples = samples.sort_values(["showable", "n", "draw", "sample"], ascending=[False, False, True, True])
    for group, next_in in (([*_NETWORK, "class_id"], "class_id"), (_NETWORK, "model")):
        place = samples.groupby(group).cumcount()
        samples = samples.assign(place=place).sort_values(["place", "dataset", next_in], kind="stable")
    samples = samples.assign(turn=range(len(samples)))
    return rows[SAMPLE].merge(samples, on=SAMPLE, how="left").set_axis(rows.index)["turn"]


def choose(units: pd.DataFrame, most: int = MOST_CARDS) -> list[list[str]]:
    """Choose explanations, the most important first, in groups that stand or fall together.

    First comes one of every dataset, network and method, at the paper's setting and at another. Then come whole
    samples at the paper's settings, then other settings, sample by sample; these get a third of the room at most
    unless the others leave more.

    Args:
        units: One row each, with ``unit``, ``explainer``, ``setting``, ``usual`` (whether that is the paper's)
            and the columns that :func:`turns` takes.
        most: How many at most.

    Returns:
        Names of units; all of them where there are no more than ``most``.
    """
    ordered = units.assign(turn=turns(units)).sort_values(["turn", "explainer", SETTING, "unit"])
    ordered = ordered.assign(repeated=ordered.duplicated([*_NETWORK, "explainer", "usual"]))
    usual, others = (ordered[ordered["usual"].eq(kind)] for kind in (True, False))
    one_each = [unit for part in (usual, others) for unit in _one_by_one(part[~part["repeated"]])][:most]
    samples = [list(names) for _, names in usual[usual["repeated"]].groupby("turn")["unit"]]
    more = _one_by_one(others[others["repeated"]])
    room = most - len(one_each)
    whole = _that_fit(samples, room - min(len(more), room // 3))
    return one_each + whole + more[: room - sum(map(len, whole))]


def _one_by_one(units: pd.DataFrame) -> list[list[str]]:
    """Let datasets with their networks take turns, unit by unit."""
    place = units.groupby(_NETWORK).cumcount()
    return [[name] for name in units.assign(place=place).sort_values(["place", "turn"], kind="stable")["unit"]]


def _that_fit(groups: Sequence[list[str]], room: int) -> list[list[str]]:
    chosen = []
    for group in groups:
        if len(group) <= room:
            chosen.append(group)
            room -= len(group)
    return chosen
