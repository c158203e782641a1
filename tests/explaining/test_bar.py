"""The progress bar of an explanation."""

from __future__ import annotations

from misure.explaining.bar import progress_bar
from misure.progress import Progress


def test_each_stage_has_a_bar_that_ends(capsys):
    with progress_bar("photo", shown=True) as draw:
        draw(Progress("dilating", 3, None))
        draw(Progress("minimising", 1, 4))
        draw(Progress("minimising", 4, 4))
        draw(Progress("minimising", 2, 4))  # another image
    lines = capsys.readouterr().err.split("\r")
    assert any(line.startswith("photo: dilating: 0it") for line in lines)
    assert sum(line.startswith("photo: minimising:   0%") for line in lines) == 2


def test_nothing_is_drawn_where_nobody_looks(capsys):
    with progress_bar("photo") as draw:
        draw(Progress("minimising", 1, 4))
        draw(Progress("minimising", 4, 4))
    assert capsys.readouterr().err == ""
