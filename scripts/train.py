"""Train a dataset's network: ``python scripts/train.py dataset=triangle model=unet_vgg16``."""

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from misure.cli.entry import entry_point
from misure.sweep.announcement import only_planned
from misure.sweep.availability import fitted
from misure.sweep.setup import checkpoint_path, train_network


@entry_point("train")
def main(cfg: DictConfig) -> None:
    """Train, keep the best weights, and say where they are."""
    cfg = fitted(cfg, "train", HydraConfig.get().overrides.task)
    recipe = cfg.training
    budget = f"{recipe.max_epochs} epochs of {recipe.samples_per_epoch} images, {recipe.max_minutes} minutes at most"
    if only_planned(cfg, f"training: {budget}", trains=True):
        return
    info = train_network(cfg)
    print(f"validation Dice {info.metrics['val_dice']:.4f} on {info.metrics['val_images']:.0f} images")
    print(f"checkpoint: {checkpoint_path(cfg)}")


if __name__ == "__main__":
    main()
