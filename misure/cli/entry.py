"""What all command-line entry points share: one line for a user's error, a non-zero exit code."""

from __future__ import annotations

import functools
import os
import sys
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from misure.cli.arguments import hydra_arguments
from misure.cli.help import help_of
from misure.errors import MisureError, set_up_messages
from misure.io.installed import CONFIG_FOLDER

FULL_ERROR = "HYDRA_FULL_ERROR"

_TRACEBACK_WANTED = os.environ.get(FULL_ERROR) == "1"


def entry_point(config: str = "") -> Callable[[Callable[[DictConfig], None]], Callable[[], None]]:
    """Make a Hydra entry point whose user errors are one line on stderr and a non-zero exit code.

    Overrides that change nothing are refused before it starts. A job of a multirun that fails does not stop the
    others. ``HYDRA_FULL_ERROR=1`` brings the traceback. Its name is the function's, in
    :data:`misure.cli.reads.READS` too, and its help begins with the docstring.

    Args:
        config: The primary configuration, ``configs/<config>.yaml``; by default that of its name.
    """

    def decorate(task: Callable[[DictConfig], None]) -> Callable[[], None]:
        name = task.__name__
        configured_by = config or name

        @functools.wraps(task)
        def job(cfg: DictConfig) -> None:
            set_up_messages()
            try:
                _check_job(name, cfg)
                task(cfg)
            except MisureError as error:
                if _TRACEBACK_WANTED or HydraConfig.get().mode == RunMode.MULTIRUN:
                    raise
                sys.exit(one_line(error))

        run = hydra.main(config_path=CONFIG_FOLDER, config_name=configured_by, version_base="1.3")(job)

        @exit_on_error
        @functools.wraps(task)
        def main() -> None:
            os.environ[FULL_ERROR] = "1"  # Hydra then hands exceptions over instead of printing its own report
            given = sys.argv
            try:
                sys.argv = [given[0], *hydra_arguments(name, configured_by, given[1:])]
                asked = get_args_parser().parse_args()
                if asked.help:
                    print(help_of(name, task.__doc__ or "", configured_by))
                    return
                if not any((asked.hydra_help, asked.cfg, asked.info, asked.shell_completion)):
                    _check_overrides(name, configured_by, asked)
                run()
            finally:
                sys.argv = given

        return main

    return decorate


def exit_on_error(command: Callable[[], None]) -> Callable[[], None]:
    """Let a command end with one line about a user's error, unless a traceback is asked for."""

    @functools.wraps(command)
    def main() -> None:
        try:
            command()
        except (MisureError, HydraException, OmegaConfBaseException) as error:
            if _TRACEBACK_WANTED:
                raise
            sys.exit(one_line(error))

    return main


def _check_job(name: str, cfg: DictConfig) -> None:
    """Check the configuration of a job of several; that of a single run was checked with its overrides."""
    if HydraConfig.get().mode == RunMode.MULTIRUN:
        from misure.cli.reads import READS
        from misure.sweep.keys import check_configuration

        check_configuration(cfg, READS[name].keys(cfg))


def _check_overrides(name: str, config: str, given: Namespace) -> None:
    from misure.cli.overrides import check_overrides

    places = [f"hydra.searchpath=[file://{Path(given.config_dir).resolve()}]"] if given.config_dir else []
    check_overrides(name, config, [*places, *given.overrides], multirun=given.multirun)


def one_line(error: Exception) -> str:
    """Write an error on one line (our own may have more), without Hydra's list of the places it searched."""
    text, _, _ = str(error).partition("Config search path:")
    lines = text.splitlines() if isinstance(error, MisureError) else [text]
    return "misure: " + "\n".join(" ".join(line.split()) for line in lines)
