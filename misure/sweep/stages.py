"""How long each stage took: training, surveys, explaining, writing tables."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from misure.errors import MisureError
from misure.sweep import ledger


@contextlib.contextmanager
def stage(outputs: Path, profile: str, name: str, subject: str = "") -> Iterator[None]:
    """Note the wall time of what happens inside, also when it is interrupted.

    Args:
        outputs: The outputs folder.
        profile: Of the run.
        name: Such as ``"training"``.
        subject: The dataset and network it concerns.
    """
    began, started = datetime.now(UTC).isoformat(timespec="seconds"), time.monotonic()
    try:
        yield
    finally:
        seconds = round(time.monotonic() - started, 2)
        entry = {"stage": name, "subject": subject, "seconds": seconds, "started": began, "profile": profile}
        with contextlib.suppress(MisureError):  # what cannot be written here is reported by what matters
            ledger.change(_path(outputs), lambda entries: [*entries, entry])


def read_stages(outputs: Path) -> list[dict[str, Any]]:
    """Return all stages of all runs in the order in which they ended.

    Returns:
        Dicts with ``stage``, ``subject`` (empty where it concerns none), ``seconds``, ``started`` (ISO time, UTC)
        and ``profile``.
    """
    return ledger.read(_path(outputs))


def _path(outputs: Path) -> Path:
    return outputs / "stages.json"
