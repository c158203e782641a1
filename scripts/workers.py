"""Time a load of known length on several workers: ``python scripts/workers.py runner.threads=1``."""

from misure.cli.commands import workers

if __name__ == "__main__":
    workers()
