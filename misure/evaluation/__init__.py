"""Scores beyond the two metrics: insertion, deletion and all thresholds; Dice and HD95 of volumes."""
