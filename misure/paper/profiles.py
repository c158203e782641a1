"""The records that count for a profile: its own, and those of other profiles that fulfil its setting."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from misure.errors import MisureError

Counts = Mapping[str, Mapping[str, Mapping[str, int]]]
"""What a profile sets of methods, by dataset, method and parameter: ``{"coco": {"rise": {"n_masks": 2000}}}``."""

_IMAGES = ["weights", "dataset_fingerprint"]


def serving(records: pd.DataFrame, profile: str, counts: Counts, precision: str = "auto") -> pd.DataFrame:
    """Keep the records that a profile's tables are made from.

    A record of another profile serves where the weights are the same in every profile (published ones, or a given
    checkpoint), the images are those of the profile's newest record, and the precision and the method's parameters
    that profiles set are the profile's own: it is what the profile would compute, so it is not computed again.

    Args:
        records: One row per unit and threshold, as :meth:`misure.sweep.records.RecordStore.load` returns them.
        profile: ``"smoke"``, ``"quick"`` or ``"paper"``.
        counts: What the profile sets.
        precision: What the profile sets of it; ``"auto"`` leaves it open.

    Returns:
        The rows, with this profile under ``profile``; no rows where nothing serves.

    Raises:
        MisureError: If the records do not say what decides it.
    """
    if records.empty:
        return records
    needed = ("profile", "dataset", "model", *_IMAGES, "created", "explainer")
    missing = [name for name in needed if name not in records]
    if missing:
        raise MisureError(f"the records lack the columns {', '.join(missing)}: they were not written by this version")
    own = records["profile"].eq(profile)
    shared = records.get("network_profile", pd.Series(pd.NA, records.index)).eq("")  # older records do not know
    others = ~own & shared.fillna(value=False).astype(bool) & _at_counts(records, counts)
    if precision != "auto":
        others &= records.get("precision", pd.Series(pd.NA, records.index)).eq(precision).fillna(value=False)
    return records[own | (others & _of_newest_images(records, own))].assign(profile=profile)


def _at_counts(records: pd.DataFrame, counts: Counts) -> pd.Series:
    """Mark the records whose parameters are what a profile sets; none of a dataset that it does not know."""
    fits = records["dataset"].isin(counts)
    for dataset, methods in counts.items():
        for method, parameters in methods.items():
            rows = records["dataset"].eq(dataset) & records["explainer"].eq(method)
            for name, value in parameters.items():
                fits &= ~rows | pd.to_numeric(records.get(f"param_{name}", pd.Series(index=records.index))).eq(value)
    return fits


def _of_newest_images(records: pd.DataFrame, own: pd.Series) -> pd.Series:
    """Mark the records of the weights and images of the newest own record; all where a network has no own record."""
    created = pd.to_datetime(records["created"], utc=True, format="ISO8601")
    newest = records.assign(created=created)[own].sort_values("created").groupby(["dataset", "model"]).last()
    images = records[["dataset", "model"]].join(newest[_IMAGES], on=["dataset", "model"])
    return (images[_IMAGES].isna() | images[_IMAGES].eq(records[_IMAGES])).all(axis=1)
