"""Slow re-implementations that share no code with the library, and toy networks to compare on."""
