"""Images are found under whatever names they have; nothing that was meant is left out without a word."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

import pytest
from ct_files import scan, write_series
from image_files import random_rgb
from PIL import Image

from misure.io import finding
from misure.io.finding import find_images
from misure.io.images import ImageFileError, InputFormat, read_image, read_images


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(*names: str) -> None:
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random_rgb()).save(name, "PNG")


def found(source: str) -> list[str]:
    return [str(path) for path in find_images(source)]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("a/**", ["a/b/y.PNG", "a/x.png"]),
        ("a/**/*.png", ["a/x.png"]),
        ("**/*.[pP][nN][gG]", ["a/b/y.PNG", "a/x.png", "a [1]/q.png"]),
        ("a/b/**", ["a/b/y.PNG"]),
        ("a [1]/*.png", ["a [1]/q.png"]),
        ("a [1]/**", ["a [1]/q.png"]),
    ],
)
def test_a_glob_enters_each_folder_once_whatever_links_there_are(here, pattern, expected):
    write("a/x.png", "a/b/y.PNG", "a/.hidden/z.png", "a [1]/q.png")
    for link in ("a/itself", "a/again", "a/b/up"):
        Path(link).symlink_to(here / ("a/b" if link == "a/b/up" else "a"))
    assert found(pattern) == expected
    assert [str(Path(name).relative_to(here)) for name in found(str(here / pattern))] == expected


@pytest.mark.parametrize("pattern", ["**", "*.png", "**/*.png"])
def test_globs_are_bounded(here, monkeypatch, pattern):
    write("a.png", "b.png", "c/d.png")
    monkeypatch.setattr(finding, "MOST_ENTRIES", 1)
    with pytest.raises(ImageFileError, match=r"more than 1 (folders|files)"):
        find_images(pattern)


@pytest.mark.parametrize("name", ["scan [2].png", "-x.png", "~me.png", "a*.png", "new\nline.png", " .png", "ü=(1).PnG"])
def test_a_name_is_taken_as_it_stands(here, name):
    write(name, "other.png")
    assert found(name) == [name]
    assert read_images(name)[0].path == Path(name)


@pytest.mark.parametrize(("stored", "typed"), [("NFD", "NFC"), ("NFC", "NFD")])
def test_letters_may_be_composed_in_both_ways(here, stored, typed):
    folder, name = (unicodedata.normalize(stored, text) for text in ("Übung", "bild ä.png"))
    write(f"{folder}/{name}")
    assert found(unicodedata.normalize(typed, "Übung") + "/" + name) == [f"{folder}/{name}"]
    assert found(unicodedata.normalize(typed, "Übung/bild ä.png")) == [f"{folder}/{name}"]
    assert found(unicodedata.normalize(typed, "Übung/*.png")) == [f"{folder}/{name}"]


@pytest.mark.parametrize("source", ["~nobody/a.png", "x" * 300 + ".png", "a\0b.png", "x" * 300 + "/*"])
def test_names_that_cannot_be_looked_up_are_one_error(here, source):
    with pytest.raises(ImageFileError):
        find_images(source)


@pytest.mark.parametrize("kind", ["link", "pipe", "device"])
@pytest.mark.parametrize("name", ["a.png", "a.nii.gz", "a.dcm"])
def test_what_is_no_file_is_found_and_refused_without_waiting(here, kind, name):
    """Left out of the folder, the image would vanish without a word."""
    make = {"link": lambda: Path(name).symlink_to("nowhere"), "pipe": lambda: os.mkfifo(name)}
    make.get(kind, lambda: Path(name).symlink_to("/dev/zero"))()
    write("b.png")
    if name != "a.dcm":
        assert found(".") == found("*") == [name, "b.png"]
    with pytest.raises(ImageFileError, match=r"is a link to nothing|is no file|is no image"):
        read_image(name, InputFormat())


def test_what_lies_beside_images_is_named_and_counted(here):
    write("p/a.png", "p/more/b.png")
    for name in ("a.bmp", "c.mgz", "d.nrrd", "notes.txt"):
        Path("p", name).write_bytes(b"something")
    write_series(here / "p" / "series", scan())
    with pytest.warns(UserWarning, match=r"p: 6 left out, as they are no images: a\.bmp; c\.mgz; d\.nrrd; and 3 more$"):
        assert found("p") == ["p/a.png"]
    with pytest.warns(UserWarning, match=r"p/\*: 5 left out"):
        assert found("p/*") == ["p/a.png", "p/series"]
    with pytest.warns(UserWarning, match=r"p/\*\*: 4 left out"):
        assert found("p/**") == ["p/a.png", "p/more/b.png", "p/series"]
    for name in ("c.mgz", "d.nrrd"):
        with pytest.raises(ImageFileError, match=rf"{name} is no image: .*\.nii, \.nii\.gz or a DICOM series are read"):
            read_images(f"p/{name}")
    with pytest.raises(ImageFileError, match="is one DICOM file: give the folder"):
        read_images(min(Path("p/series").iterdir()))
