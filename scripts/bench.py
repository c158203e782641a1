"""Time every explainer against its literal version and other packages: ``python scripts/bench.py``."""

from misure.cli.commands import bench

if __name__ == "__main__":
    bench()
