"""Time and memory against batch size, image size, masks and images: ``python scripts/scaling.py``."""

from misure.cli.commands import scaling

if __name__ == "__main__":
    scaling()
