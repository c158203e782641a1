"""The Lightning module, and the settings of a training."""
