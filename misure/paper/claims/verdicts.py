"""Every claim with its verdict, as a list, a table and JSON."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

import pandas as pd

from misure.paper.claims.claim import Claim, Finding, settle
from misure.paper.claims.comparison import comparison_findings, network_findings
from misure.paper.claims.cost import cost_findings
from misure.paper.claims.document import claims_document, inconsistencies_document
from misure.paper.claims.inconsistencies import inconsistencies
from misure.paper.claims.parameters import lr_lambda_findings, mask_size_findings
from misure.paper.claims.predicts import reliability_findings
from misure.paper.claims.samples import Subject
from misure.paper.claims.seen import map_findings
from misure.paper.claims.size import size_findings
from misure.paper.material import Material
from misure.paper.provenance import head_note

COLUMNS = (
    "id",
    "section",
    "statement",
    "dataset",
    "model",
    "verdict",
    "why",
    "statistic",
    "value",
    "low",
    "high",
    "p",
    "p_adjusted",
    "n",
    "n_groups",
    "n_records",
    "source",
    "stand_in",
    "substitution",
)

_BY_PAIR = (map_findings, comparison_findings, size_findings, lr_lambda_findings, mask_size_findings, cost_findings)


def claims(material: Material) -> list[Claim]:
    """Judge every claim of the paper's sections 5.1 to 5.7.

    Args:
        material: Records, maps and what to show.

    Returns:
        Claims by section, each dataset and model for itself; one without records has its claims too.

    Raises:
        MisureError: If a map is damaged, or scikit-learn is not installed.
    """
    return sorted(settle(_findings(material), material.profile), key=lambda claim: claim.section)


def claims_frame(judged: Sequence[Claim]) -> pd.DataFrame:
    """Return claims as a table with :data:`COLUMNS`."""
    return pd.DataFrame([_row(claim) for claim in judged], columns=list(COLUMNS))


def claims_json(judged: Sequence[Claim]) -> list[dict[str, Any]]:
    """Return claims for a JSON file: :data:`COLUMNS`, and ``units``, the records that each rests on; NaN is null."""
    return [
        {name: _or_null(value) for name, value in _row(claim).items()} | {"units": list(claim.units)}
        for claim in judged
    ]


def claims_tables(material: Material) -> Iterator[tuple[str, pd.DataFrame, str]]:
    """Make the claims and the paper's inconsistencies: file name, table and document."""
    judged, contradictions = claims(material), inconsistencies(material)
    head = head_note(material.run, material.profile, material.pairs)
    yield "claims", claims_frame(judged), claims_document(judged, contradictions, head)
    yield "inconsistencies", contradictions, inconsistencies_document(contradictions, head)


def _findings(material: Material) -> Iterator[Finding]:
    subjects = {pair: Subject(material, pair) for pair in material.pairs}
    for subject in subjects.values():
        for findings in _BY_PAIR:
            yield from findings(subject)
    yield from network_findings(subjects)
    for pair in material.judged:
        yield from reliability_findings(subjects[pair])


def _row(claim: Claim) -> dict[str, Any]:
    values = {name: getattr(claim, name) for name in COLUMNS if hasattr(claim, name)}
    return values | {"verdict": claim.verdict.value, "n_records": len(claim.units)} | asdict(claim.origin)


def _or_null(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
