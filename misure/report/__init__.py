"""The report: one HTML file with everything that a run wrote, which needs neither a network nor another file."""

from misure.report.writing import write_report

__all__ = ["write_report"]
