"""The choice of what a page of bounded size shows of any number of records: whole samples of everything in turns."""

from __future__ import annotations

import pandas as pd

from misure.paper.query import SAMPLE

PAGE_BYTES = 25_000_000
"""Upper limit of the page, whatever the number of records: Plotly's script takes 5 MB of it, text and plots 4 MB."""

MOST_CARDS = 48
"""Of the gallery, each with a picture of at most 0.2 MB."""

FIGURE_BYTES = 6_000_000
"""Characters of the figures, all together."""

MOST_POINTS = 1500
"""Of each plot; there are as many plots as datasets and networks, four in the paper."""


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
    network = ["dataset", "model"]
    for group, next_in in (([*network, "class_id"], "class_id"), (network, "model")):
        place = samples.groupby(group).cumcount()
        samples = samples.assign(place=place).sort_values(["place", "dataset", next_in], kind="stable")
    samples = samples.assign(turn=range(len(samples)))
    return rows[SAMPLE].merge(samples, on=SAMPLE, how="left").set_axis(rows.index)["turn"]


def first_samples(rows: pd.DataFrame, most: int) -> pd.DataFrame:
    """Keep whole samples, in :func:`turns`, as many as there is room for; the first one in any case.

    Args:
        rows: As :func:`turns` takes them.
        most: Rows to keep.

    Returns:
        The rows kept, sample by sample.
    """
    ordered = rows.assign(turn=turns(rows)).sort_values("turn", kind="stable")
    if len(rows) <= most:
        return ordered
    room = ordered["turn"].value_counts().sort_index().cumsum() <= most
    return ordered[ordered["turn"] < max(1, int(room.sum()))]
