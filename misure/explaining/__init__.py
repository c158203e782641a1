"""Explaining image files from the command line: ``misure explain`` and ``misure layers``."""
