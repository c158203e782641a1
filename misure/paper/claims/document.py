"""Claims and the paper's contradictions as Markdown."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from misure.evaluation.bootstrap import N_DRAWS
from misure.paper.claims.claim import ALL_DATASETS, Claim, Finding, Verdict, probability
from misure.paper.claims.significance import EXACT_UP_TO, FEWEST_GROUPS, LEVEL
from misure.paper.source import Origin, heading
from misure.paper.table import markdown_table, measured, printed


def claims_document(judged: Sequence[Claim], contradictions: pd.DataFrame, head: str) -> str:
    """Lay out claims by section of the paper, then the paper's contradictions.

    Args:
        judged: As :func:`misure.paper.claims.claims` returns them.
        contradictions: As :func:`misure.paper.claims.inconsistencies` returns them.
        head: What they were made from, as :func:`misure.paper.provenance.head_note` writes it.
    """
    marks = pd.DataFrame(
        [
            {"dataset": claim.finding.dataset, **claim.finding.origin.columns()}
            for claim in judged
            if claim.finding.dataset != ALL_DATASETS
        ]
    )
    title = "Does the paper hold? Its claims, one by one"
    parts = [heading(title, marks) if len(marks) else f"# {title}", head, _counted(judged)]
    for section in dict.fromkeys(claim.finding.section for claim in judged):
        mine = [claim for claim in judged if claim.finding.section == section]
        parts += [f"## Section {section}", _section(mine)]
    parts += ["## How a verdict is reached", _RULES, "## Not tested", _NOT_TESTED]
    return "\n\n".join([*parts, "## The paper against itself", _contradictions(contradictions)]) + "\n"


def inconsistencies_document(contradictions: pd.DataFrame, head: str) -> str:
    """Lay out the paper's contradictions by themselves."""
    title = "The paper against itself"
    first = heading(title, contradictions) if len(contradictions) else f"# {title}"
    return "\n\n".join([first, head, _contradictions(contradictions)]) + "\n"


def _counted(judged: Sequence[Claim]) -> str:
    counts = {verdict: sum(claim.verdict == verdict for claim in judged) for verdict in Verdict}
    tested = sum(claim.p_adjusted == claim.p_adjusted for claim in judged)
    rows = [[verdict.value, str(n)] for verdict, n in counts.items()]
    numbers = f"{len(judged)} claims, of which {tested} could be tested; the correction is over these."
    return f"{markdown_table(['Verdict', 'Claims'], rows)}\n\n{numbers}"


def _section(judged: Sequence[Claim]) -> str:
    order = {claim.finding.id: place for place, claim in reversed(list(enumerate(judged)))}
    headers = ["The paper says", "Dataset, model", "Verdict", "Why", "p", "p, corrected"]
    headers += ["Samples (images or volumes)", "Records", "Source"]
    lines = []
    for claim in sorted(judged, key=lambda claim: order[claim.finding.id]):
        finding, row = claim.finding, claim.row()
        cells = [finding.statement, _place(finding), f"**{claim.verdict.value}**", claim.why]
        cells += [probability(finding.p), probability(claim.p_adjusted), f"{row['n']} ({row['n_groups']})"]
        lines.append([*cells, str(row["n_records"]), finding.origin.cell])
    return markdown_table(headers, lines)


def _place(finding: Finding) -> str:
    if finding.dataset == ALL_DATASETS:
        return "all datasets"
    return f"{finding.dataset}, {finding.model or 'both networks'}"


def _contradictions(frame: pd.DataFrame) -> str:
    parts = [_CONTRADICTIONS_READING]
    headers = ["Dataset, model", "Number", "Paper", "Ours", "Samples", "Source"]
    for _, rows in frame.groupby(["id", "contradiction"], sort=False) if len(frame) else ():
        lines = [
            [
                f"{row['dataset']}, {row['model']}",
                str(row["quantity"]),
                printed(row["paper"]),
                _ours(row),
                str(row["n"]),
                Origin.of_row(row).cell,
            ]
            for _, row in rows.iterrows()
        ]
        parts += [str(rows["contradiction"].iloc[0]), markdown_table(headers, lines)]
    return "\n\n".join(parts)


def _ours(row: pd.Series) -> str:
    mean, low, high = (measured(float(row[name])) for name in ("ours", "low", "high"))
    return mean if row["low"] != row["low"] else f"{mean} [{low}, {high}]"


_RULES = f"""\
- Methods are compared over the **same samples** (image and class) that all of them explained. The statistic is the mean
  of the paired differences; *Why* gives the median as well, because ratios have long tails. Two networks are compared
  over the samples that both explained, or where these are too few by a bootstrap of the difference of their means.
- **p** is two-sided. For means it is that of a sign-flip test in which the samples of an image (on Synapse:
  of a volume) change their sign together: all patterns of at most {EXACT_UP_TO} groups, else {N_DRAWS} random ones
  with a fixed seed. For correlations, areas under curves and unpaired differences it comes from {N_DRAWS} bootstrap
  draws of images or volumes. Intervals are 95 % bootstrap intervals over images or volumes.
- A claim about the best of several makes several comparisons. Where all point the claimed way, its p is the largest of
  theirs; where one points the other way, the smallest of those, times the number of comparisons.
- **p, corrected** is Holm's correction over all tested claims of this document.
- **{Verdict.HOLDS.value}**: every comparison points the claimed way and the corrected p is below {LEVEL}.
- **{Verdict.FAILS.value}**: a comparison points the other way and the corrected p is below {LEVEL}. For "ten times
  lower" the other way is less than ten times; for "no trend" it is a correlation beyond +-0.3.
- **{Verdict.OPEN.value}**: neither, or there are no records, or fewer than {FEWEST_GROUPS} images or volumes (with
  which no test reaches {LEVEL}), or the profile is smoke.
- **{Verdict.STAND_IN.value}**: generated data took the place of the paper's. It never supports a verdict, whatever the
  numbers, which are still shown.
- A network that replaces the paper's is named in every row: the verdict is then about the method on that network.
- MSR is the literal reading of the paper. The records that a claim rests on are counted here and named by their ids in
  `claims.json`."""

_NOT_TESTED = """\
- "MSR emerges as the most balanced of the three algorithms" (5.2): no weights of the metrics are given.
- "Objects in CT are similar in texture to their surroundings" and other explanations of findings (5.1 to 5.3):
  the paper itself calls them hypotheses.
- "Two-thirds" and "one-fifth" of the object's pixels (5.2): Table 1 has both numbers beside ours.
- "May show some localisation correspondence" (5.1, Seg-Grad-CAM on Synapse's U-Net): too vague to fail.
- Single images (rows five to seven of Figure 3; Figure 9): their identity is not published.
- "The choice of the layer is not straightforward" (5.6), "multiple experiments had to be performed" (5.7):
  no numbers."""

_CONTRADICTIONS_READING = """\
Every contradiction of the paper's text and tables that has numbers, with ours beside them: mean [95 % bootstrap
interval over images or volumes]. A dash means that there is no number."""
