"""Explain validation samples with one method: ``python scripts/run.py explainer=msr dataset=triangle``."""

from omegaconf import DictConfig

from misure.cli.entry import entry_point
from misure.cli.reproduce import run_one


@entry_point("run")
def main(cfg: DictConfig) -> None:
    """Run one experiment and print its row."""
    run_one(cfg)


if __name__ == "__main__":
    main()
