"""The ten things that a reader of the paper must know, from tables and claims: the evaluator of ``findings.yaml``."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from misure.paper.claims import Claim, Verdict
from misure.paper.claims.claim import least_val_dice, probability
from misure.paper.claims.significance import FEWEST_GROUPS
from misure.paper.extensions.readings import ENOUGH_IMAGES
from misure.paper.maps import saved_units
from misure.paper.material import Material
from misure.paper.prose import prose
from misure.paper.published import DASH, Pair, shipped
from misure.paper.query import paper_draw, select
from misure.paper.source import Origin
from misure.paper.statistics import apart
from misure.paper.table import Column, Table, measured, printed

_NAN = float("nan")
_UNKNOWN = Origin("", stand_in=False)
_COUNTS = ("n_samples", "n"), ("n_groups", "n_volumes")
"""Columns of samples, and of the images or volumes that they come from; a table has one of each."""

_OUTCOMES = {Verdict.HOLDS: "holds", Verdict.FAILS: "fails", Verdict.OPEN: "open", Verdict.STAND_IN: "open"}


@dataclass(frozen=True)
class Cell:
    """A number as a sentence names it.

    Attributes:
        value: The number, or text.
        low: Lower end of its interval; NaN where it has none.
        high: Upper end of it.
        n: Samples.
        n_groups: Images or volumes that they come from.
        paper: What the paper prints for it; a dash where it prints nothing.
        origin: Of the data and the network.
        apart: Whether its samples are other in number than those of the number that it stands beside.
        literal: Whether it is of the literal reading, in a table of readings.
    """

    value: Any = _NAN
    low: float = _NAN
    high: float = _NAN
    n: int = 0
    n_groups: int = 0
    paper: str = DASH
    origin: Origin = _UNKNOWN
    apart: bool = False
    literal: bool = False

    def __str__(self) -> str:
        """Write the number without its interval, and of how many samples it is where it is ``apart``."""
        if isinstance(self.value, str):
            return self.value
        return measured(self.value) + (f" (n = {self.n})" if self.apart else "")

    @property
    def missing(self) -> bool:
        """Whether there is no number."""
        return not isinstance(self.value, str) and math.isnan(self.value)

    @property
    def with_interval(self) -> str:
        """Write the number with its interval, where it has one."""
        interval = "" if math.isnan(self.low) else f" [{measured(self.low)}, {measured(self.high)}]"
        return f"{self}{interval}"

    def minus(self, other: Cell) -> Cell:
        """Return the difference from another number, with its interval."""
        ends = apart(*((cell.value, cell.low, cell.high) for cell in (self, other)))
        return Cell(*ends, min(self.n, other.n), min(self.n_groups, other.n_groups))

    def compared(self, limit: float) -> str:
        """Tell where the number lies of a limit: ``same`` where its interval holds it, or both are written the same."""
        if self.low <= limit <= self.high or measured(self.value) == measured(limit):
            return "same"
        return "higher" if self.value > limit else "lower"


@dataclass(frozen=True)
class KeyFinding:
    """One thing that a reader must know.

    Attributes:
        id: A short name.
        title: What it is about.
        sentence: What was found, in Markdown; the number in it is in bold.
        outcome: Which sentence of ``findings.yaml`` it is.
        where: Dataset and network.
        number: The number that the sentence is about.
        table: Name of the table, or ``"claims"``, to look at.
        figure: Name of the picture to look at; empty for none.
        units: The records that it rests on.
    """

    id: str
    title: str
    sentence: str
    outcome: str
    where: str
    number: Cell
    table: str
    figure: str
    units: tuple[str, ...]

    @property
    def data(self) -> str:
        """What the records are of, in a few words."""
        return f"{self.where}; images: {self.number.origin.label}" if self.units else self.where

    @property
    def table_words(self) -> str:
        """The table's name as it is read."""
        words = re.sub(r"(?<=[a-z])(?=\d)", " ", self.table).replace("_", " ")
        return words[:1].upper() + words[1:]


