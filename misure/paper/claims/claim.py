"""A claim of the paper, what was measured for it, and the rules that turn numbers into a verdict."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum, StrEnum, auto

from misure.paper.claims.significance import LEVEL, holm
from misure.paper.published import Pair
from misure.paper.source import Origin
from misure.paper.table import measured

NAN = float("nan")

ALL_DATASETS = "all"

_CANNOT_SUPPORT = {"smoke": "the smoke profile checks that everything runs; its numbers mean nothing"}


class Verdict(StrEnum):
    """What the records say about a claim."""

    HOLDS = "holds"
    FAILS = "does not hold"
    OPEN = "cannot be told from this data"
    STAND_IN = "stand-in only"


class Over(Enum):
    """How much a claim compares."""

    ONE = auto()
    MODELS = auto()
    DATASETS = auto()


@dataclass(frozen=True)
class Part:
    """One comparison that a claim makes; a claim about the best of several makes several.

    Attributes:
        statistic: What was measured.
        value: Of the statistic.
        low: Lower end of its 95 % interval.
        high: Upper end of it.
        p: Two-sided; NaN where nothing could be tested.
        agrees: Whether the value lies on the side that is claimed.
        distance: Of what is tested from where it would turn; between equal p, it says which part is clearer.
        n: Samples.
        n_groups: Images or volumes.
        units: Records that it rests on.
        missing: Why nothing could be tested; empty where it was.
        detail: More about the value.
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
    detail: str = ""


@dataclass(frozen=True)
class Finding:
    """A claim before the correction for many claims.

    Attributes:
        id: A short name.
        section: Of the paper.
        statement: What the paper says.
        pair: Where.
        parts: Everything that has to be so for the claim to hold.
        origin: Of the data and the network.
        remake: What ``make reproduce ONLY=`` computes the records with.
        over: What it is about where that is several models or datasets.
    """

    id: str
    section: str
    statement: str
    pair: Pair
    parts: Sequence[Part] = field(repr=False)
    origin: Origin
    remake: str
    over: Over = Over.ONE

    @property
    def decisive(self) -> Part:
        """The part that the verdict hangs on.

        The clearest contradiction, or else what is missing, or else the weakest support.
        """
        against = [part for part in self._tested if not part.agrees]
        if against:
            return min(against, key=lambda part: (part.p, -part.distance))
        return next((part for part in self.parts if part.missing), max(self._tested, key=_weakness, default=_NOTHING))

    @property
    def p(self) -> float:
        """Of the whole claim.

        Where all parts agree, their largest: each has to hold. Else the smallest of those that do not, times the
        number of parts: one is enough, but there were as many chances. NaN where a part is missing and none disagrees.
        """
        decisive = self.decisive
        if decisive.missing or decisive.agrees:
            return decisive.p
        return min(1.0, decisive.p * len(self._tested))

    @property
    def units(self) -> tuple[str, ...]:
        """Of all parts."""
        return tuple(sorted({unit for part in self.parts for unit in part.units}))

    @property
    def _tested(self) -> list[Part]:
        return [part for part in self.parts if not part.missing]


@dataclass(frozen=True)
class Claim:
    """A statement of the paper with its verdict.

    Attributes:
        id: A short name; with the dataset and the model it names the claim.
        section: Of the paper.
        statement: What the paper says, in our words.
        dataset: The paper's spelling; :data:`ALL_DATASETS` where the claim compares them.
        model: The paper's spelling; empty where the claim compares several.
        verdict: What the records say.
        why: One sentence.
        statistic: What was measured; of several parts, the one that the verdict hangs on.
        value: Of the statistic.
        low: Lower end of its 95 % interval; NaN where there is none.
        high: Upper end of it.
        p: Two-sided, of all parts; NaN where nothing could be tested.
        p_adjusted: After Holm's correction over all tested claims.
        n: Samples.
        n_groups: Images or volumes.
        units: Records that the claim rests on, of all parts.
        origin: Of the data and the network.
    """

    id: str
    section: str
    statement: str
    dataset: str
    model: str
    verdict: Verdict
    why: str
    statistic: str
    value: float
    low: float
    high: float
    p: float
    p_adjusted: float
    n: int
    n_groups: int
    units: tuple[str, ...] = field(repr=False)
    origin: Origin


_NOTHING = Part("", missing="there are no records")


def settle(findings: Iterable[Finding], profile: str) -> list[Claim]:
    """Correct for the number of claims and give every claim its verdict.

    Args:
        findings: All of a document: the correction is over them.
        profile: Of the run.
    """
    kept = list(findings)
    adjusted = holm([finding.p for finding in kept])
    return [_claim(finding, p, profile) for finding, p in zip(kept, adjusted, strict=True)]


def _claim(finding: Finding, p_adjusted: float, profile: str) -> Claim:
    shown = finding.decisive
    verdict, why = _verdict(finding, p_adjusted, profile)
    network = f" (with the {finding.origin.substitution})" if finding.origin.substitution else ""
    return Claim(
        finding.id,
        finding.section,
        finding.statement,
        ALL_DATASETS if finding.over is Over.DATASETS else finding.pair.dataset_label,
        finding.pair.model_label if finding.over is Over.ONE else "",
        verdict,
        f"{why[:1].upper()}{why[1:]}{network}.",
        shown.statistic,
        shown.value,
        shown.low,
        shown.high,
        finding.p,
        p_adjusted,
        shown.n,
        shown.n_groups,
        finding.units,
        finding.origin,
    )


def _verdict(finding: Finding, p_adjusted: float, profile: str) -> tuple[Verdict, str]:
    shown = finding.decisive
    if shown.missing:
        return (
            Verdict.STAND_IN if finding.origin.stand_in else Verdict.OPEN,
            f"{shown.missing}; `make reproduce PROFILE={profile} ONLY={finding.remake}` computes what is missing",
        )
    numbers = _in_words(finding, shown)
    if finding.origin.stand_in:
        return Verdict.STAND_IN, f"a stand-in supports no verdict on the paper's data; {numbers}"
    if profile in _CANNOT_SUPPORT:
        return Verdict.OPEN, f"{_CANNOT_SUPPORT[profile]}; {numbers}"
    if p_adjusted < LEVEL:
        return (Verdict.HOLDS if shown.agrees else Verdict.FAILS), numbers
    unclear = f"{numbers}, which is not clear enough: p is {probability(p_adjusted)} after the correction"
    lacking = sum(bool(part.missing) for part in finding.parts)
    return Verdict.OPEN, unclear + (f"; {lacking} of {len(finding.parts)} comparisons lack records" if lacking else "")


def _in_words(finding: Finding, shown: Part) -> str:
    n = len(finding.parts)
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


def _weakness(part: Part) -> tuple[float, float]:
    return part.p, -part.distance
