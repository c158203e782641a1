"""Prepare a dataset's files: ``python scripts/prepare_data.py dataset=coco``."""

from omegaconf import DictConfig

from misure.cli.entry import entry_point
from misure.config import build
from misure.sweep.availability import available


@entry_point("prepare_data")
def main(cfg: DictConfig) -> None:
    """Prepare the dataset as its ``prepare`` says, and say what came out; other datasets' packages are not needed."""
    if "prepare" not in cfg.dataset:
        print(f"dataset={cfg.dataset.name} needs no preparation")
    elif cfg.plan_only:
        there = available(cfg)
        print(f"plan: prepare {cfg.dataset.name} in {cfg.data_root}; there now: {there.state}: {there.source}")
        print(f"what is not there is made: {cfg.dataset.prepares}")
    else:
        print(build(cfg.dataset.prepare))


if __name__ == "__main__":
    main()
