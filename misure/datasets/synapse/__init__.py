"""Synapse: the abdominal CT scans of BTCV, in the split of TransUNet."""
