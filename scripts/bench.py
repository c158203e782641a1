"""Time every explainer against its literal version and other packages: ``python scripts/bench.py``."""

from omegaconf import DictConfig

from misure.bench.speed import bench
from misure.cli.entry import entry_point


@entry_point("bench")
def main(cfg: DictConfig) -> None:
    """Print the table; it is also kept in the outputs folder."""
    print(bench(cfg))


if __name__ == "__main__":
    main()
