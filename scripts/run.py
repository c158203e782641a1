"""Explain validation samples with one method: ``python scripts/run.py explainer=msr dataset=triangle``."""

from misure.cli.commands import run

if __name__ == "__main__":
    run()
