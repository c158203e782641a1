"""The verdict on every checkable statement of the paper, from records alone."""

from misure.paper.claims.claim import COLUMNS, Claim, Verdict
from misure.paper.claims.document import claims_document, claims_table, inconsistencies_table
from misure.paper.claims.inconsistencies import inconsistencies
from misure.paper.claims.verdicts import claims, claims_frame, claims_json

__all__ = [
    "COLUMNS",
    "Claim",
    "Verdict",
    "claims",
    "claims_document",
    "claims_frame",
    "claims_json",
    "claims_table",
    "inconsistencies",
    "inconsistencies_table",
]
