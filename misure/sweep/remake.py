"""Tables and figures from records alone: no data, network or training is imported here."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig

from misure.errors import MisureError
from misure.paper.markdown import console_table
from misure.paper.outputs import write_all
from misure.sweep.records import RecordStore
from misure.sweep.stages import stage


def write_outputs(cfg: DictConfig) -> None:
    """Write and print tables and figures from the records alone.

    Raises:
        MisureError: If there are no records of the profile.
    """
    outputs, profile = Path(cfg.outputs), cfg.profile.name
    store = RecordStore(outputs / "records")
    with stage(outputs, profile, "tables and figures"):
        records = store.load()
        if records.empty or profile not in set(records["profile"]):
            raise MisureError(f"{store.folder} has no records of profile {profile}: run make reproduce first")
        written = write_all(records, outputs, profile)
    print("\n" + console_table(records, profile))
    print("\n".join(str(path) for path in written), flush=True)
