"""Train a dataset's network: ``python scripts/train.py dataset=triangle model=unet_vgg16``."""

from misure.cli.commands import train

if __name__ == "__main__":
    train()
