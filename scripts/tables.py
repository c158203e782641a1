"""Remake every table and figure from records alone: ``python scripts/tables.py profile=quick``."""

import hydra
from omegaconf import DictConfig

from misure.cli import entry_point
from misure.config import CONFIG_FOLDER
from misure.sweep.reproduce import write_outputs


@hydra.main(config_path=CONFIG_FOLDER, config_name="reproduce", version_base="1.3")
@entry_point
def main(cfg: DictConfig) -> None:
    """Read the records; no network or data is loaded."""
    write_outputs(cfg)


if __name__ == "__main__":
    main()
