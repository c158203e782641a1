"""Parts of the READMEs that are made from configurations and records.

``python tests/readme_parts.py`` writes them anew.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

import readme_keys
import readme_results
import readme_words

PROJECT = Path(__file__).resolve().parents[1]

DOCUMENTS = sorted(
    path for name in ("README.md", "*/README.md", "misure/**/*.md", "data/*/*.md") for path in PROJECT.glob(name)
)
"""What a reader finds beside the code; what is generated in a clone is no part of it."""

PARTS: dict[str, Callable[[], str]] = {
    "results": readme_results.results,
    "verdicts": readme_results.verdicts,
    "words": readme_words.words,
    "findings": readme_results.findings,
    "checks": readme_words.checks,
    "variants": readme_results.variants,
    "keys of profiles": readme_keys.profile_keys,
    "sweeps": readme_keys.sweeps,
    "readings": readme_keys.readings,
    **{
        f"keys of {name}": partial(readme_keys.command_keys, name)
        for name in ("run", "reproduce", "explain", "prepare_data", "bench", "methods", "rise_masks", "workers")
    },
    **{
        f"keys of {name}": partial(readme_keys.group_keys, name)
        for name in ("dataset", "model", "training", "explainer", "runner", "logger")
    },
}
"""By the name of the comments around each part."""

_PART = re.compile(r"^<!-- ([a-z_ ]+) -->\n(.*?)^<!-- /\1 -->$", re.DOTALL | re.MULTILINE)


def parts_of(text: str) -> dict[str, str]:
    """Return what a document has between the comments of each part."""
    return {found[1]: found[2] for found in _PART.finditer(text)}


def renewed(text: str) -> str:
    """Return a document with all its parts made anew."""
    return _PART.sub(lambda found: f"<!-- {found[1]} -->\n{made(found[1])}<!-- /{found[1]} -->", text)


def made(name: str) -> str:
    """Make a part."""
    return PARTS[name]().strip() + "\n"


if __name__ == "__main__":
    for document in DOCUMENTS:
        text = document.read_text(encoding="utf-8")
        if renewed(text) != text:
            document.write_text(renewed(text), encoding="utf-8")
            print(document.relative_to(PROJECT))
