"""Records as one Parquet file, which other programs read at once, however many there are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from misure.errors import MisureError
from misure.io.atomic import write_atomically

if TYPE_CHECKING:
    import pandas as pd


def export_records(records: pd.DataFrame, path: Path) -> Path:
    """Write records as Parquet, whole or not at all.

    Args:
        records: As :meth:`misure.sweep.records.RecordStore.load` returns them. A column with values of several kinds,
            such as text and numbers, is written as JSON text, since Parquet knows one kind a column.
        path: Ends in ``.parquet``.

    Raises:
        MisureError: If the place cannot be written, or pyarrow is not installed.
    """
    import pandas as pd

    mixed = [str(name) for name in records if pd.api.types.infer_dtype(records[name]).startswith("mixed")]
    plain = records.assign(**{name: records[name].map(json.dumps, na_action="ignore") for name in mixed})
    try:
        return write_atomically(path, lambda partial: plain.to_parquet(partial, engine="pyarrow", index=False))
    except ImportError as error:
        raise MisureError("parquet=true needs pyarrow: pip install 'misure[parquet]'") from error
