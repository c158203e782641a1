"""Reads the Markdown that this project's documents are written in, as data for a template.

Only what :mod:`misure.paper` writes is known: headings, paragraphs, lists, tables, bold, code and links. All else
stays the text that it is; nothing here makes HTML.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

_LINK = re.compile(r"https?://[^\s<>\"']+")
_CELL_END = re.compile(r"(?<!\\)\|")
_HEADING = re.compile(r"(#{1,6})\s+(.*)")
_ITEM = re.compile(r"\s*(?:[-*]|\d+\.)\s+(.*)")
_RULE = re.compile(r"\|(\s*:?-+:?\s*\|)+\s*")
_SPAN = re.compile(
    r"`(?P<code>[^`]+)`|\*\*(?P<strong>.+?)\*\*|<(?P<bare>https?://[^\s<>]+)>|\[(?P<text>[^\]]+)\]\((?P<href>[^)\s]+)\)"
)


@dataclass(frozen=True)
class Span:
    """A piece of a line.

    Attributes:
        text: What to show.
        kind: ``"text"``, ``"strong"``, ``"code"`` or ``"link"``.
        href: Of a link; always http or https.
    """

    text: str
    kind: str = "text"
    href: str = ""


@dataclass(frozen=True)
class Block:
    """A heading, a paragraph, a list or a table.

    Attributes:
        kind: ``"heading"``, ``"paragraph"``, ``"list"`` or ``"table"``.
        lines: A heading's or paragraph's only line; a list's items; a table's headers.
        rows: A table's cells.
        level: Of a heading, from 1.
    """

    kind: str
    lines: Sequence[Sequence[Span]]
    rows: Sequence[Sequence[Sequence[Span]]] = field(default=())
    level: int = 0


def blocks(document: str) -> list[Block]:
    """Split a document into its blocks."""
    return [block for chunk in _chunks(document) for block in _blocks_of(chunk)]


def spans(line: str) -> list[Span]:
    """Split a line into plain and marked pieces; a link to anything but the web stays text."""
    found: list[Span] = []
    end = 0
    for match in _SPAN.finditer(line):
        found.append(Span(line[end : match.start()]))
        found += _marked(match)
        end = match.end()
    return [span for span in [*found, Span(line[end:])] if span.text]


def plain(line: Sequence[Span]) -> str:
    """Return a line's text without its marks."""
    return "".join(span.text for span in line)


def _marked(match: re.Match[str]) -> list[Span]:
    parts = match.groupdict()
    if parts["code"]:
        return [Span(parts["code"], "code")]
    if parts["strong"]:
        return [replace(span, kind="strong") if span.kind == "text" else span for span in spans(parts["strong"])]
    href = parts["bare"] or parts["href"]
    return [Span(parts["text"] or href, "link", href) if _LINK.fullmatch(href) else Span(match[0])]


def _chunks(document: str) -> Iterator[list[str]]:
    chunk: list[str] = []
    for line in [*document.splitlines(), ""]:
        if line.strip():
            chunk.append(line)
        elif chunk:
            yield chunk
            chunk = []


def _blocks_of(chunk: list[str]) -> Iterator[Block]:
    """Read lines that no empty line separates; a heading or a list may follow a paragraph at once."""
    start = 0
    while start < len(chunk):
        read = _reader(chunk, start)
        block, used = read(chunk[start:])
        yield block
        start += used


def _reader(chunk: list[str], start: int) -> Callable[[list[str]], tuple[Block, int]]:
    line = chunk[start]
    if _HEADING.fullmatch(line):
        return _heading
    if line.startswith("|") and start + 1 < len(chunk) and _RULE.fullmatch(chunk[start + 1]):
        return _table
    return _list if _ITEM.fullmatch(line) else _paragraph


def _heading(lines: list[str]) -> tuple[Block, int]:
    match = _HEADING.fullmatch(lines[0])
    marks, text = match.groups() if match else ("#", lines[0])
    return Block("heading", [spans(text)], level=len(marks)), 1


def _table(lines: list[str]) -> tuple[Block, int]:
    n = next((i for i, line in enumerate(lines) if not line.startswith("|")), len(lines))
    headers, *rows = [_cells(line) for line in (lines[0], *lines[2:n])]
    return Block("table", headers, rows), n


def _cells(line: str) -> list[list[Span]]:
    inner = line.strip().removeprefix("|")
    inner = inner[:-1] if inner.endswith("|") and not inner.endswith("\\|") else inner
    return [spans(cell.strip().replace("\\|", "|")) for cell in _CELL_END.split(inner)]


def _list(lines: list[str]) -> tuple[Block, int]:
    items: list[str] = []
    n = 0
    for n, line in enumerate(lines):  # noqa: B007 - the number of lines used
        item = _ITEM.fullmatch(line)
        if item:
            items.append(item[1])
        elif line.startswith(" "):
            items[-1] += f" {line.strip()}"
        else:
            break
    else:
        n = len(lines)
    return Block("list", [spans(item) for item in items]), n


def _paragraph(lines: list[str]) -> tuple[Block, int]:
    n = next((i for i in range(1, len(lines)) if _reader(lines, i) is not _paragraph), len(lines))
    return Block("paragraph", [spans(" ".join(line.strip() for line in lines[:n]))]), n
