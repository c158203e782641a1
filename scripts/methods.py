"""Compare every method on the same objects: ``python scripts/methods.py dataset=coco model=deeplabv3_mobilenetv2``."""

from misure.cli.commands import methods

if __name__ == "__main__":
    methods()
