"""Whatever a reader raises is one line; what the project itself says passes."""

from __future__ import annotations

import pickle
import zipfile

import pytest

from misure.errors import MisureError
from misure.io.reading import ImageFileError, check_file, reading


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


@pytest.mark.parametrize(("content", "reason"), [(None, "does not exist"), (b"", "is empty"), (bytes(3), "has .* MB")])
def test_files_are_checked_before_they_are_read(tmp_path, content, reason):
    path = tmp_path / "a.png"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ImageFileError, match=rf"^{path} {reason}"):
        check_file(path, 2)
