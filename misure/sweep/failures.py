"""What failed and why: one line for people, and a list of the networks that could not be explained at all."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path

from misure.errors import MisureError
from misure.sweep import ledger

_LONGEST = 300
_ABSOLUTE_PATH = re.compile(r"(?<![\w/:.~-])/(?:[^\s/:'\",;()]+/)+([^\s/:'\",;()]*)")


def reason_of(error: BaseException) -> str:
    """Write an exception on one line: its type, unless it was written for people, and its message.

    Of absolute paths the file's name is left: a reason is kept in records, which are passed on.
    """
    message = _ABSOLUTE_PATH.sub(r"\1", " ".join(str(error).split()))
    if not isinstance(error, MisureError):
        message = f"{type(error).__name__}: {message}" if message else type(error).__name__
    return message if len(message) <= _LONGEST else message[: _LONGEST - 3] + "..."


def subject_failures(outputs: Path, profile: str) -> dict[str, str]:
    """Return why datasets and networks have no results: reasons by subject (``dataset-model``, or a dataset).

    Args:
        outputs: The outputs folder.
        profile: Whose failures.
    """
    return {entry["subject"]: entry["reason"] for entry in ledger.read(_path(outputs)) if entry["profile"] == profile}


def remember_failure(outputs: Path, profile: str, subject: str, reason: str) -> None:
    """Keep why a subject failed, in place of what was known of it.

    Raises:
        MisureError: If the outputs folder cannot be written.
    """
    entry = {
        "subject": subject,
        "profile": profile,
        "reason": reason,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    ledger.change(_path(outputs), lambda entries: [*_others(entries, profile, subject), entry])


def forget_failure(outputs: Path, profile: str, subject: str) -> None:
    """Drop what is kept of a subject's failure, now that it succeeded.

    Raises:
        MisureError: If the outputs folder cannot be written.
    """
    if subject in subject_failures(outputs, profile):
        ledger.change(_path(outputs), lambda entries: _others(entries, profile, subject))


def _others(entries: ledger.Entries, profile: str, subject: str) -> ledger.Entries:
    return [entry for entry in entries if (entry["profile"], entry["subject"]) != (profile, subject)]


def _path(outputs: Path) -> Path:
    return outputs / "failures.json"
