"""The command line: one entry point a script, and the console script ``misure``."""
