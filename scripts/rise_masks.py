"""Count the masks that RISE needs: ``python scripts/rise_masks.py dataset=triangle rise_masks.images=2``."""

from misure.cli.commands import rise_masks

if __name__ == "__main__":
    rise_masks()
