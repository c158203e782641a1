"""``misure app``: explain a network's predictions in the browser (``pip install 'misure[app]'``)."""

from misure.app.command import build_app, main

__all__ = ["build_app", "main"]
