"""Time and memory against batch size, image size, masks and images: ``python scripts/scaling.py``."""

from omegaconf import DictConfig

from misure.bench.scaling_report import scaling
from misure.cli.entry import entry_point


@entry_point("scaling", "bench")
def main(cfg: DictConfig) -> None:
    """Print the tables; they are also kept in the outputs folder."""
    print(scaling(cfg))


if __name__ == "__main__":
    main()
