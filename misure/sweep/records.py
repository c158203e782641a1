"""Records: one small file per explanation, written whole or not at all.

Read them with pandas in one line::

    records = pd.concat(pd.read_json(f, lines=True, dtype=False) for f in Path("outputs/records").rglob("*.json*[lz]"))
"""

from __future__ import annotations

import hashlib
import json
import os
import warnings
import zipfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from misure.errors import MisureError, some, without_folders
from misure.io.atomic import DAMAGED, safe_name, write_atomically
from misure.io.listing import Stamp, listing, stamp_of
from misure.io.locks import Lock
from misure.sweep.compaction import Records
from misure.sweep.journal import CannotWriteError, Journal
from misure.sweep.schema import check_record
from misure.sweep.shelves import COMPACTED, Found, Shelf

if TYPE_CHECKING:
    import pandas as pd

_HINT = " (outputs=<another folder>); records written so far are intact"

_CLAIMS, _COMPACTION = ".claims", "compaction"
_MAPS = ".npz"
_WORTH_COMPACTING = 250
"""Records: reading fewer takes a tenth of a second, and a compaction writes all that a method has on a setup anew."""

_MOST_NAMED = 20

ADDED_ATTRIBUTES = {"intervention": "", "precision": "32"}
_ADDED_PARAMETERS = {"lr_schedule": "constant", "dilation_radius": 3, "control_variate": None, "footprint": "ellipse"}
_ADDED_PARAMETERS |= {"background": "predicted", "dice_over": "pair", "false_positives": True, "dice_epsilon": 1e-7}
"""Attributes and parameters that came after the first records, each with the value that says what those did, which is
no part of the identity."""


@dataclass(frozen=True)
class Unit:
    """The identity of one explanation: equal units are never computed twice.

    Attributes:
        dataset: Name of the dataset.
        dataset_fingerprint: Identity of the images.
        model: Name of the network.
        weights: Fingerprint of its weights.
        explainer: Name of the method.
        parameters: All parameters of the method.
        sample: Index of the image in the validation split.
        class_id: The class explained.
        input_noise: Standard deviation of noise added to the image (for the noise floor), usually 0.
        intervention: What else was changed before explaining, such as randomised weights; usually nothing.
        precision: Of the network's passes: ``"32"``, ``"tf32"`` or ``"bf16"``.
    """

    dataset: str
    dataset_fingerprint: str
    model: str
    weights: str
    explainer: str
    parameters: Mapping[str, Any]
    sample: int
    class_id: int
    input_noise: float = 0.0
    intervention: str = ""
    precision: str = "32"

    @cached_property
    def id(self) -> str:
        """20 hexadecimal digits that depend on every attribute; float32 records of older versions keep theirs."""
        identity = _unlike(ADDED_ATTRIBUTES, {field.name: getattr(self, field.name) for field in fields(self)})
        identity["parameters"] = _unlike(_ADDED_PARAMETERS, self.parameters)
        return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:20]

    def columns(self) -> dict[str, Any]:
        """The identity as flat columns; lists become JSON text."""
        identity = {k: v for k, v in asdict(self).items() if k != "parameters"}
        flat = {k: json.dumps(v) if isinstance(v, list) else v for k, v in self.parameters.items()}
        return {"unit": self.id, **identity, **{f"param_{k}": v for k, v in flat.items()}}


class Outcome(NamedTuple):
    """How a unit ended.

    Attributes:
        status: ``done``, ``skipped`` or ``failed``; empty where there is no record.
        reason: Why it was skipped or failed.
        profile: In which it was made.
        created: When it was made.
    """

    status: str = ""
    reason: str = ""
    profile: str = ""
    created: str = ""

    @property
    def complete(self) -> bool:
        """Whether there is nothing left to do."""
        return self.status in {"done", "skipped"}


