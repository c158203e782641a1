"""Everything that is made from records alone: no data, network or training is imported here."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
from omegaconf import DictConfig

from misure.errors import MisureError
from misure.paper.packing import unpack
from misure.paper.profiles import in_use, serving
from misure.paper.reference import PROFILE
from misure.paper.tables.console import console_table
from misure.paper.write import write_all, write_table1
from misure.report import write_report
from misure.sweep.export import export_records
from misure.sweep.journal import Journal
from misure.sweep.provenance import write_provenance
from misure.sweep.records import RecordStore


def remake_outputs(cfg: DictConfig) -> None:
    """Do as :func:`write_outputs` does, of the reference run from the records that ship and those that are there.

    Raises:
        MisureError: If there are no records of the profile, or what ships is damaged.
    """
    if cfg.profile.name == PROFILE and not cfg.plan_only:
        unpack(Path(cfg.outputs))
    write_outputs(cfg)


def write_outputs(cfg: DictConfig) -> None:
    """Write tables, figures, claims, provenance and report from the records alone, and print Table 1.

    Raises:
        MisureError: If there are no records of the profile.
    """
    outputs, profile = Path(cfg.outputs), cfg.profile.name
    journal = Journal(outputs)
    if cfg.plan_only:
        n_records = RecordStore(outputs / "records").count()
        print(f"plan: tables, figures, claims and report from {n_records} records of all profiles, into {outputs}/")
        return
    with journal.stage(profile, "tables and figures"):
        stored, records, damaged = _loaded(cfg)
        if records.empty:
            raise MisureError(f"{outputs / 'records'} has no records of profile {profile}: run misure reproduce first")
        written = write_all(records, outputs, profile, failures=journal.failures(profile) | damaged)
    stages = journal.stages()
    with journal.stage(profile, "report"):
        made_from = write_provenance(outputs, written.material.run, stages)
        origin = json.loads(made_from.read_text(encoding="utf-8"))  # collecting it hashes every checkpoint
        shown = written.material, written.tables, written.figures, written.claims, origin, written.findings
        page = write_report(outputs, *shown)
    exported = [export_records(stored, outputs / "records.parquet")] if cfg.parquet else []
    print("\n" + console_table(records, profile))
    print("\n".join(str(path) for path in (*written.files, made_from, page, *exported)), flush=True)


def write_first(cfg: DictConfig) -> None:
    """Write and print Table 1, with the figures of sample maps, while the rest is still to be explained."""
    outputs, profile = Path(cfg.outputs), cfg.profile.name
    _, records, damaged = _loaded(cfg)
    if records.empty:
        return
    files = write_table1(records, outputs, profile, failures=Journal(outputs).failures(profile) | damaged)
    print("\n" + console_table(records, profile))
    print("\n".join(map(str, files)), flush=True)


def _loaded(cfg: DictConfig) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, str]]:
    """Return all records, those that the profile's tables are made from, and what is damaged."""
    profile, outputs = cfg.profile.name, Path(cfg.outputs)
    store = RecordStore(outputs / "records")
    stored, damaged = store.load_and_tell()
    records = in_use(serving(stored, profile, store.serving(profile)), Journal(outputs).used(profile))
    return stored, records, damaged
