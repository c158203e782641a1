"""Count the masks that RISE needs: ``python scripts/rise_masks.py dataset=triangle rise_masks.images=2``."""

from omegaconf import DictConfig

from misure.bench.rise_convergence import count_rise_masks
from misure.cli.entry import entry_point


@entry_point("rise_masks")
def main(cfg: DictConfig) -> None:
    """Print the table; it is also kept in the outputs folder."""
    print(count_rise_masks(cfg))


if __name__ == "__main__":
    main()
