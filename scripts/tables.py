"""Remake every table and figure from records alone: ``python scripts/tables.py profile=quick``."""

from misure.cli.commands import tables

if __name__ == "__main__":
    tables()
