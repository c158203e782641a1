"""Compare every method on the same objects: ``python scripts/methods.py dataset=coco model=deeplabv3_mobilenetv2``."""

from omegaconf import DictConfig

from misure.bench.method_table import compare_methods
from misure.cli.entry import entry_point


@entry_point("methods")
def main(cfg: DictConfig) -> None:
    """Print the table; it is also kept in the outputs folder."""
    print(compare_methods(cfg))


if __name__ == "__main__":
    main()
