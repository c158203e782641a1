"""The records that count for a profile: its own, and those of other profiles that its runs found there."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import pandas as pd

from misure.errors import MisureError


def serving(records: pd.DataFrame, profile: str, served: Collection[str]) -> pd.DataFrame:
    """Keep the records that a profile's tables are made from.

    Where a profile asks for an explanation that another one made, with the same images, weights, parameters and
    precision, it is not made again: the run notes that it serves this profile too.

    Args:
        records: One row per unit and threshold, as :meth:`misure.sweep.records.RecordStore.load` returns them.
        profile: A name from ``configs/profile/``, such as ``"quick"`` or ``"reference"``.
        served: Units of other profiles that serve this one, see :meth:`misure.sweep.records.RecordStore.serve`.

    Returns:
        The rows, with this profile under ``profile``; no rows where nothing serves.

    Raises:
        MisureError: If the records do not say what decides it.
    """
    if records.empty:
        return records
    if missing := [name for name in ("profile", "unit") if name not in records]:
        raise MisureError(f"the records lack the columns {', '.join(missing)}: they were not written by this version")
    counts = records["profile"].eq(profile) | records["unit"].isin(served)
    return records[counts].assign(profile=profile)


def in_use(records: pd.DataFrame, used: Mapping[tuple[str, str], tuple[str, str]]) -> pd.DataFrame:
    """Keep, of each dataset and network, the records of the weights and images that its last run took.

    Args:
        records: As :func:`serving` returns them.
        used: See :meth:`misure.sweep.journal.Journal.used`; where it says nothing, all records stay, and those of the
            newest weights are shown.
    """
    if records.empty:
        return records
    made_with = zip(records["weights"], records["dataset_fingerprint"], strict=True)
    pairs = zip(records["dataset"], records["model"], strict=True)
    return records[[used.get(pair, made) == made for pair, made in zip(pairs, made_with, strict=True)]]
