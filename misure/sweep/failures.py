"""What failed and why: one line for people, and a list of the networks that could not be explained at all."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from omegaconf import DictConfig

from misure.errors import AbsentError, MisureError
from misure.sweep import ledger
from misure.sweep.records import CannotWriteError

_log = logging.getLogger(__name__)

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


@dataclass
class Failures:
    """Networks and datasets that fail in this run or are absent: noted, printed and kept, while the others go on.

    Args:
        outputs: The outputs folder.
        profile: Of the run.
        kept: Whether reasons are written down for the tables.

    Attributes:
        reasons: Why what was tried failed.
        absent: What to do about what is left out because its data or weights are not here: no error.
    """

    outputs: Path
    profile: str
    kept: bool = True
    reasons: dict[str, str] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)

    @property
    def left_out(self) -> dict[str, str]:
        """All that has no results, with the reasons."""
        return self.absent | self.reasons

    @contextmanager
    def noted(self, subject: str) -> Iterator[None]:
        """Keep the reason of whatever goes wrong inside, instead of ending the run.

        Raises:
            MisureError: If the outputs folder cannot be written.
        """
        try:
            yield
        except CannotWriteError:
            raise
        except AbsentError as error:
            self.absent[subject] = " ".join(str(error).split())
            self._remember(subject, f"{subject} is left out: {self.absent[subject]}", reason_of(error))
        except Exception as error:  # noqa: BLE001 - whatever it is, the other subjects go on
            _log.debug("%s failed", subject, exc_info=True)
            self.reasons[subject] = reason_of(error)
            line = f"{subject} failed, the others go on: {self.reasons[subject]}"
            self._remember(subject, line, self.reasons[subject])

    def tolerant(self, choose: Callable[[DictConfig], Sequence[str]]) -> Callable[[DictConfig], Sequence[str]]:
        """Return a choice of overrides that notes a dataset for which there is none to be made."""

        def chosen(cfg: DictConfig) -> Sequence[str]:
            dataset: str = cfg.dataset.name
            if dataset not in self.left_out:
                with self.noted(dataset):
                    overrides = choose(cfg)
                    self.forget(dataset)
                    return overrides
            return ()

        return chosen

    def forget(self, subject: str) -> None:
        """Drop what an earlier run kept of a subject, now that it succeeded.

        Raises:
            MisureError: If the outputs folder cannot be written.
        """
        if self.kept and subject in subject_failures(self.outputs, self.profile):
            ledger.change(_path(self.outputs), lambda entries: _others(entries, self.profile, subject))

    def _remember(self, subject: str, line: str, reason: str) -> None:
        print(line, flush=True)
        if not self.kept:
            return
        time = datetime.now(UTC).isoformat(timespec="seconds")
        entry = {"subject": subject, "profile": self.profile, "reason": reason, "time": time}
        ledger.change(_path(self.outputs), lambda entries: [*_others(entries, self.profile, subject), entry])


def _others(entries: ledger.Entries, profile: str, subject: str) -> ledger.Entries:
    return [entry for entry in entries if (entry["profile"], entry["subject"]) != (profile, subject)]


def _path(outputs: Path) -> Path:
    return outputs / "failures.json"