def key_findings(material: Material, tables: Sequence[Table], judged: Sequence[Claim]) -> list[KeyFinding]:
    """Fill the sentences of ``findings.yaml``.

    Args:
        material: What everything is made from.
        tables: As written, among them those that the findings name; one that is not there has no numbers.
        judged: As :func:`misure.paper.claims.claims` returns them.

    Returns:
        The findings in the order of the file, those without records last.
    """
    described = shipped("findings.yaml")
    evaluator = _Evaluator(material, {table.name: table for table in tables}, judged, described["otherwise"])
    pairs = {pair.dataset: pair for pair in reversed(material.pairs)}
    found = [
        evaluator.finding(entry, pairs[entry["dataset"]])
        for entry in described["findings"]
        if entry["dataset"] in pairs
    ]
    return sorted(found, key=lambda finding: finding.outcome == "missing")


def verdicts_counted(judged: Sequence[Claim]) -> str:
    """Say in a sentence how many claims have each verdict."""
    counts = [f'{sum(claim.verdict == verdict for claim in judged)} read "{verdict}"' for verdict in Verdict]
    return f"Of {len(judged)} checkable claims {', '.join(counts)}."


def findings_document(found: Sequence[KeyFinding], judged: Sequence[Claim], head: str) -> str:
    """Write the page of findings.

    Args:
        found: As :func:`key_findings` returns them.
        judged: All claims, whose verdicts are counted.
        head: What they were made from, as :func:`misure.paper.provenance.head_note` writes it.
    """
    return prose("findings.md.j2", findings=found, verdicts=verdicts_counted(judged), head=head) + "\n"


def findings_json(found: Sequence[KeyFinding]) -> list[dict[str, Any]]:
    """Return findings for a JSON file, with ``units``, the records that each rests on; NaN is null."""
    return [
        {"id": of.id, "sentence": of.sentence, "outcome": of.outcome, "where": of.where}
        | {name: _or_null(getattr(of.number, name)) for name in ("value", "low", "high", "n")}
        | of.number.origin.columns()
        | {"table": of.table, "figure": of.figure, "units": list(of.units)}
        for of in found
    ]


