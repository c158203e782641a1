"""Analyses beyond the paper: readings of the text, stability, sanity checks, equal ratios, insertion and deletion."""
