"""Packs finished runs into the folder of reference records that ships, and puts them back into an outputs folder."""

from __future__ import annotations

import json
import shutil
import zipfile
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd

from misure.errors import MisureError
from misure.explainers import EXPLAINERS
from misure.io.atomic import partial_of, replacing
from misure.paper import reference
from misure.paper.about import ABOUT, about, cell_of, is_pack, read_about
from misure.paper.extensions.stability import STABLE
from misure.paper.maps import NUMBERS, saved_arrays
from misure.paper.maps_archive import ARCHIVE, extract_archive, write_archive
from misure.paper.profiles import in_use, serving
from misure.paper.query import at_parameters, latest_run, undisturbed
from misure.paper.reference import GET_ANEW, PROFILE, RECORDS
from misure.sweep.compaction import Records, read_compacted, write_compacted
from misure.sweep.journal import Journal
from misure.sweep.records import RecordStore
from misure.sweep.shelves import WITHOUT_MAPS
from misure.sweep.volume_scores import read_volumes

MOST_RECORDS, MOST_MAPS = 3_000_000, 10_000_000
"""Bytes of the file of records, and of all maps."""

_FREE_IMAGES = {"triangle"}
"""Datasets whose images, and maps made from them, may be passed on; generated stand-ins may be as well."""

_NOT_NEEDED, _NO_ROOM = "not free or not needed", "no room"
"""Why maps stay behind."""


