"""Text of documents, from the Jinja templates beside this module."""

from __future__ import annotations

from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape


def prose(template: str, **values: Any) -> str:
    """Fill a template of ``misure/paper/templates``; values are escaped in HTML (``*.html.j2``) alone.

    Args:
        template: Its file's name.
        **values: What it refers to; a name that is missing is an error.

    Returns:
        The text without blank lines at its ends.
    """
    return _environment().get_template(template).render(**values).strip()


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("misure.paper"),
        autoescape=select_autoescape(enabled_extensions=("html.j2",), default_for_string=False),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
