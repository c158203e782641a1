"""Explain validation samples with one method: ``python scripts/run.py explainer=msr dataset=triangle``."""

import hydra
from omegaconf import DictConfig

from misure.cli import entry_point
from misure.config import CONFIG_FOLDER
from misure.sweep.reproduce import run_one


@hydra.main(config_path=CONFIG_FOLDER, config_name="run", version_base="1.3")
@entry_point
def main(cfg: DictConfig) -> None:
    """Run one experiment and print its row."""
    run_one(cfg)


if __name__ == "__main__":
    main()
