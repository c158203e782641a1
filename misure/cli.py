"""What all command-line entry points share: one line for a user's error, a non-zero exit code."""

from __future__ import annotations

import functools
import logging
import os
import warnings
from collections.abc import Callable

from hydra.errors import CompactHydraException
from omegaconf import DictConfig

from misure.errors import MisureError

_CHATTY_LOGGERS = ("pytorch_lightning", "fontTools", "matplotlib", "httpx")
"""Packages that report tips, devices and font tables at the level of information."""


class UserError(CompactHydraException):
    """Hydra prints such an exception's message alone, unless HYDRA_FULL_ERROR=1 asks for the traceback."""


def entry_point(task: Callable[[DictConfig], None]) -> Callable[[DictConfig], None]:
    """Decorate a Hydra task so that a MisureError is printed as one line and the exit code is non-zero."""

    @functools.wraps(task)
    def wrapped(cfg: DictConfig) -> None:
        warnings.formatwarning = _one_line
        for chatty in _CHATTY_LOGGERS:
            logging.getLogger(chatty).setLevel(logging.ERROR)
        try:
            task(cfg)
        except MisureError as error:
            if os.environ.get("HYDRA_FULL_ERROR") == "1":
                raise
            raise UserError(f"misure: {error}") from error

    return wrapped


def _one_line(message: Warning | str, category: type[Warning], *_: object, **__: object) -> str:
    return f"{category.__name__}: {message}\n"
