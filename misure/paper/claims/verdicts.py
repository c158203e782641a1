"""Every claim with its verdict, as a list, a table and JSON: the evaluator of ``claims.yaml``."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import pandas as pd

from misure.paper.claims.claim import ALL_DATASETS, COLUMNS, Claim, Finding, settle
from misure.paper.claims.comparisons import KINDS
from misure.paper.claims.records import PairRecords
from misure.paper.material import Material
from misure.paper.published import grouped, shipped
from misure.paper.reliability import ALL_ORGANS
from misure.paper.source import Origin

_LISTED = ("higher", "lower", "variant", "organ")
"""Keys of a comparison whose list makes one comparison for each."""


@dataclass(frozen=True)
class Scope:
    """Records that a claim is tested on.

    Attributes:
        name: As in ``claims.yaml``.
        dataset: Our name of the dataset that the claim is about.
        compared: Every comparison is made on each of these.
        labels: Dataset and model as the claim names them.
        origin: Of the data and the networks.
    """

    name: str
    dataset: str
    compared: Sequence[tuple[PairRecords, ...]]
    labels: tuple[str, str]
    origin: Origin

    def suits(self, claim: Mapping[str, Any]) -> bool:
        """Whether a claim of ``claims.yaml`` is tested here."""
        among = claim.get("datasets", [self.dataset])
        return (
            claim.get("scope", "pair") == self.name
            and self.dataset in among
            and self.dataset not in claim.get("other_than", [])
        )

    def finding(self, claim: Mapping[str, Any]) -> Finding:
        """Make a claim's comparisons."""
        evidence = [
            KINDS[fields["kind"]](*records, **{name: value for name, value in fields.items() if name != "kind"})
            for records in self.compared
            for comparison in claim["comparisons"]
            for fields in _expanded(comparison, records[0])
        ]
        statement, remake = (claim[name].format(*self.compared[0]) for name in ("statement", "remake"))
        val_dice = min(
            (one.val_dice for one in chain(*self.compared) if one.val_dice == one.val_dice), default=math.nan
        )
        named = claim["id"], claim["section"], statement
        return Finding(*named, *self.labels, evidence, self.origin, remake, val_dice)


def claims(material: Material) -> list[Claim]:
    """Judge every claim of the paper's sections 5.1 to 5.7.

    Args:
        material: Records, maps and what to show.

    Returns:
        Claims by section, each dataset and model for itself; one without records has its claims too.

    Raises:
        MisureError: If scikit-learn is not installed.
    """
    return sorted(settle(findings(material), material.profile), key=lambda claim: claim.finding.section)


def claims_frame(judged: Sequence[Claim]) -> pd.DataFrame:
    """Return claims as a table with :data:`COLUMNS`."""
    return pd.DataFrame([claim.row() for claim in judged], columns=list(COLUMNS))


def claims_json(judged: Sequence[Claim]) -> list[dict[str, Any]]:
    """Return claims for a JSON file: :data:`COLUMNS`, and ``units``, the records that each rests on; NaN is null."""
    return [
        {name: _or_null(value) for name, value in claim.row().items()} | {"units": list(claim.units)}
        for claim in judged
    ]


def findings(material: Material) -> Iterator[Finding]:
    """Make the comparisons of every claim, before the correction for their number."""
    for scope in _scopes(material, [PairRecords(material, pair) for pair in material.pairs]):
        yield from (scope.finding(claim) for claim in shipped("claims/claims.yaml")["claims"] if scope.suits(claim))
        for records in scope.compared[0]:
            records.forget_maps()


def _scopes(material: Material, every: Sequence[PairRecords]) -> Iterator[Scope]:
    for one in every:
        labels = (one.pair.dataset_label, one.pair.model_label)
        yield Scope("pair", one.pair.dataset, [(one,)], labels, one.origin)
    for group in grouped([one.pair for one in every], "dataset"):
        networks = tuple(one for one in every if one.pair in group)
        if len(networks) == 2:
            labels = (networks[0].pair.dataset_label, "")
            yield Scope("networks", networks[0].pair.dataset, [networks], labels, _joint_origin(networks))
    for one in every:
        others = [other for other in every if other.pair.dataset != one.pair.dataset]
        if others:
            compared = [(other, one) for other in others]
            yield Scope("datasets", one.pair.dataset, compared, (ALL_DATASETS, ""), _joint_origin([one, *others]))
    for one in every:
        if one.pair in material.judged:
            labels = (one.pair.dataset_label, one.pair.model_label)
            yield Scope("reliability", one.pair.dataset, [(one,)], labels, one.every_origin)


def _expanded(comparison: Mapping[str, Any], records: PairRecords) -> Iterator[dict[str, Any]]:
    """Write out a comparison's list, and each organ, as comparisons of their own."""
    name = next((name for name in _LISTED if isinstance(comparison.get(name), list)), "")
    if comparison.get("organ") == "each":
        yield from ({**comparison, "organ": organ} for organ in records.organs if organ != ALL_ORGANS)
    elif name:
        yield from ({**comparison, name: value} for value in comparison[name])
    else:
        yield dict(comparison)


def _joint_origin(every: Sequence[PairRecords]) -> Origin:
    origins = [one.origin for one in every]
    return Origin(
        ", ".join(dict.fromkeys(origin.source for origin in origins if origin.source)),
        any(origin.stand_in for origin in origins),
        ", ".join(dict.fromkeys(origin.substitution for origin in origins if origin.substitution)),
        min(origin.scale for origin in origins),
    )


def _or_null(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