@dataclass(frozen=True)
class _Evaluator:
    material: Material
    tables: Mapping[str, Table]
    judged: Sequence[Claim]
    otherwise: Mapping[str, str]

    def finding(self, entry: Mapping[str, Any], pair: Pair) -> KeyFinding:
        number = self._number(pair, entry["number"])
        others = {name: self._number(pair, cell) for name, cell in entry.get("others", {}).items()}
        others = {name: replace(cell, apart=0 < cell.n != number.n) for name, cell in others.items()}
        table = entry.get("table") or entry["number"]["table"]
        also = self._also(entry, others)
        texts = "".join(text for key, text in entry.items() if isinstance(text, str) and not key.startswith("also"))
        named = [cell for name, cell in others.items() if f"{{{name}}}" in texts]
        against = others.get(str(entry.get("against")))
        complete = not any(map(self._too_few, named)) and not (against and math.isnan(against.low))
        outcome = self._reservation(pair, number, complete=complete) or self._outcome(entry, pair, number, others)
        sentences = {key: text for keys, text in entry.items() for key in keys.split(" or ") if complete}
        beside = "" if number.paper == DASH else f" (printed {number.paper})"
        words = {"about": entry["about"], "profile": self.material.profile, "remake": entry.get("remake", table)}
        judged = self._claim(entry.get("judged_by", ""), pair)
        told = sentences.get(outcome) or self.otherwise[outcome]
        sentence = (told if outcome in self.otherwise else f"{told} {also}".strip()).format(
            number=number.with_interval,
            paper=number.paper,
            printed=beside,
            n=number.n,
            n_groups=number.n_groups,
            p=probability(judged.p_adjusted if judged else _NAN),
            **words,
            **others,
        )
        units = tuple(sorted(self._units(entry, pair))) if outcome != "missing" else ()
        figure = entry.get("figure", "") if units else ""
        return KeyFinding(entry["id"], entry["title"], sentence, outcome, pair.label, number, table, figure, units)

    def _number(self, pair: Pair, described: Mapping[str, Any]) -> Cell:
        """Read a cell of a table or the decisive evidence of a claim; a cell without a number where there is none."""
        if "claim" in described:
            claim = self._claim(described["claim"], pair)
            if claim is None:
                return Cell()
            shown = claim.finding.decisive
            return Cell(shown.value, shown.low, shown.high, shown.n, shown.n_groups, origin=claim.finding.origin)
        table, column = self.tables.get(described["table"]), described["column"]
        if table is None or table.frame.empty:
            return Cell()
        frame, labels = table.frame, {"dataset": pair.dataset_label, "model": pair.model_label}
        for name, value in (labels | described.get("where", {})).items():
            frame = frame[frame[name] == value]
        if smallest := described.get("smallest"):
            frame = frame.dropna(subset=smallest).sort_values(smallest, kind="stable")
        if frame.empty:
            return Cell()
        row = frame.iloc[0]
        shown_as = next((of for of in table.columns if of.name == column), Column(column, ""))
        low, high = (float(row[end]) if end else _NAN for end in (shown_as.low, shown_as.high))
        n, n_groups = (next(int(row[name]) for name in names if name in row.index) for names in _COUNTS)
        paper = printed(row[shown_as.paper]) if shown_as.paper else DASH
        value = row[column] if isinstance(row[column], str) else float(row[column])
        literal = bool(row.get("default", False))
        return Cell(value, low, high, n, n_groups, paper, Origin.of_row(row), literal=literal)

    def _also(self, entry: Mapping[str, Any], others: Mapping[str, Cell]) -> str:
        """Choose what is said of the reading that comes nearest; empty where nothing is."""
        if "also" not in entry or any(cell.missing for name, cell in others.items() if f"{{{name}}}" in entry["also"]):
            return ""
        if others["reading"].n_groups < ENOUGH_IMAGES:
            return self.otherwise["also_few"]
        return str(entry["also_literal" if others["reading"].literal else "also"])

    def _reservation(self, pair: Pair, number: Cell, *, complete: bool) -> str:
        """Say why a number can be shown but not judged, as in ``otherwise``; empty where it can."""
        reasons = {
            "missing": number.missing,
            "stand_in": number.origin.stand_in,
            "few": self._too_few(number) or math.isnan(number.low),
            "weak": any(claim.finding.val_dice < least_val_dice() for claim in self._claims(pair)),
            "alone": not complete,
        }
        return next((reason for reason, holds in reasons.items() if holds), "")

    @staticmethod
    def _too_few(number: Cell) -> bool:
        return number.missing or number.n_groups < FEWEST_GROUPS

    def _outcome(self, entry: Mapping[str, Any], pair: Pair, number: Cell, others: Mapping[str, Cell]) -> str:
        if "judged_by" in entry:
            judged = self._claim(entry["judged_by"], pair)
            return _OUTCOMES[judged.verdict] if judged else "alone"
        against = entry["against"]
        if isinstance(against, str):
            name, _, of_paper = against.partition(".")
            if name in others and not of_paper:
                return number.minus(others[name]).compared(-entry.get("margin", 0.0))
            against = number.paper if name == "paper" else others[name].paper
        return number.compared(float(against))

    def _claims(self, pair: Pair) -> list[Claim]:
        labels = (pair.dataset_label, pair.model_label)
        return [claim for claim in self.judged if (claim.finding.dataset, claim.finding.model) == labels]

    def _claim(self, name: str, pair: Pair) -> Claim | None:
        return next((claim for claim in self._claims(pair) if claim.finding.id == name), None)

    def _units(self, entry: Mapping[str, Any], pair: Pair) -> set[str]:
        """Name the records: those of claims, and of explainers those that all the named ones share."""
        units: set[str] = set()
        selected = []
        records = paper_draw(self.material.run, pair)
        for source in entry["rests_on"]:
            if isinstance(source, str):
                claim = self._claim(source, pair)
                units |= set(claim.units) if claim else set()
            else:
                selected.append(select(records, **source).set_index(["sample", "class_id"])["unit"])
        if entry.get("saved"):
            kept = saved_units(self.material.maps_folder)
            selected = [rows[rows.isin(kept)] for rows in selected]
            shared = set.intersection(*(set(rows.index) for rows in selected))
            selected = [rows[rows.index.isin(shared)] for rows in selected]
        return units.union(*(set(rows) for rows in selected))


def _or_null(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