def pack(
    outputs: Mapping[str | Path, Mapping[str, str]], into: str | Path, weights_origin: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Pack the reference run's records of one or several outputs folders into the folder that ships.

    One calls it as ``pack({"outputs": {"command": "make reproduce PROFILE=reference"}}, "data/reference")``. A folder
    may be an earlier pack, whose records and machines are then kept: also the one that is replaced.

    A unit that several folders have counts once: a finished one before one that was skipped, else that of the first
    folder. Failed ones stay behind. The curves over thresholds go first, of every unit. Maps follow where they may be
    passed on, sample by sample, as far as :data:`MOST_MAPS` has room: of the published settings and the stable variant,
    then of changed images and networks (noise, interventions), then those of a precision beside that of the most
    explanations, of masks alone, last those of stand-ins beyond their first samples.

    Args:
        outputs: What is to be told of each folder, without private paths: the ``command`` that made it, and what
            neither records nor ``provenance.json`` know, such as a ``note`` that other programs ran beside it. Nothing
            of an earlier pack, which tells it itself.
        into: Made, or replaced where it holds an earlier pack.
        weights_origin: Where weights came from, by ``<dataset>-<model>``, for records of versions that did not tell.

    Returns:
        What ``about.json`` says: machines, versions, commits, commands, hours, how many samples each cell has, how many
        maps were left out, and what was filled in.

    Raises:
        MisureError: If there is nothing to pack, the records or curves are too large, or the place cannot be written.
    """
    folders, into = [Path(folder) for folder in outputs], Path(into)
    records, sources = Records(), dict[str, Path]()
    for folder in folders:
        for unit, rows in _records_of(folder).items():
            if unit not in records or _rank(rows) < _rank(records[unit]):
                records[unit], sources[unit] = rows, folder
    if not records:
        raise MisureError(f"no records of profile {PROFILE} are in {', '.join(map(str, folders))}")
    run = latest_run(pd.DataFrame([*chain.from_iterable(records.values())]), PROFILE)
    counting = sorted({*run["unit"]}, key=lambda unit: [str(records[unit][0].get(name)) for name in _ORDER])
    filled = _fill_in([records[unit] for unit in counting], weights_origin or {}, filter(is_pack, folders))
    with _replacing_pack(into) as partial:
        shipped, left_out = _pack_maps(run, sources, partial / ARCHIVE)
        for earlier in filter(is_pack, folders):
            left_out.update(read_about(earlier)["maps_left_out"])
        without = {unit: {} if unit in shipped else {WITHOUT_MAPS: True} for unit in counting}
        write_compacted(partial / RECORDS, {u: [row | without[u] for row in records[u]] for u in counting}, None)
        if (size := (partial / RECORDS).stat().st_size) > MOST_RECORDS:
            raise MisureError(f"the records take {size} bytes, more than the {MOST_RECORDS} that ship")
        _copy_volumes(run, folders, partial / "volumes")
        told = about(run, outputs) | {"maps": len(shipped), "maps_left_out": dict(left_out), "filled_in": filled}
        (partial / ABOUT).write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    return told


@contextmanager
def _replacing_pack(into: Path) -> Iterator[Path]:
    """Do as :func:`replacing` does for a folder that may hold an earlier pack, which comes back if that fails."""
    aside = partial_of(into, "01d")
    try:
        with replacing(into) as partial:
            partial.mkdir()
            yield partial
            if (into / ABOUT).is_file():
                into.rename(aside)
    finally:
        if aside.exists() and not into.exists():
            aside.rename(into)
        shutil.rmtree(aside, ignore_errors=True)


def _fill_in(
    records: list[list[dict[str, Any]]], weights_origin: Mapping[str, str], packs: Iterable[Path]
) -> dict[str, Any]:
    """Say in records that do not tell where their weights came from; return what was said and of how many, ever."""
    said, count = dict[str, str](), Counter[str]()
    for setup, of in chain.from_iterable(read_about(pack)["filled_in"].items() for pack in packs):
        said[setup] = of["said"]
        count[setup] += of["records"]
    for rows in records:
        setup = f"{rows[0]['dataset']}-{rows[0]['model']}"
        if setup in weights_origin and not any("weights_origin" in row for row in rows):
            said[setup] = weights_origin[setup]
            count[setup] += 1
            for row in rows:
                row["weights_origin"] = weights_origin[setup]
    return {"weights_origin": {setup: {"said": text, "records": count[setup]} for setup, text in said.items()}}


_ORDER = ("dataset", "model", "explainer", "intervention", "input_noise", "param_lr", "param_lam", "sample", "unit")
"""Equal values beside each other take less room."""


def unpack(outputs: Path) -> int:
    """Put the reference records, their maps and volume scores into an outputs folder, where it has none of their own.

    A run of the profile ``reference`` goes on from there: nothing of it is computed twice.

    Returns:
        How many records were put there; 0 where none ship.

    Raises:
        MisureError: If what ships is damaged, or the folder cannot be written.
    """
    folder, store = reference.FOLDER, RecordStore(outputs / "records")
    records, damaged = read_compacted(folder / RECORDS)
    if damaged:
        raise MisureError(f"{folder / RECORDS} is damaged: {GET_ANEW}")
    if not records:
        return 0
    own = {str(rows[0]["unit"]) for rows in store.read()[0]}
    if records.keys() - own:
        extract_archive(folder / ARCHIVE, store.maps_folder, lambda unit: unit not in own)
    for file in sorted((folder / "volumes").glob("*.json")):
        if not (outputs / "volumes" / file.name).exists():
            with replacing(outputs / "volumes" / file.name) as partial:
                shutil.copyfile(file, partial)
    added = store.add(records)  # after their maps, so that an interruption leaves no record without them
    journal = Journal(outputs)
    by_age = sorted((rows[0] for rows in records.values()), key=lambda row: str(row["created"]))
    made_from = {(row["dataset"], row["model"]): (row["weights"], row["dataset_fingerprint"]) for row in by_age}
    for pair in made_from.keys() - journal.used(PROFILE).keys():
        journal.use(PROFILE, *pair, *made_from[pair])
    return added


def _store(folder: Path) -> RecordStore:
    """Return the records of an outputs folder, or of an earlier pack."""
    return RecordStore(folder if is_pack(folder) else folder / "records")


def _records_of(outputs: Path) -> Records:
    """Return the finished and skipped records of an outputs folder that count for the profile."""
    store = _store(outputs)
    read, damaged = store.read()
    if is_pack(outputs) and damaged:
        raise MisureError(f"{outputs} is damaged ({next(iter(damaged.values()))}): get it anew, by git checkout")
    stored = store.load()
    counting = in_use(serving(stored, PROFILE, store.serving(PROFILE)), Journal(outputs).used(PROFILE))
    units = set(counting.loc[counting["status"].isin(["done", "skipped"]), "unit"]) if len(counting) else set()
    found = ((str(rows[0]["unit"]), rows) for rows in read)
    return {unit: [_as_packed(row) for row in rows] for unit, rows in found if unit in units}


def _as_packed(row: dict[str, Any]) -> dict[str, Any]:
    """Return a line of the profile that ships; whether its maps do is told anew."""
    return {name: value for name, value in row.items() if name != WITHOUT_MAPS} | {"profile": PROFILE}


def _rank(rows: list[dict[str, Any]]) -> int:
    return ["done", "skipped"].index(rows[0]["status"])


def _pack_maps(run: pd.DataFrame, sources: Mapping[str, Path], path: Path) -> tuple[set[str], Counter[str]]:
    """Write the curves of every unit, and the maps that may be passed on as far as there is room.

    Args:
        run: What is packed.
        sources: The outputs folder or earlier pack of each unit.
        path: Of the archive.

    Returns:
        The units whose maps are complete, and how many others have some, by why they stay behind.
    """
    order, plain, may_go = _in_order(run)
    numbers, whole, n_kept = dict[str, Path](), dict[str, Path](), 0
    with TemporaryDirectory(dir=path.parent) as folder:
        with _maps_of(sources.values(), path.parent) as places:
            for unit in order:
                place = places[sources[unit]]
                if _save(file := Path(folder) / f"{unit}.numbers.npz", place, NUMBERS):
                    numbers[unit] = file
                file = Path(folder) / f"{unit}.npz"
                n_kept += unit not in may_go and (place / file.name).exists()
                if unit in may_go and _save(file, place, ("",), image=unit in plain):
                    whole[unit] = file
        free = [unit for unit in order if unit in whole]

        def size_of(n: int) -> int:
            """Write the archive, with the maps of the first n that may go and a sample's together; return its size."""
            chosen = numbers | {unit: whole[unit] for unit in free[:n]}
            return write_archive(path, [chosen[unit] for unit in dict.fromkeys(run["unit"]) if unit in chosen])

        n_fitting = len(free)
        if size_of(n_fitting) > MOST_MAPS:
            n_fitting = max(0, bisect_right(range(len(free)), MOST_MAPS, key=size_of) - 1)
            if (size := size_of(n_fitting)) > MOST_MAPS:
                raise MisureError(f"the curves alone take {size} bytes, more than the {MOST_MAPS} that ship")
    left_out = Counter({_NOT_NEEDED: n_kept, _NO_ROOM: len(free) - n_fitting})
    return {*free[:n_fitting]}, left_out


def _in_order(run: pd.DataFrame) -> tuple[list[str], set[str], set[str]]:
    """Return the finished units, the first to be given room first, those with an image, and those that may go."""
    done = run[run["status"].eq("done")].drop_duplicates("unit")
    beside, dense = _is_beside(done), done["threshold"].notna()
    plain = undisturbed(done) & ~beside
    untouched = done.assign(input_noise=0.0, intervention="")
    shown = [*((name, {}) for name in EXPLAINERS), (STABLE.explainer, dict(STABLE.parameters))]
    published = {unit for name, changed in shown for unit in at_parameters(untouched, name, **changed)["unit"]}
    may_go = done["dataset"].isin(_FREE_IMAGES) | done["stand_in"].astype(bool)
    may_go &= ~(beside & dense) & done["unit"].isin(published)
    rank = pd.to_numeric(done["draw"]).fillna(0)
    late = done["stand_in"].astype(bool) & (rank > 0)
    order = done.assign(late=late, beside=beside, disturbed=~plain, rank=rank)
    order = order.sort_values(["late", "beside", "disturbed", "rank", "dataset", "unit"])
    return [*order["unit"]], {*done.loc[plain, "unit"]}, {*done.loc[may_go, "unit"]}


@contextmanager
def _maps_of(folders: Iterable[Path], beside: Path) -> Iterator[dict[Path, Path]]:
    """Say where the maps of outputs folders and of earlier packs are, whose archives are extracted meanwhile."""
    with TemporaryDirectory(dir=beside) as extracted:
        places = {folder: _store(folder).maps_folder for folder in {*folders}}
        for number, folder in enumerate(filter(is_pack, places)):
            places[folder] = Path(extracted) / str(number)
            extract_archive(folder / ARCHIVE, places[folder])
        yield places


def _is_beside(done: pd.DataFrame) -> pd.Series:
    """Mark the records of a precision of whose setting another one has more explanations, or newer ones."""
    named = done.assign(cell=[*map(cell_of, done.to_dict("records"))])
    cell = ["dataset", "model", "cell"]
    counts = named.groupby([*cell, "precision"])["created"].agg(["size", "max"]).reset_index()
    usual = counts.sort_values(["size", "max"]).drop_duplicates(cell, keep="last")
    chosen = named[cell].merge(usual, on=cell, how="left")["precision"]
    return done["precision"].ne(chosen.set_axis(done.index))


def _save(path: Path, source: Path, kept: tuple[str, ...], *, image: bool = True) -> bool:
    """Save what a folder keeps of a unit, not compressed and equal bytes for equal arrays; say whether it has any."""
    arrays = saved_arrays(source, path.name.partition(".")[0], kept)
    arrays = {name: array for name, array in arrays.items() if image or name != "image"}
    if arrays:
        with zipfile.ZipFile(path, "w") as archive:
            for name, array in arrays.items():
                with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w") as stream:
                    np.lib.format.write_array(stream, array, allow_pickle=False)
    return bool(arrays)


def _copy_volumes(run: pd.DataFrame, folders: list[Path], into: Path) -> None:
    """Copy the scores of the networks and images of the records; those of the first folder count."""
    into.mkdir()
    made_from = set(run[["weights", "dataset_fingerprint"]].itertuples(index=False, name=None))
    for file in chain.from_iterable(sorted((folder / "volumes").glob("*.json")) for folder in reversed(folders)):
        first = read_volumes(file).iloc[0]
        if (first["weights"], first["dataset_fingerprint"]) in made_from:
            shutil.copyfile(file, into / file.name)
