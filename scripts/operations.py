"""Show where a method's time goes: ``python scripts/operations.py dataset=triangle explainer=msr n_samples=1``."""

from misure.cli.commands import operations

if __name__ == "__main__":
    operations()
