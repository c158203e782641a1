"""The journal of a folder: an append-only file that says what runs did there, one event a line."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from misure.datasets.available import NoImagesError
from misure.errors import AbsentError, MisureError, without_folders
from misure.io.locks import flock

_log = logging.getLogger(__name__)

Event = Literal["stage", "failed", "succeeded", "precision", "served", "used"]
"""Kinds of events: a stage ended; a dataset or network failed, or no longer does; a precision was measured; a record
of another profile was found to serve this one; a run took some weights and images."""

Used = dict[tuple[str, str], tuple[str, str]]
"""Fingerprints of weights and of images by dataset and model."""

_NAME = "journal.ndjson"  # records/*.jsonl are records

_LISTS_OF_OLDER_VERSIONS: dict[Event, str] = {
    "stage": "stages.json",
    "failed": "failures.json",
    "precision": "precision.json",
    "served": "served.json",
}
"""JSON lists of entries that earlier versions kept in the same folder, by the event that each of them notes."""

_KEYS: dict[str, dict[str, type | tuple[type, ...]]] = {
    "stage": {"stage": str, "seconds": (int, float)},
    "failed": {"subject": str, "profile": str, "reason": str},
    "succeeded": {"subject": str, "profile": str},
    "served": {"unit": str},
    "used": dict.fromkeys(("profile", "dataset", "model", "weights", "images"), str),
}
"""What readers of an event rely on, with its types."""

_LONGEST = 300


class CannotWriteError(MisureError):
    """The outputs folder cannot be written: nothing that is computed from here on could be kept."""


@dataclass(frozen=True)
class Journal:
    """Events in the order in which several processes noted them.

    Attributes:
        folder: Holds ``journal.ndjson``; made when missing.
    """

    folder: Path

    @property
    def path(self) -> Path:
        """The file: one JSON object a line."""
        return self.folder / _NAME

    def note(self, *events: tuple[Event, dict[str, Any]]) -> None:
        """Append events with their details.

        Raises:
            CannotWriteError: If the place cannot be written; events noted before are intact.
        """
        lines = "".join(json.dumps({"event": event, **details}) + "\n" for event, details in events)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with self.path.open("a+b") as stream:
                flock(stream.fileno(), self.folder)
                stream.write((_missing_line_end(stream.fileno()) + lines).encode())
        except OSError as error:
            reason = f"{error.strerror}; free space or choose another folder"
            raise CannotWriteError(f"cannot write {self.path}: {reason}") from error

    def read(self, *wanted: Event) -> list[dict[str, Any]]:
        """Return the details of all events of some kinds, with their kind under ``event``.

        A line that a killed process left unfinished or a damaged file is named in a warning and left out.
        """
        return [entry for entry in [*self._of_older_versions(wanted), *self._lines()] if entry["event"] in wanted]

    def _lines(self) -> Iterator[dict[str, Any]]:
        try:
            lines = self.path.read_bytes().decode(errors="replace").split("\n")
        except FileNotFoundError:
            return
        except OSError as error:
            warnings.warn(f"{self.path} is damaged and left out ({error})", stacklevel=4)
            return
        for number, line in enumerate(lines, 1):
            entry = _entry(line)
            if entry is not None:
                yield entry
            elif line:
                warnings.warn(f"{self.path}: line {number} is damaged and left out", stacklevel=4)

    def _of_older_versions(self, wanted: Sequence[Event]) -> Iterator[dict[str, Any]]:
        for event in {*wanted} & _LISTS_OF_OLDER_VERSIONS.keys():
            path = self.folder / _LISTS_OF_OLDER_VERSIONS[event]
            try:
                entries = [{"event": event, **entry} for entry in json.loads(path.read_text(encoding="utf-8"))]
            except FileNotFoundError:
                continue
            except (OSError, ValueError, TypeError, RecursionError) as error:
                warnings.warn(f"{path} is damaged and left out ({error})", stacklevel=4)
                continue
            yield from filter(_is_whole, entries)

    @contextmanager
    def stage(self, profile: str, name: str, setup: str = "") -> Iterator[None]:
        """Note the wall time of what happens inside, also when it is interrupted.

        Args:
            profile: Of the run.
            name: Such as ``"training"``.
            setup: Name of the dataset and network it concerns.
        """
        began, started = _now(), time.monotonic()
        try:
            yield
        finally:
            seconds = round(time.monotonic() - started, 2)
            entry = {"stage": name, "subject": setup, "seconds": seconds, "started": began, "profile": profile}
            with contextlib.suppress(MisureError):  # what cannot be written here is reported by what matters
                self.note(("stage", entry))

    def stages(self) -> list[dict[str, Any]]:
        """Return all stages of all runs in the order in which they ended.

        Returns:
            Dicts with ``stage``, ``subject`` (the setup's name, empty where it concerns none), ``seconds``,
            ``started`` (ISO time, UTC) and ``profile``.
        """
        return [{k: v for k, v in entry.items() if k != "event"} for entry in self.read("stage")]

    def use(self, profile: str, dataset: str, model: str, weights: str, images: str) -> None:
        """Note which weights and images a run of a profile takes, unless the one before it took the same.

        Raises:
            CannotWriteError: If the place cannot be written.
        """
        entry = {"profile": profile, "dataset": dataset, "model": model, "weights": weights, "images": images}
        if self.used(profile).get((dataset, model)) != (weights, images):
            self.note(("used", entry))

    def used(self, profile: str) -> Used:
        """Return what the last runs of a profile took: the order of the notes counts, and no clock."""
        found = [entry for entry in self.read("used") if entry["profile"] == profile]
        return {(entry["dataset"], entry["model"]): (entry["weights"], entry["images"]) for entry in found}

    def failures(self, profile: str) -> dict[str, str]:
        """Return why setups, or whole datasets, of a profile have no results: the last reasons by name."""
        reasons: dict[str, str] = {}
        for entry in self.read("failed", "succeeded"):
            if entry["profile"] == profile:
                reasons.pop(entry["subject"], None)
                reasons |= {entry["subject"]: entry["reason"]} if entry["event"] == "failed" else {}
        return reasons


@dataclass
class Failures:
    """Setups and datasets that fail in this run or are absent: noted, printed and kept, while the others go on.

    Args:
        journal: Of the outputs folder.
        profile: Of the run.
        kept: Whether reasons are written down for the tables.

    Attributes:
        reasons: Why what was tried failed.
        absent: What to do about what is left out because its data or weights are not here: no error.
    """

    journal: Journal
    profile: str
    kept: bool = True
    reasons: dict[str, str] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)

    @property
    def left_out(self) -> dict[str, str]:
        """All that has no results, with the reasons."""
        return self.absent | self.reasons

    @contextmanager
    def noted(self, name: str, *, but: type[Exception] = CannotWriteError) -> Iterator[None]:
        """Keep the reason of whatever goes wrong inside, except for one kind, instead of ending the run.

        Raises:
            CannotWriteError: If the outputs folder cannot be written.
        """
        try:
            yield
        except (CannotWriteError, but):
            raise
        except AbsentError as error:
            self.absent[name] = " ".join(str(error).split())
            self._remember(name, f"{name} is left out: {self.absent[name]}", reason_of(error))
        except Exception as error:  # noqa: BLE001 - whatever it is, the others go on
            _log.debug("%s failed", name, exc_info=True)
            self.reasons[name] = reason_of(error)
            self._remember(name, f"{name} failed, the others go on: {self.reasons[name]}", self.reasons[name])

    def tolerant(self, choose: Callable[[str, Sequence[str]], list[str]]) -> Callable[[str, Sequence[str]], list[str]]:
        """Return a choice of a setup's overrides that notes the networks, or whole datasets, that cannot be had."""

        def chosen(dataset: str, networks: Sequence[str]) -> list[str]:
            name = "-".join([dataset, *networks[:1]])
            if not {dataset, name} & self.left_out.keys():
                with self.noted(dataset), self.noted(name, but=NoImagesError):
                    overrides = choose(dataset, networks)
                    self.forget(dataset)
                    self.forget(name)
                    return overrides
            return []

        return chosen

    def forget(self, name: str) -> None:
        """Drop what an earlier run kept of a setup or dataset, now that it succeeded.

        Raises:
            CannotWriteError: If the outputs folder cannot be written.
        """
        if self.kept and name in self.journal.failures(self.profile):
            self.journal.note(("succeeded", {"subject": name, "profile": self.profile, "time": _now()}))

    def _remember(self, name: str, line: str, reason: str) -> None:
        print(line, flush=True)
        if self.kept:
            entry = {"subject": name, "profile": self.profile, "reason": reason, "time": _now()}
            self.journal.note(("failed", entry))


def reason_of(error: BaseException) -> str:
    """Write an exception on one line: its type, unless it was written for people, and its message.

    Of absolute paths the file's name is left: a reason is kept in records, which are passed on.
    """
    message = without_folders(" ".join(str(error).split()))
    if not isinstance(error, MisureError):
        message = f"{type(error).__name__}: {message}" if message else type(error).__name__
    return message if len(message) <= _LONGEST else message[: _LONGEST - 3] + "..."


def _entry(line: str) -> dict[str, Any] | None:
    """Read a line; None where it is damaged."""
    try:
        entry = dict(json.loads(line))
    except (ValueError, TypeError, RecursionError):
        return None
    return entry if _is_whole(entry) else None


def _is_whole(entry: dict[str, Any]) -> bool:
    event = entry.get("event")
    keys = _KEYS.get(event, {}) if isinstance(event, str) else {"event": str}
    return all(isinstance(entry.get(key), kind) for key, kind in keys.items())


def _missing_line_end(descriptor: int) -> str:
    """Say what separates the next line from one that a killed process left unfinished."""
    size = os.fstat(descriptor).st_size
    return "\n" if size and os.pread(descriptor, 1, size - 1) != b"\n" else ""


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
