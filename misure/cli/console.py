"""The console script ``misure``: ``misure explain``, ``misure layers``, ``misure app``."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Sequence

from misure.cli.entry import FULL_ERROR, one_line
from misure.errors import MisureError, did_you_mean
from misure.io.installed import package_version

_COMMANDS = {
    "explain": "explain what a network segments in image files: misure explain photo.jpg --model ... --target dog",
    "layers": "list a network's layers and the shapes of their outputs: misure layers <network>",
    "app": "explain images in the browser",
}


def main(argv: Sequence[str] | None = None) -> None:
    """Run the console script ``misure``: ``misure <command> <arguments>``.

    Args:
        argv: Command and arguments; None means those of the process.
    """
    command, *arguments = [*(sys.argv[1:] if argv is None else argv)] or [""]
    if command in ("-h", "--help", "help"):
        print(_usage())
    elif command == "--version":
        print(f"misure {package_version()}")
    elif command == "app":
        _open_app(arguments)
    elif command in _COMMANDS:
        from misure.cli import commands

        with _arguments(command, arguments):
            getattr(commands, command)()
    elif command:
        sys.exit(f"misure: there is no command {command!r}{did_you_mean(command, _COMMANDS)}; see misure --help")
    else:
        sys.exit(_usage())


def _usage() -> str:
    listed = [f"  {name:8} {text}" for name, text in _COMMANDS.items()]
    return "\n".join(["usage: misure <command> ...", *listed, "misure <command> --help says more"])


def _open_app(arguments: Sequence[str]) -> None:
    try:
        from misure.app import main as open_app

        open_app(arguments)
    except MisureError as error:
        if os.environ.get(FULL_ERROR) == "1":
            raise
        sys.exit(one_line(error))


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