class RecordStore:
    """A folder of records that several processes may write to at once.

    Each unit has a file of its own, written under another name and then renamed, so that a reader or
    a restarted run sees it whole or not at all.

    Args:
        folder: Made when missing.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._shelves: dict[tuple[str, str, str], Shelf] = {}
        self._maps_seen: dict[str, tuple[Stamp, bool]] = {}

    @property
    def maps_folder(self) -> Path:
        """Where the maps of the first few samples lie, as ``<unit>.npz``."""
        return self.folder / "maps"

    @property
    def _journal(self) -> Journal:
        """Beside the records: which of them other profiles' runs found there instead of making them anew."""
        return Journal(self.folder)

    def path(self, unit: Unit) -> Path:
        """Where a unit's record lies."""
        return self._shelf(unit).path(unit.id)

    def maps_path(self, unit: Unit) -> Path:
        """Where a unit's maps lie, if they were saved."""
        return self.maps_folder / f"{unit.id}{_MAPS}"

    def claim(self, unit: Unit) -> Lock:
        """The lock of the process that works on a unit."""
        return Lock(self.folder / _CLAIMS / unit.id)

    def remove_abandoned_claims(self) -> None:
        """Remove the locks of processes that ended without giving them back; those that are held stay."""
        for path in (self.folder / _CLAIMS).glob("*"):
            if (lock := Lock(path)).take():
                lock.release()

    def outcome(self, unit: Unit, needs_maps: bool = False) -> Outcome:
        """Return how a unit ended, as the file system says now; an empty outcome where no record can be read.

        Args:
            unit: An explanation.
            needs_maps: Whether its maps are saved: a record without them, of any profile, counts as none, but for those
                that ship without.
        """
        return self._outcome(unit, self._shelf(unit).find_one(unit.id), needs_maps, {unit.id: self.maps_path(unit)})

    def outcomes(self, units: Sequence[tuple[Unit, bool]]) -> list[Outcome]:
        """Return how many units ended: each folder is listed once, and only what is new or changed is opened.

        Args:
            units: Explanations, each with whether its maps are saved, as for :meth:`outcome`.
        """
        wanted = defaultdict[Shelf, list[str]](list)
        for unit, _ in units:
            wanted[self._shelf(unit)].append(unit.id)
        found = {unit: known for shelf, ids in wanted.items() for unit, known in shelf.find(ids).items()}
        maps = listing(self.maps_folder, _MAPS) if any(needs_maps for _, needs_maps in units) else {}
        return [self._outcome(unit, found.get(unit.id), needs_maps, maps) for unit, needs_maps in units]

    def _outcome(
        self, unit: Unit, found: Found | None, needs_maps: bool, maps: Mapping[str, Path | os.DirEntry[str]]
    ) -> Outcome:
        if not found or found.precision not in {None, unit.precision}:  # records once did not tell precisions apart
            return Outcome()
        saved = found.status == "done" and needs_maps and not found.without_maps
        lost = saved and not self._are_maps(unit.id, stamp_of(maps.get(unit.id)))
        return Outcome() if lost else Outcome(*found[:4])

    def _are_maps(self, unit: str, stamp: Stamp | None) -> bool:
        """Say whether the maps of a unit can be read; they are opened if they changed since the last time."""
        if stamp and self._maps_seen.get(unit, (None,))[0] != stamp:
            self._maps_seen[unit] = stamp, zipfile.is_zipfile(self.maps_folder / f"{unit}{_MAPS}")
        return bool(stamp) and self._maps_seen[unit][1]

    def _shelf(self, unit: Unit) -> Shelf:
        return self._shelf_of(unit.dataset, unit.model, unit.explainer)

    def _shelf_of(self, dataset: str, model: str, explainer: str) -> Shelf:
        key = dataset, model, explainer
        if key not in self._shelves:
            self._shelves[key] = Shelf(self.folder / safe_name(f"{dataset}-{model}") / safe_name(explainer))
        return self._shelves[key]

    def serve(self, profile: str, units: Sequence[Unit]) -> None:
        """Let units that another profile made count in a profile's tables, because it would make the same.

        Raises:
            CannotWriteError: If the folder cannot be written.
        """
        if new := {unit.id for unit in units} - self.serving(profile):
            self._journal.note(*(("served", {"profile": profile, "unit": unit}) for unit in sorted(new)))

    def serving(self, profile: str) -> set[str]:
        """Return the units of other profiles that count in a profile's tables."""
        return {entry["unit"] for entry in self._journal.read("served") if entry.get("profile") == profile}

    def write(
        self, unit: Unit, rows: Sequence[Mapping[str, Any]], maps: Mapping[str, np.ndarray] | None = None
    ) -> None:
        """Write one unit: a line per row (threshold), and its maps first.

        Raises:
            CannotWriteError: If the folder cannot be written or the disk is full; earlier records are intact.
            ValueError: If it would not be read again, see :mod:`misure.sweep.schema`.
        """
        check_record(unit.id, [{**unit.columns(), **row} for row in rows])
        lines = "".join(json.dumps({**unit.columns(), **row}, allow_nan=False) + "\n" for row in rows)
        try:
            if maps is not None:
                path = write_atomically(self.maps_path(unit), lambda path: _save_maps(path, maps), hint=_HINT)
                path.with_name(path.name + DAMAGED).unlink(missing_ok=True)
            write_atomically(self.path(unit), lambda path: path.write_text(lines, encoding="utf-8"), hint=_HINT)
        except MisureError as error:
            raise CannotWriteError(str(error)) from error

    def load(self) -> pd.DataFrame:
        """Read all records, one row per unit and threshold; damaged ones are named in a warning and left out."""
        return self.load_and_tell()[0]

    def load_and_tell(self) -> tuple[pd.DataFrame, dict[str, str]]:
        """Do as :meth:`load` does, and say what was left out: reasons by what it is, in a few words each."""
        import pandas as pd

        records, damaged = self.read()
        if damaged:
            warnings.warn(f"damaged records are left out: {some([*damaged.values()], _MOST_NAMED)}", stacklevel=3)
        return pd.DataFrame([*chain.from_iterable(records)]), damaged

    def read(self) -> tuple[list[list[dict[str, Any]]], dict[str, str]]:
        """Read the lines of all records, and say what is wrong with others, in a few words each."""
        read: list[list[dict[str, Any]]] = []
        damaged: dict[str, str] = {}
        for shelf in self._all_shelves():
            records, wrong = shelf.read()
            read.extend(records.values())
            for path, reason in sorted(wrong.items()):
                damaged[f"record {path.relative_to(self.folder)}"] = without_folders(reason)
        return read, damaged

    def add(self, records: Records) -> int:
        """Keep records that were made elsewhere, of units of which there is none here.

        Returns:
            How many were kept.

        Raises:
            MisureError: If they cannot be written.
        """
        shelves = defaultdict[Shelf, Records](dict)
        for unit, rows in records.items():
            shelves[self._shelf_of(*(str(rows[0][name]) for name in ("dataset", "model", "explainer")))][unit] = rows
        lock = Lock(self.folder / _CLAIMS / _COMPACTION)
        lock.take(wait=True)
        try:
            return sum(shelf.add(own, hint=_HINT) for shelf, own in shelves.items())
        finally:
            lock.release()

    def count(self) -> int:
        """Return how many records there are, whole or damaged."""
        return sum(shelf.count() for shelf in self._all_shelves())

    def compact(self, worth: int = _WORTH_COMPACTING) -> int:
        """Move finished records into one compressed file a method and setup, unless another process does that now.

        Args:
            worth: Records of a method and setup that are not compacted yet; fewer stay as they are.

        Returns:
            How many were moved. Where that is not possible, a warning says why, and they stay as they are.
        """
        lock = Lock(self.folder / _CLAIMS / _COMPACTION)
        try:
            if not self.folder.is_dir() or not lock.take():
                return 0
            shelves = [shelf for shelf in self._all_shelves() if shelf.folder.parent.parent == self.folder]
            return sum(shelf.compact(worth, hint=_HINT) for shelf in shelves)
        except MisureError as error:
            warnings.warn(f"records are not compacted: {error}", stacklevel=2)
            return 0
        finally:
            lock.release()

    def _all_shelves(self) -> list[Shelf]:
        """Find what holds records, at any depth; a folder may be gone, and its compacted file be left."""
        folders = set[Path]()
        for place, _, names in os.walk(self.folder):
            compacted = [name.removesuffix(COMPACTED) for name in names if name.endswith(COMPACTED)]
            folders |= {Path(place), *(Path(place, name) for name in compacted)}
        return [Shelf(folder) for folder in sorted(folders)]


def _unlike(usual: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values without those that are as usual."""
    return {name: value for name, value in values.items() if name not in usual or value != usual[name]}


def _save_maps(path: Path, maps: Mapping[str, np.ndarray]) -> None:
    with path.open("wb") as stream:
        np.savez_compressed(stream, **dict[str, Any](maps))
