"""The console script ``misure``."""

from __future__ import annotations

import os
import sys

import pytest

import misure
from misure.cli.console import main


@pytest.mark.parametrize(("argv", "words"), [([], "usage: misure"), (["explian"], "close names: explain")])
def test_the_console_script_helps(argv, words):
    with pytest.raises(SystemExit, match=words):
        main(argv)


def test_the_console_script_lists_its_commands(capsys):
    main(["--help"])
    out = capsys.readouterr().out
    assert all(name in out for name in ("explain", "layers", "app"))
    main(["--version"])
    assert capsys.readouterr().out == f"misure {misure.__version__}\n"


def test_a_command_leaves_the_process_as_it_was(monkeypatch):
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    monkeypatch.setattr(sys, "argv", ["theirs"])
    with pytest.raises(SystemExit, match="no image is given"):
        main(["explain"])
    assert sys.argv == ["theirs"]
    assert "HYDRA_FULL_ERROR" not in os.environ
