"""Prepare a dataset's files: ``python scripts/prepare_data.py dataset=synapse source=<folder>``."""

from pathlib import Path

from omegaconf import DictConfig

from misure.cli import entry_point
from misure.datasets.synapse_source import prepare_synapse
from misure.errors import MisureError


@entry_point("prepare_data")
def main(cfg: DictConfig) -> None:
    """Prepare the volumes and say what came out."""
    if cfg.dataset.name != "synapse":
        raise MisureError(f"dataset={cfg.dataset.name} needs no preparation: only dataset=synapse does")
    print(prepare_synapse(Path(cfg.data_root), Path(cfg.source) if cfg.source else None, cfg.labels))


if __name__ == "__main__":
    main()
