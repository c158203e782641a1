"""Prepare a dataset's files: ``python scripts/prepare_data.py dataset=coco``."""

from misure.cli.commands import prepare_data

if __name__ == "__main__":
    prepare_data()
