"""Files of Dice and HD95 per validation volume, kept beside the records."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from misure.errors import MisureError
from misure.io.atomic import write_atomically
from misure.io.reading import reading
from misure.sweep.records import ADDED_ATTRIBUTES

if TYPE_CHECKING:
    import pandas as pd

_COLUMNS = (
    "dataset",
    "model",
    "profile",
    "case",
    "class_id",
    "class_name",
    "dice",
    "hd95",
    "empty_truth_counts",
    "source",
    "stand_in",
    "dataset_fingerprint",
    "weights",
)


def write_volumes(path: Path, scores: pd.DataFrame, meta: Mapping[str, object]) -> Path:
    """Write one evaluation as JSON, ``{"meta": ..., "scores": [...]}``, whole or not at all.

    Args:
        path: Ends in ``.json``.
        scores: As :func:`misure.evaluation.volumes.score_volumes` returns it.
        meta: The same for every row: ``dataset``, ``model`` (its title), ``profile``, ``source``, ``stand_in``,
            ``dataset_fingerprint``, ``weights`` and anything else worth keeping.

    Raises:
        MisureError: If a column is missing or the place cannot be written.
    """
    if missing := set(_COLUMNS) - {*scores, *meta}:
        raise MisureError(f"volume scores lack {', '.join(sorted(missing))}: pass them as meta")
    rows = scores.astype(object).where(scores.notna(), None).to_dict("records")
    text = json.dumps({"meta": dict(meta), "scores": rows}, indent=1, allow_nan=False) + "\n"
    return write_atomically(path, lambda partial: partial.write_text(text, encoding="utf-8"))


def read_volumes(path: Path) -> pd.DataFrame:
    """Read what :func:`write_volumes` wrote, number for number.

    Raises:
        MisureError: If the file is missing or damaged.
    """
    import pandas as pd

    if not path.exists():
        raise MisureError(f"there are no volume scores at {path}: evaluate the network first")
    with reading(path, "delete it and evaluate the network again"):
        content = json.loads(path.read_text(encoding="utf-8"))
        frame = pd.DataFrame(content["scores"]).assign(**content["meta"])
        if not (frame["dice"].dropna().between(0, 1).all() and frame["hd95"].dropna().between(0, sys.maxsize).all()):
            raise ValueError("a Dice is not from 0 to 1, or an HD95 is negative or not finite")
        frame["precision"] = frame.get("precision", ADDED_ATTRIBUTES["precision"])
        others = [name for name in frame if name not in _COLUMNS]
        return frame[[*_COLUMNS, *others]].astype({"dice": float, "hd95": float})
