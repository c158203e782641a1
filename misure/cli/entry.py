"""What all command-line entry points share: one line for a user's error, a non-zero exit code."""

from __future__ import annotations

import functools
import io
import logging
import os
import sys
import warnings
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
from misure.cli.overrides import check_overrides
from misure.cli.reads import READS
from misure.errors import MisureError
from misure.io.installed import CONFIG_FOLDER
from misure.sweep.keys import check_configuration

_CHATTY_LOGGERS = ("pytorch_lightning", "fontTools", "matplotlib", "httpx")
"""Packages that report tips, devices and font tables at the level of information."""

FULL_ERROR = "HYDRA_FULL_ERROR"


def entry_point(name: str, config_name: str = "") -> Callable[[Callable[[DictConfig], None]], Callable[[], None]]:
    """Make a Hydra entry point whose user errors are one line on stderr and a non-zero exit code.

    Overrides that change nothing are refused before it starts. A job of a multirun that fails does not stop the
    others. ``HYDRA_FULL_ERROR=1`` brings the traceback.

    Args:
        name: What it is called in :data:`misure.cli.reads.READS`.
        config_name: The primary configuration, ``configs/<config_name>.yaml``; by default that of its name.
    """
    config_name = config_name or name

    def decorate(task: Callable[[DictConfig], None]) -> Callable[[], None]:
        traceback_wanted = os.environ.get(FULL_ERROR) == "1"

        @functools.wraps(task)
        def job(cfg: DictConfig) -> None:
            _set_up_messages()
            try:
                _check_job(name, cfg)
                task(cfg)
            except MisureError as error:
                if traceback_wanted or HydraConfig.get().mode == RunMode.MULTIRUN:
                    raise
                sys.exit(one_line(error))

        run = hydra.main(config_path=CONFIG_FOLDER, config_name=config_name, version_base="1.3")(job)

        @functools.wraps(task)
        def main() -> None:
            os.environ[FULL_ERROR] = "1"  # Hydra then hands exceptions over instead of printing its own report
            given = sys.argv
            try:
                sys.argv = [given[0], *hydra_arguments(name, config_name, given[1:])]
                _check_arguments(name, config_name)
                run()
            except (MisureError, HydraException, OmegaConfBaseException) as error:
                if traceback_wanted:
                    raise
                sys.exit(one_line(error))
            finally:
                sys.argv = given

        return main

    return decorate


def _check_job(name: str, cfg: DictConfig) -> None:
    """Check the configuration of a job of several; that of a single run was checked with its overrides."""
    if HydraConfig.get().mode == RunMode.MULTIRUN:
        check_configuration(cfg, READS[name].keys(cfg))


def _set_up_messages() -> None:
    warnings.formatwarning = _warning_line
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names of files may have what a terminal has not
    for chatty in _CHATTY_LOGGERS:
        logging.getLogger(chatty).setLevel(logging.ERROR)


def _check_arguments(name: str, config_name: str) -> None:
    """Check the process's overrides, unless Hydra is only asked to show something."""
    given = get_args_parser().parse_args()
    shown = (given.help, given.hydra_help, given.cfg, given.info, given.shell_completion)
    if not any(shown):
        places = [f"hydra.searchpath=[file://{Path(given.config_dir).resolve()}]"] if given.config_dir else []
        check_overrides(name, config_name, [*places, *given.overrides], multirun=given.multirun)


def one_line(error: Exception) -> str:
    """Write an error on one line (our own may have more), without Hydra's list of the places it searched."""
    text, _, _ = str(error).partition("Config search path:")
    lines = text.splitlines() if isinstance(error, MisureError) else [text]
    return "misure: " + "\n".join(" ".join(line.split()) for line in lines)


def _warning_line(message: Warning | str, category: type[Warning], *_: object, **__: object) -> str:
    return f"{category.__name__}: {message}\n"
