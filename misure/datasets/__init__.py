"""Datasets: real data where it can be had, stand-ins in the same format where it cannot."""
