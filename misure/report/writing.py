"""Puts the report together and writes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from misure.errors import MisureError
from misure.io.atomic import write_atomically
from misure.paper.findings import KeyFinding
from misure.paper.material import Material
from misure.paper.published import Pair
from misure.paper.query import SAMPLE, paper_draw, undisturbed
from misure.paper.source import Origin
from misure.paper.table import Table
from misure.plotting import data_uri
from misure.report.claims import BADGES, board, counts
from misure.report.provenance import provenance_tables

if TYPE_CHECKING:
    from jinja2 import Environment

FILE_NAME = "report.html"

_SCRIPT = "report.js"
_STYLES = ("page", "parts", "gallery")
_OPEN_QUESTIONS = ("ambiguit", "stability")
"""Beginnings of the names of tables that have a section of their own."""

_PROFILES = {
    "smoke": "A check that everything runs, at a tiny size: its numbers mean nothing.",
    "quick": "Half scale or stand-ins, few samples, a CPU's hour: the method's behaviour, not the paper's counts.",
    "paper": "The paper's counts.",
    "reference": "The paper's protocol at full scale where the data is real; this is the run whose records ship.",
}


def write_report(  # noqa: PLR0917 - the order is the caller's contract
    outputs: Path,
    material: Material,
    tables: Sequence[Table],
    figures: Sequence[Path],
    claims: pd.DataFrame,
    provenance: Mapping[str, Any],
    findings: Sequence[KeyFinding] = (),
) -> Path:
    """Write ``report.html``, one file that needs no other and no network.

    It stays below :data:`misure.report.choice.PAGE_BYTES`: of many explanations it shows some, and says how many.

    Args:
        outputs: Where it goes.
        material: Records and maps.
        tables: As :func:`misure.paper.write.write_all` makes them.
        figures: PNG files; ``<name>_credits.md`` beside one is shown below it.
        claims: One row per claim, with the columns :data:`misure.paper.claims.COLUMNS`.
        provenance: Nested plain values.
        findings: What a reader must know first, as :func:`misure.paper.findings.key_findings` returns it.

    Returns:
        The file.

    Raises:
        MisureError: If a library of the report is missing, or a file cannot be read or written.
    """
    template = _environment().get_template("report.html.j2")
    page = template.render(
        **_page(material, tables, figures, claims, provenance), findings=_findings(findings, figures)
    )
    return write_atomically(outputs / FILE_NAME, lambda path: path.write_text(page, encoding="utf-8"))


def _environment() -> Environment:
    try:
        import plotly  # noqa: F401 - said here, before any work is done
        from jinja2 import Environment, PackageLoader, StrictUndefined
        from markdown_it import MarkdownIt  # noqa: F401 - as above
        from PIL import Image  # noqa: F401 - as above
    except ImportError as error:
        raise MisureError(f"the report needs {error.name}: pip install 'misure[report]'") from error
    from misure.report.markdown import as_html

    loader = PackageLoader("misure.report")
    made = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    made.filters |= {"as_html": as_html, "csv_uri": _csv_uri}
    return made


def _csv_uri(table: Table) -> str:
    """Return all numbers of a table as a ``data:`` address."""
    return data_uri(table.csv().encode(), "text/csv;charset=utf-8")


def _page(
    material: Material,
    tables: Sequence[Table],
    figures: Sequence[Path],
    claims: pd.DataFrame,
    provenance: Mapping[str, Any],
) -> dict[str, Any]:
    """Return what the template shows."""
    from misure.report.figures import embedded
    from misure.report.gallery import gallery
    from misure.report.scatter import scatter

    verdicts = board(claims)
    return {
        "profile": material.profile,
        "profile_note": _PROFILES.get(material.profile, ""),
        "sources": [_source(material, pair) for pair in material.shown],
        "claims": verdicts,
        "counts": counts(verdicts),
        "verdicts": BADGES,
        "table_names": [table.name for table in tables],
        "tables": [table for table in tables if not table.name.startswith(_OPEN_QUESTIONS)],
        "questions": [table for table in tables if table.name.startswith(_OPEN_QUESTIONS)],
        "figures": embedded(figures),
        "plots": scatter(material),
        "gallery": gallery(material),
        "provenance": provenance_tables(provenance),
        **_shipped(),
    }


def _findings(findings: Sequence[KeyFinding], figures: Sequence[Path]) -> list[tuple[KeyFinding, str]]:
    """Return each finding with a small picture of its figure; empty where it has none."""
    from misure.report.figures import thumbnail

    paths = {path.stem: path for path in figures}
    return [(of, thumbnail(paths[of.figure]) if of.figure in paths else "") for of in findings]


def _shipped() -> dict[str, Any]:
    """Return the page's own styles and scripts, and Plotly's; they are not escaped, for they are no data."""
    from markupsafe import Markup
    from plotly.offline import get_plotlyjs

    folder = resources.files("misure.report") / "static"

    def text(name: str) -> Markup:
        return Markup(folder.joinpath(name).read_text(encoding="utf-8"))  # noqa: S704 - a file of this package

    return {
        "styles": [text(f"{name}.css") for name in _STYLES],
        "script": text(_SCRIPT),
        "plotly": Markup(get_plotlyjs()),  # noqa: S704 - the library's own file
    }


def _source(material: Material, pair: Pair) -> dict[str, Any]:
    records = paper_draw(material.run, pair)
    done = records[undisturbed(records) & records["status"].eq("done")]
    origin = Origin.of(done)
    return {
        "dataset": pair.dataset_label,
        "model": pair.model_label,
        "data": origin.data,
        "marks": origin.marks,
        "stand_in": origin.stand_in,
        "explanations": done["unit"].nunique(),
        "samples": len(done.drop_duplicates(SAMPLE)),
        "paper_samples": pair.paper_samples,
    }
