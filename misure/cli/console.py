"""The console script ``misure``: its commands, one of which it runs."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Sequence
from itertools import chain

from misure.cli import commands
from misure.cli.entry import FULL_ERROR
from misure.errors import did_you_mean
from misure.io.installed import package_version

_COMMANDS = {
    "your own images": ("explain", "layers", "app"),
    "the paper": ("reproduce", "plan", "tables", "prepare"),
    "one experiment": ("run", "train"),
    "time and memory": ("bench", "scaling", "methods", "operations", "rise_masks", "workers"),
}
_IN_FULL = {"prepare": "prepare_data"}


def main(argv: Sequence[str] | None = None) -> None:
    """Run the console script ``misure``: ``misure <command> <arguments>``.

    Args:
        argv: Command and arguments; None means those of the process.
    """
    command, *arguments = [*(sys.argv[1:] if argv is None else argv)] or [""]
    known = {*chain.from_iterable(_COMMANDS.values()), *_IN_FULL.values()}
    if command in ("-h", "--help", "help"):
        print(_usage())
    elif command == "--version":
        print(f"misure {package_version()}")
    elif command in known:
        with _arguments(command, arguments):
            getattr(commands, _IN_FULL.get(command, command))()
    elif command:
        sys.exit(f"misure: there is no command {command!r}{did_you_mean(command, sorted(known))}; see misure --help")
    else:
        sys.exit(_usage())


def _usage() -> str:
    lines = ["usage: misure <command> <key>=<value> ..."]
    for group, names in _COMMANDS.items():
        summaries = {name: getattr(commands, _IN_FULL.get(name, name)).__doc__ for name in names}
        lines += ["", f"{group}:", *(f"  {name:10}  {summary}" for name, summary in summaries.items())]
    return "\n".join([*lines, "", "misure <command> --help says more"])


@contextlib.contextmanager
def _arguments(command: str, arguments: Sequence[str]) -> Iterator[None]:
    """Let Hydra, which reads the process's arguments, see those of a command."""
    given, full_error = sys.argv, os.environ.get(FULL_ERROR)
    sys.argv = [f"misure {command}", *arguments]
    try:
        yield
    finally:
        sys.argv = given
        os.environ.pop(FULL_ERROR, None)
        os.environ.update({} if full_error is None else {FULL_ERROR: full_error})


if __name__ == "__main__":
    main()
