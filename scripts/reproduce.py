"""Reproduce the paper's tables and figures: ``python scripts/reproduce.py profile=quick``."""

import hydra
from omegaconf import DictConfig

from misure.cli import entry_point
from misure.config import CONFIG_FOLDER
from misure.sweep.reproduce import reproduce


@hydra.main(config_path=CONFIG_FOLDER, config_name="reproduce", version_base="1.3")
@entry_point
def main(cfg: DictConfig) -> None:
    """Train, explain, and write every table and figure."""
    reproduce(cfg)


if __name__ == "__main__":
    main()
