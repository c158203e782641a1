"""The origin of numbers and images, and the marks that they carry wherever they are shown.

Three things need a mark: data that stands in for the paper's, a network that replaces the paper's, and images that are
smaller than the paper's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd

from misure.datasets.credit import UNKNOWN_LICENCE, Credit
from misure.paper.published import DASH

_STAND_IN, _HALF = "stand-in", 0.5


@dataclass(frozen=True)
class Origin:
    """Where a table's row, or everything in a figure, comes from.

    Attributes:
        source: What the data is; empty where nothing is known.
        stand_in: Whether any of the data is generated in place of the paper's.
        substitution: Which network replaces the paper's, such as ``"MobileNetV2 substitution"``; usually empty.
        scale: Side of the images as a share of the paper's.
    """

    source: str
    stand_in: bool
    substitution: str = ""
    scale: float = 1.0

    @classmethod
    def of(cls, records: pd.DataFrame) -> Origin:
        """Collect what records say; those of older versions know of no substitution and no reduced images."""
        substitution = records["substitution"] if "substitution" in records else pd.Series(dtype=object)
        scales = records["scale"].dropna() if "scale" in records else pd.Series(dtype=float)
        return cls(
            distinct(records["dataset_source"]),
            bool(records["stand_in"].eq(other=True).any()),
            distinct(substitution),
            float(scales.min()) if len(scales) else 1.0,
        )

    @classmethod
    def of_row(cls, row: Mapping[Any, Any] | pd.Series) -> Origin:
        """Read back what :meth:`columns` put into a table's row."""
        return cls(row["source"], bool(row["stand_in"]), row["substitution"], row["scale"])

    def columns(self) -> dict[str, str | bool | float]:
        """Return it as a table's columns ``source``, ``stand_in``, ``substitution`` and ``scale``."""
        return asdict(self)

    @property
    def marks(self) -> tuple[str, ...]:
        """What must stand beside the numbers, in a word or two each."""
        return tuple(mark for mark in (_STAND_IN if self.stand_in else "", self.substitution, self.reduction) if mark)

    @property
    def reduction(self) -> str:
        """Say how much smaller than the paper's the images are; empty where they are not."""
        if self.scale == 1:
            return ""
        return "half scale" if self.scale == _HALF else f"scale {self.scale:.2f}"

    @property
    def data(self) -> str:
        """The data's name, which says once that it is a stand-in; a dash where nothing is known."""
        if not self.stand_in or _STAND_IN in self.source.casefold():
            return self.source or DASH
        return f"{_STAND_IN}: {self.source}" if self.source else _STAND_IN

    @property
    def label(self) -> str:
        """Data, substitution and reduction as plain text."""
        return ", ".join(part for part in (self.data, self.substitution, self.reduction) if part)

    @property
    def data_cell(self) -> str:
        """The data in Markdown; a stand-in is in bold."""
        return f"**{self.data}**" if self.stand_in else self.data


def marked(title: str, frame: pd.DataFrame) -> str:
    """Name, beside a title, each dataset whose data or network is not the paper's; plain text.

    Args:
        title: What a table is.
        frame: With a column ``dataset`` and those of :meth:`Origin.columns`; may be empty.
    """
    marks = []
    for name, rows in frame.groupby("dataset") if len(frame) else ():
        made = rows[rows["stand_in"].astype(bool)]
        if len(made):
            marks.append(f"{name} data: {Origin(distinct(made['source']), stand_in=True).label}")
        if substitution := distinct(rows["substitution"]):
            marks.append(f"{name} network: {substitution}")
        if reduction := Origin("", stand_in=False, scale=float(rows["scale"].min())).reduction:
            marks.append(f"{name}: {reduction}")
    return "; ".join([title, *marks])


def distinct(values: pd.Series) -> str:
    """Join a column's different values for display, in order of appearance; missing and empty ones do not count."""
    return ", ".join(str(value) for value in values.dropna().unique() if value != "")


def credit_of(record: pd.Series) -> Credit:
    """Read back who made a record's image; records of older versions do not know, and theirs is not showable."""
    texts = {name: record.get(f"credit_{name}") for name in ("licence_name", "licence_url", "url")}
    licence = record.get("credit_licence")
    number = UNKNOWN_LICENCE if licence is None or pd.isna(licence) else int(licence)
    return Credit(number, **{name: "" if pd.isna(text) else str(text) for name, text in texts.items()})
