"""Help from what configurations say about themselves: examples, groups with their choices, keys with their meaning."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from misure.io.installed import CONFIG_FOLDER, config_groups

_PARTS = re.compile(
    r"(?P<header>(?:#.*\n)*)defaults:\n(?P<defaults>(?: .*\n)*)(?P<keys>(?:(?!hydra:).*\n)*)(?:hydra:\n(?: .*\n)*)?"
)
_BASE = re.compile(r"^ +- (?!_self_)(\w+)$", re.MULTILINE)


def help_of(command: str, summary: str, config: str) -> str:
    """Write the help of an entry point.

    Args:
        command: What it is called.
        summary: What it does.
        config: ``configs/<config>.yaml``, whose header is shown where it is the command's own.
    """
    own, *below = _with_bases(config)
    lines = [f"misure {command}: {summary}", ""]
    if config == command:
        lines += [line.removeprefix("#").removeprefix(" ") for line in own["header"].splitlines()[1:]] + [""]
    groups = {name: sorted(path.stem for path in Path(CONFIG_FOLDER, name).glob("*.yaml")) for name in config_groups()}
    lines += ["Groups, <group>=<choice>:", *(f"  {name}: {', '.join(groups[name])}" for name in sorted(groups)), ""]
    for parts in (own, *below):
        if keys := [line for line in parts["keys"].splitlines() if line]:
            lines += ["Keys, <key>=<value>, with what they are by default:", *(f"  {line}" for line in keys), ""]
    lines += [
        "A key that would change nothing is refused, with the one that would. --cfg job shows all keys with their",
        "values, -m takes several values and runs all combinations, --hydra-help says what else there is.",
    ]
    return "\n".join(lines)


def _with_bases(config: str) -> Iterator[dict[str, str]]:
    """Read the parts of a configuration and of those of the same folder that it stands on."""
    found = _PARTS.fullmatch(Path(CONFIG_FOLDER, f"{config}.yaml").read_text(encoding="utf-8"))
    if found is None:
        raise ValueError(f"configs/{config}.yaml is not in the usual order: comments, defaults, keys, hydra")
    yield found.groupdict()
    for base in _BASE.findall(found["defaults"]):
        yield from _with_bases(base)
