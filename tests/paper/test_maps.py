"""Saved maps and the noise floor, by hand."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from paper_records import run_of, save_map, unit

from misure.paper.maps import damaged_units, iou, load_maps, noise_floor, saved_units

NOISE = 1e-6


def _map(*pixels: int) -> np.ndarray:
    flat = np.zeros(16)
    flat[list(pixels)] = 0.5
    return flat.reshape(4, 4)


def test_noise_floor_by_hand(tmp_path: Path) -> None:
    pairs = [(unit("msr", s), unit("msr", s, input_noise=NOISE)) for s in range(2)]
    for (quiet, noisy), (first, second) in zip(
        pairs, [(_map(0, 1, 2, 3), _map(2, 3, 4)), (_map(5), _map(5))], strict=True
    ):
        save_map(tmp_path, quiet[0]["unit"], first)
        save_map(tmp_path, noisy[0]["unit"], second)
    floor = noise_floor(run_of(*(rows for pair in pairs for rows in pair)), tmp_path)
    # Two of five pixels agree in the first pair, all in the second.
    assert (floor.n, floor.noise, floor.low, floor.high) == (2, NOISE, 0.4, 1.0)
    assert floor.mean == pytest.approx(0.7, abs=1e-12)
    assert "mean IoU of 0.700" in str(floor)
    assert "n = 2" in str(floor)


@pytest.mark.parametrize(
    "twin",
    [
        {"parameters": {"lr": 0.01}},
        {"sample": 5},
        {"precision": "bf16"},
        {"class_id": 2},
    ],
)
def test_only_twins_are_compared(twin: dict[str, Any], tmp_path: Path) -> None:
    quiet, noisy = unit("msr", 0), unit("msr", **({"sample": 0, "input_noise": NOISE} | twin))
    for rows in (quiet, noisy):
        save_map(tmp_path, rows[0]["unit"], _map(1))
    assert noise_floor(run_of(quiet, noisy), tmp_path).n == 0


def test_twins_are_found_where_most_quiet_records_have_another_precision(tmp_path: Path) -> None:
    quiet = unit("msr", 0, precision="bf16")
    noisy = unit("msr", 0, input_noise=NOISE, precision="bf16")
    for rows in (quiet, noisy):
        save_map(tmp_path, rows[0]["unit"], _map(1))
    others = [unit("msr", sample, precision="32") for sample in range(4)]
    assert noise_floor(run_of(quiet, noisy, *others), tmp_path).n == 1


def test_noise_floor_needs_both_maps(tmp_path: Path) -> None:
    quiet, noisy = unit("msr", 0), unit("msr", 0, input_noise=NOISE)
    save_map(tmp_path, quiet[0]["unit"], _map(1))
    floor = noise_floor(run_of(quiet, noisy), tmp_path)
    assert floor.n == 0
    assert math.isnan(floor.mean)
    assert str(floor).endswith("not measured.")
    assert noise_floor(run_of(), tmp_path).n == 0


def test_two_empty_masks_agree() -> None:
    empty = np.zeros((3, 3), bool)
    assert iou(empty, empty) == 1.0
    assert iou(empty, ~empty) == 0.0


def test_maps_that_were_not_saved_or_are_whole(tmp_path: Path) -> None:
    assert load_maps(tmp_path, "absent") is None
    assert load_maps(tmp_path, "../absent") is None
    save_map(tmp_path, "whole", _map(1))
    assert set(load_maps(tmp_path, "whole") or {}) == {"image", "region", "saliency", "sufficient_region"}
    assert damaged_units(tmp_path) == []


def _zipped(path: Path, **arrays: object) -> None:
    given = {"image": np.zeros((1, 4, 4)), "region": np.ones((4, 4), bool), "saliency": np.ones((4, 4))} | arrays
    np.savez(path, **{name: array for name, array in given.items() if array is not None})


DAMAGES: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: path.write_bytes(b""),
    "cut short": lambda path: path.write_bytes(path.read_bytes()[:30]),
    "half": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "without its last byte": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "garbled": lambda path: path.write_bytes(path.read_bytes().replace(b"\1" * 8, b"\7" * 8)),
    "text": lambda path: path.write_text("no archive"),
    "incomplete": lambda path: _zipped(path, saliency=None),
    "other sizes": lambda path: _zipped(path, saliency=np.ones((3, 4))),
    "without channels": lambda path: _zipped(path, image=np.zeros((4, 4))),
    "objects": lambda path: _zipped(path, saliency=np.array([[None]])),
    "words": lambda path: _zipped(path, saliency=np.full((4, 4), "a")),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_maps_are_named_once_and_put_aside(tmp_path: Path, damage: str) -> None:
    save_map(tmp_path, "other", _map(1))
    path = tmp_path / "bad.npz"
    _zipped(path)
    DAMAGES[damage](path)
    with pytest.warns(UserWarning, match=r"bad\.npz cannot be read \(.*\): the next run makes it anew$"):
        assert load_maps(tmp_path, "bad") is None
    assert saved_units(tmp_path) == {"other"}
    assert damaged_units(tmp_path) == ["bad"]
    assert load_maps(tmp_path, "bad") is None
    assert load_maps(tmp_path, "other") is not None


def test_maps_that_the_system_does_not_give_stay_where_they_are(tmp_path: Path, monkeypatch) -> None:
    save_map(tmp_path, "whole", _map(1))
    with monkeypatch.context() as patched:
        patched.setattr(np, "load", lambda *_, **__: (_ for _ in ()).throw(OSError(5, "Input/output error")))
        with pytest.warns(UserWarning, match="Input/output error"):
            assert load_maps(tmp_path, "whole") is None
    assert load_maps(tmp_path, "whole") is not None


def test_saved_units_are_whole_files(tmp_path: Path) -> None:
    assert saved_units(tmp_path / "absent") == set()
    save_map(tmp_path, "whole", _map(1))
    (tmp_path / ".partial.123.npz").write_bytes(b"half")
    (tmp_path / "notes.txt").write_text("other")
    assert saved_units(tmp_path) == {"whole"}
