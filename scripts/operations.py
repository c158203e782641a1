"""Show where a method's time goes: ``python scripts/operations.py dataset=triangle explainer=msr n_samples=1``."""

from omegaconf import DictConfig

from misure.bench.operations import profile_operations
from misure.cli.entry import entry_point


@entry_point("operations", "run")
def main(cfg: DictConfig) -> None:
    """Print the table; it is also kept in the outputs folder."""
    print(profile_operations(cfg))


if __name__ == "__main__":
    main()
