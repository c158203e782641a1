"""Whatever a reader raises is one line; what the project itself says passes."""

from __future__ import annotations

import pickle
import zipfile

import pytest

from misure.errors import MisureError
from misure.io.reading import ImageFileError, reading


@pytest.mark.parametrize(
    ("raised", "reason"),
    [
        (pickle.UnpicklingError("invalid load key"), "invalid load key"),
        (zipfile.BadZipFile("no\nzip"), "no zip"),
        (EOFError(), "EOFError"),
        (FileNotFoundError(2, "No such file", "a"), "No such file"),
        (ValueError("x" * 1000), "x" * 200),
    ],
)
def test_foreign_errors_become_one_line(raised, reason):
    with pytest.raises(ImageFileError) as caught, reading("a.npz", "copy it", ImageFileError):
        raise raised
    assert str(caught.value) == f"a.npz cannot be read ({reason}): copy it"
    assert caught.value.__cause__ is raised


@pytest.mark.parametrize("raised", [MisureError("it says what to do"), KeyboardInterrupt()])
def test_own_errors_and_interrupts_pass(raised):
    with pytest.raises(type(raised)) as caught, reading("a.npz", "copy it"):
        raise raised
    assert caught.value is raised
