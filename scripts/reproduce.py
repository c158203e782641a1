"""Reproduce the paper's tables and figures: ``python scripts/reproduce.py profile=quick``."""

from omegaconf import DictConfig

from misure.cli.entry import entry_point
from misure.cli.reproduce import reproduce


@entry_point("reproduce")
def main(cfg: DictConfig) -> None:
    """Train, explain, and write every table and figure."""
    reproduce(cfg)


if __name__ == "__main__":
    main()
