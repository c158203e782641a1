"""The reference of all public names, and the pages beside the code, as HTML: ``python tests/api_docs.py outputs/docs``.

pdoc renders them; formulas become MathML, which browsers show without a script from elsewhere. Warnings are errors.
"""

from __future__ import annotations

import dataclasses
import os
import re
import sys
import types
import typing
import warnings
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

from jinja2 import pass_context
from jinja2.runtime import Context
from latex2mathml.converter import convert
from pdoc import render
from pdoc.doc import Module
from pdoc.render_helpers import to_markdown_with_context

PROJECT = Path(__file__).resolve().parents[1]

PAGES = {
    "tutorial": "misure/explaining/tutorial.md",
    "your_own_network": "misure/explaining/README.md",
    "methods": "misure/explainers/README.md",
    "reliability": "misure/reliability/README.md",
    "configurations": "configs/README.md",
    "data": "data/README.md",
    "outputs": "outputs/README.md",
    "speed_and_precision": "misure/bench/README.md",
    "the_house": "misure/README.md",
}
"""Documents, by the names of their pages."""

MODULES = (
    "misure",
    "misure.explainers",
    "misure.metrics",
    "misure.evaluation.curves",
    "misure.reliability",
    "misure.io.images",
    "misure.explainers.base",
    "misure.models.wrapper",
    "misure.target",
    "misure.training.config",
    "misure.sweep.records",
    "misure.sweep.sampling",
)
"""What a user calls, most public first."""

_TEMPLATES = PROJECT / "tests" / "data" / "api_docs"
_FIRST = '<!doctype html><meta charset="utf-8"><meta http-equiv="refresh" content="0; url=misure.html">\n'
_FORMULA = re.compile(r"\$\$(?P<block>.+?)\$\$|\\\\\((?P<inline>.+?)\\\\\)", re.DOTALL)
_LINK = re.compile(r'(?<=href=")(?!\w+:|#|/)([^"#]*\.\w+|[^"#]*/)(?=["#])')


def write_docs(folder: Path) -> None:
    """Write ``index.html``, a page for each module and document, and the index of the search."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _render(folder.resolve())


def _render(folder: Path) -> None:
    render.configure(docformat="google", template_directory=_TEMPLATES, show_source=False)
    render.env.globals["pages"] = list(PAGES)
    render.env.filters["to_markdown"] = _to_markdown
    modules = {name: Module(_loaded(name)) for name in MODULES} | dict(_pages())
    folder.mkdir(parents=True, exist_ok=True)
    for name, module in modules.items():
        out = folder / f"{name.replace('.', '/')}.html"
        out.parent.mkdir(parents=True, exist_ok=True)
        text = render.html_module(module, modules)
        if name in PAGES:
            text = _LINK.sub(lambda found, at=PROJECT / PAGES[name]: _moved(found[1], at, folder), text)
        out.write_text(text, encoding="utf-8")
    (folder / "index.html").write_text(_FIRST, encoding="utf-8")
    (folder / "search.js").write_text(render.search_index(modules), encoding="utf-8")


def _loaded(name: str) -> types.ModuleType:
    """Import a module, and the names that it imports only when they are asked for."""
    module = import_module(name)
    for value in [getattr(module, public) for public in getattr(module, "__all__", vars(module))]:
        if dataclasses.is_dataclass(value) and isinstance(value, type):  # whose fields may be of a base's module
            hints = typing.get_type_hints(value, include_extras=True)
            value.__init__.__annotations__.update({f.name: hints[f.name] for f in dataclasses.fields(value) if f.init})
    return module


def _pages() -> Iterator[tuple[str, Module]]:
    for name, place in PAGES.items():
        page = types.ModuleType(name, (PROJECT / place).read_text(encoding="utf-8"))
        page.__docformat__ = "markdown"
        yield name, Module(page)


@pass_context
def _to_markdown(context: Context, docstring: str) -> str:
    """Write a docstring as Markdown, and its formulas before Markdown takes their signs for its own."""
    return _FORMULA.sub(_mathml, to_markdown_with_context(context, docstring))


def _mathml(found: re.Match[str]) -> str:
    latex = " ".join((found["block"] or found["inline"]).split())
    return convert(latex, display="block" if found["block"] else "inline")


def _moved(link: str, document: Path, folder: Path) -> str:
    """Return where a document's link leads from its page: another page, or a file of the project."""
    target = (document.parent / link).resolve()
    pages = {(PROJECT / place).resolve(): f"{name}.html" for name, place in PAGES.items()}
    if not target.exists():
        return link  # of the page's own frame
    return pages.get(target) or os.path.relpath(target, folder)


if __name__ == "__main__":
    write_docs(Path(sys.argv[1]))
    print(Path(sys.argv[1]) / "index.html")
