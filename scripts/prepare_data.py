"""Prepare a dataset's files: ``python scripts/prepare_data.py dataset=coco``."""

from pathlib import Path

from omegaconf import DictConfig

from misure.cli.entry import entry_point
from misure.config import build
from misure.sweep.availability import available


@entry_point("prepare_data")
def main(cfg: DictConfig) -> None:
    """Prepare the dataset and say what came out; packages of the other datasets need not be installed."""
    data_root = Path(cfg.data_root)
    if cfg.plan_only:
        there = available(cfg)
        print(f"plan: prepare {cfg.dataset.name} in {data_root}; there now: {there.state}: {there.source}")
        if cfg.dataset.name == "coco":
            most = len(cfg.dataset.classes) * cfg.dataset.images_per_class
            print(f"download, what is not there: annotations, 253 MB, and at most {most} photographs of 0.16 MB")
    elif cfg.dataset.name == "synapse":
        from misure.datasets.synapse.source import prepare_synapse

        print(prepare_synapse(data_root, Path(cfg.source) if cfg.source else None, cfg.labels))
    elif cfg.dataset.name == "coco":
        from misure.datasets.coco.download import download_coco

        chosen = cfg.dataset
        print(download_coco(data_root, chosen.classes, chosen.images_per_class, cfg.seed, build(cfg.coco)).summary)
    else:
        print(f"dataset={cfg.dataset.name} needs no preparation")


if __name__ == "__main__":
    main()
