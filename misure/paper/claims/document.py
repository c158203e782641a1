"""Claims and the paper's contradictions as tables, and the document that has both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from misure.paper.claims.claim import ALL_DATASETS, Claim, Verdict, least_val_dice, probability
from misure.paper.claims.significance import (
    EXACT_UP_TO,
    FEWEST_GROUPS,
    FEWEST_LEFT_OUT,
    LEVEL,
    N_DRAWS,
    fewest_groups,
)
from misure.paper.claims.verdicts import claims_frame
from misure.paper.prose import prose
from misure.paper.source import marked
from misure.paper.table import Column, Table, markdown_table, measured, printed

_PLACE = (Column("dataset", "Dataset"), Column("model", "Model", lambda model: model or "several"))
_CLAIMS = (
    *(Column("section", "Section", "Section {}".format), Column("statement", "The paper says"), *_PLACE),
    *(Column("verdict", "Verdict"), Column("why", "Why")),
    *(Column("p", "p", probability), Column("p_adjusted", "p, corrected", probability), Column("n", "n")),
    *(Column("n_groups", "Images or volumes"), Column("n_records", "Records")),
    *(Column("val_dice", "Network's validation Dice", measured), Column("source", "Source")),
)
_CONTRADICTIONS = (
    *(Column("contradiction", "Contradiction"), *_PLACE, Column("quantity", "Number")),
    *(Column("paper", "Paper", printed), Column("ours", "Ours", measured, low="low", high="high")),
    *(Column("n", "n"), Column("source", "Source")),
)


def claims_table(judged: Sequence[Claim], head: str) -> Table:
    """Lay out claims by section of the paper.

    Args:
        judged: As :func:`misure.paper.claims.claims` returns them.
        head: What they were made from, as :func:`misure.paper.provenance.head_note` writes it.
    """
    frame = claims_frame(judged)
    title = marked("Does the paper hold? Its claims, one by one", frame[frame["dataset"] != ALL_DATASETS])
    return Table("claims", title, _CLAIMS, frame, head, n_parts=1)


def inconsistencies_table(contradictions: pd.DataFrame, head: str) -> Table:
    """Lay out the paper's contradictions, as :func:`misure.paper.claims.inconsistencies` returns them."""
    title = marked("The paper against itself", contradictions)
    notes = prose("inconsistencies.md.j2")
    return Table("inconsistencies", title, _CONTRADICTIONS, contradictions, head, notes, n_parts=1)


def claims_document(judged: Sequence[Claim], contradictions: pd.DataFrame, head: str) -> str:
    """Write claims by section, the rules of their verdicts and the paper's contradictions as one document."""
    table = claims_table(judged, head)
    by_claim = table.frame.iloc[np.argsort(pd.factorize(table.frame["id"])[0], kind="stable")]
    counts = {verdict: sum(claim.verdict == verdict for claim in judged) for verdict in Verdict}
    n_tested = sum(claim.p_adjusted == claim.p_adjusted for claim in judged)
    return (
        prose(
            "claims.md.j2",
            table=replace(table, frame=by_claim),
            contradictions=inconsistencies_table(contradictions, head),
            counts=markdown_table(["Verdict", "Claims"], [[verdict, str(n)] for verdict, n in counts.items()]),
            n_claims=len(judged),
            n_tested=n_tested,
            enough_groups=fewest_groups(n_tested),
            verdict=Verdict,
            n_draws=f"{N_DRAWS:,}",
            exact_up_to=EXACT_UP_TO,
            level=LEVEL,
            fewest_groups=FEWEST_GROUPS,
            fewest_left_out=FEWEST_LEFT_OUT,
            least_val_dice=least_val_dice(),
        )
        + "\n"
    )
