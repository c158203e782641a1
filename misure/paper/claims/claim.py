"""A claim of the paper, the evidence for and against it, and the rules that turn numbers into a verdict."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from misure.paper.claims.significance import LEVEL, holm
from misure.paper.published import shipped
from misure.paper.source import Origin
from misure.paper.table import measured

NAN = float("nan")

ALL_DATASETS = "all"

COLUMNS = (
    *("id", "section", "statement", "dataset", "model", "verdict", "why", "statistic", "value", "low", "high"),
    *("p", "p_adjusted", "n", "n_groups", "n_records", "val_dice", "source", "stand_in", "substitution", "scale"),
)
"""Of a table of claims, see :meth:`Claim.row`."""

_CANNOT_SUPPORT = {"smoke": "the smoke profile checks that everything runs; its numbers mean nothing"}


class Verdict(StrEnum):
    """What the records say about a claim."""

    HOLDS = "holds"
    FAILS = "does not hold"
    OPEN = "cannot be told from this data"
    STAND_IN = "stand-in only"


@dataclass(frozen=True)
class Evidence:
    """What one comparison gave; a claim about the best of several rests on several.

    Attributes:
        statistic: What was measured.
        value: Of the statistic.
        low: Lower end of its 95 % interval; NaN where there is none.
        high: Upper end of it.
        p: Two-sided; NaN where nothing could be tested.
        agrees: Whether the value lies on the side that is claimed.
        distance: Of what is tested from where it would turn; between equal p, it says which evidence is clearer.
        n: Samples.
        n_groups: Images or volumes.
        units: Records that it rests on.
        missing: Why nothing could be tested; empty where it was.
        remedied: Whether explaining more on the same machine supplies what is missing.
        detail: More about the value.
        timed: Whether seconds were compared, which those on smaller images say nothing about.
    """

    statistic: str
    value: float = NAN
    low: float = NAN
    high: float = NAN
    p: float = NAN
    agrees: bool = False
    distance: float = 0.0
    n: int = 0
    n_groups: int = 0
    units: tuple[str, ...] = ()
    missing: str = ""
    remedied: bool = True
    detail: str = ""
    timed: bool = False


_NOTHING = Evidence("", missing="there are no records")


@dataclass(frozen=True)
class Finding:
    """A claim before the correction for many claims.

    Attributes:
        id: A short name; with the dataset and the model it names the claim.
        section: Of the paper.
        statement: What the paper says, in our words.
        dataset: The paper's spelling; :data:`ALL_DATASETS` where the claim compares them.
        model: The paper's spelling; empty where the claim compares several.
        evidence: Everything that has to be so for the claim to hold.
        origin: Of the data and the network.
        remake: What ``misure reproduce only=`` computes the records with.
        val_dice: The lowest validation Dice of the networks; NaN where none is known.
    """

    id: str
    section: str
    statement: str
    dataset: str
    model: str
    evidence: Sequence[Evidence] = field(repr=False)
    origin: Origin
    remake: str
    val_dice: float = NAN

    @property
    def decisive(self) -> Evidence:
        """The evidence that the verdict hangs on.

        The clearest contradiction, or else what is missing, or else the weakest support.
        """
        against = [single for single in self._tested if not single.agrees]
        if against:
            return min(against, key=lambda single: (single.p, -single.distance))
        weakest = max(self._tested, key=lambda single: (single.p, -single.distance), default=_NOTHING)
        return next((single for single in self.evidence if single.missing), weakest)

    @property
    def p(self) -> float:
        """Of the whole claim.

        Where all evidence agrees, the largest p: each has to hold. Else the smallest of what does not, times the
        number of comparisons: one is enough, but there were as many chances. NaN where evidence is missing and none
        disagrees.
        """
        decisive = self.decisive
        if decisive.missing or decisive.agrees:
            return decisive.p
        return min(1.0, decisive.p * len(self._tested))

    @property
    def _tested(self) -> list[Evidence]:
        return [single for single in self.evidence if not single.missing]


@dataclass(frozen=True)
class Claim:
    """A statement of the paper with its verdict.

    Attributes:
        finding: The statement and its evidence.
        p_adjusted: After Holm's correction over all claims that their numbers may settle; NaN for the others.
        verdict: What the records say.
        why: One sentence.
    """

    finding: Finding
    p_adjusted: float
    verdict: Verdict
    why: str

    @property
    def units(self) -> tuple[str, ...]:
        """Records that the claim rests on, of all comparisons."""
        return tuple(sorted({unit for single in self.finding.evidence for unit in single.units}))

    def row(self) -> dict[str, Any]:
        """Return :data:`COLUMNS`; statistic, value and samples are those of the evidence that the verdict hangs on."""
        finding, shown = self.finding, self.finding.decisive
        values = {**vars(finding), **vars(shown), **asdict(finding.origin), "p": finding.p, "why": self.why}
        values |= {"verdict": self.verdict.value, "p_adjusted": self.p_adjusted, "n_records": len(self.units)}
        return {name: values[name] for name in COLUMNS}


def settle(findings: Iterable[Finding], profile: str) -> list[Claim]:
    """Correct for the number of claims that their numbers may settle, and give every claim its verdict.

    Args:
        findings: All of a document: the correction is over those of them that are tested and that nothing but their
            numbers leaves open; the others cannot be found wrongly, whatever their p.
        profile: Of the run.
    """
    kept = list(findings)
    family = [NAN if _undecided(finding, profile) else finding.p for finding in kept]
    claims = []
    for finding, p_adjusted in zip(kept, holm(family), strict=True):
        verdict, why = _verdict(finding, p_adjusted, profile)
        network = f" (with the {finding.origin.substitution})" if finding.origin.substitution else ""
        reduced = f" ({finding.origin.reduction})" if finding.origin.reduction else ""
        claims.append(Claim(finding, p_adjusted, verdict, f"{why[:1].upper()}{why[1:]}{network}{reduced}."))
    return claims


def least_val_dice() -> float:
    """Return the validation Dice of a network below which nothing about it is judged (``claims.yaml`` says why)."""
    return float(shipped("claims/claims.yaml")["least_val_dice"])


def _verdict(finding: Finding, p_adjusted: float, profile: str) -> tuple[Verdict, str]:
    shown = finding.decisive
    untold = Verdict.STAND_IN if finding.origin.stand_in else Verdict.OPEN
    if shown.missing:
        remake = f"; `misure reproduce profile={profile} only={finding.remake}` computes what is missing"
        return untold, shown.missing + (remake if shown.remedied else "")
    numbers = _in_words(finding, shown)
    if reason := _undecided(finding, profile):
        return untold, f"{reason}; {numbers}"
    if p_adjusted < LEVEL:
        return (Verdict.HOLDS if shown.agrees else Verdict.FAILS), numbers
    unclear = f"{numbers}, which is not clear enough: p is {probability(p_adjusted)} after the correction"
    lacking = sum(bool(single.missing) for single in finding.evidence)
    of_all = f"; {lacking} of {len(finding.evidence)} comparisons lack records" if lacking else ""
    return Verdict.OPEN, unclear + of_all


def _undecided(finding: Finding, profile: str) -> str:
    """Say why numbers decide nothing, however clear they are; empty where they may."""
    if finding.origin.stand_in:
        return "a stand-in supports no verdict on the paper's data"
    if finding.val_dice < least_val_dice():
        return f"the network's validation Dice of {measured(finding.val_dice)} is below {least_val_dice():g}"
    if finding.origin.reduction and any(single.timed for single in finding.evidence):
        return "seconds on smaller images than the paper's decide nothing"
    return _CANNOT_SUPPORT.get(profile, "")


def _in_words(finding: Finding, shown: Evidence) -> str:
    n = len(finding.evidence)
    side = "as claimed" if shown.agrees else "against the claim"
    among = ""
    if n > 1:
        among = f", the weakest of {n} comparisons" if shown.agrees else f", the clearest against it of {n} comparisons"
    detail = f" ({shown.detail})" if shown.detail else ""
    bounds = "" if math.isnan(shown.low) else f" [{measured(shown.low)}, {measured(shown.high)}]"
    return f"{shown.statistic}: {measured(shown.value)}{bounds}{detail}, {side}{among}"


def probability(p: float) -> str:
    """Write a p-value with two significant digits; a dash where there is none."""
    if math.isnan(p):
        return measured(p)
    return "<0.001" if p < 0.001 else f"{p:.2g}"
