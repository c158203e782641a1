"""Remake every table and figure from records alone: ``python scripts/tables.py profile=quick``."""

from omegaconf import DictConfig

from misure.cli.entry import entry_point
from misure.cli.remake import write_outputs


@entry_point("tables", "reproduce")
def main(cfg: DictConfig) -> None:
    """Read the records; no network or data is loaded."""
    write_outputs(cfg)


if __name__ == "__main__":
    main()
