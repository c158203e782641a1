"""Markdown as HTML that cannot run: the project's own documents, with names from data in them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token
from markupsafe import Markup

_HEADING = "h4"


def as_html(document: str) -> Markup:
    """Render a Markdown document without its title; HTML in it stays text, and links lead to the web alone.

    Args:
        document: Of this project.
    """
    lines = document.splitlines()
    if lines and lines[0].startswith("# "):
        lines = lines[1:]
    return Markup(_READER.render("\n".join(lines)))  # noqa: S704 - the reader escapes what it is given


def _link(renderer: RendererHTML, tokens: Sequence[Token], index: int, options: Any, env: Any) -> str:
    if not str(tokens[index].attrs.get("href", "")).startswith(("http://", "https://")):
        tokens[index].attrs.pop("href", None)
    tokens[index].attrs |= {"rel": "noreferrer noopener", "target": "_blank"}
    return renderer.renderToken(tokens, index, options, env)


def _heading(renderer: RendererHTML, tokens: Sequence[Token], index: int, options: Any, env: Any) -> str:
    tokens[index].tag = _HEADING
    return renderer.renderToken(tokens, index, options, env)


def _reader() -> MarkdownIt:
    reader = MarkdownIt("commonmark", {"html": False}).enable("table")
    reader.add_render_rule("link_open", _link)
    reader.add_render_rule("heading_open", _heading)
    reader.add_render_rule("heading_close", _heading)
    scrolling = '<div class="scroll" role="region" tabindex="0" aria-label="Table"><table>\n'
    reader.add_render_rule("table_open", lambda *_: scrolling)
    reader.add_render_rule("table_close", lambda *_: "</table></div>\n")
    return reader


_READER = _reader()
