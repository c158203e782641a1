"""Reproduce the paper's tables and figures: ``python scripts/reproduce.py profile=quick``."""

from misure.cli.commands import reproduce

if __name__ == "__main__":
    reproduce()
