"""Samples that methods with curves are compared on."""

from __future__ import annotations

from pathlib import Path

import pytest
from paper_curves import compared, curves, material_of, save
from paper_records import TRIANGLE, unit

from misure.explainers import EXPLAINERS
from misure.paper.extensions.methods import ALWAYS, methods_of
from misure.plotting import style_of


def test_a_method_with_few_curves_takes_no_samples_from_the_others(tmp_path: Path) -> None:
    units = compared(tmp_path, 4)
    for rows in units:
        if rows[0]["explainer"] == "rise" and rows[0]["sample"]:
            (tmp_path / f"{rows[0]['unit']}.npz").unlink()
    counts = {method.name: len(method.curves) for method in methods_of(material_of(tmp_path, *units), TRIANGLE)}
    assert counts == dict.fromkeys(ALWAYS, 4) | {"rise": 1}


def test_a_damaged_file_is_named_and_left_out(tmp_path: Path) -> None:
    units = compared(tmp_path, 2)
    path = tmp_path / f"{units[0][0]['unit']}.npz"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.warns(UserWarning, match=f"{path.name} cannot be read"):
        counts = {method.name: len(method.curves) for method in methods_of(material_of(tmp_path, *units), TRIANGLE)}
    assert counts == dict.fromkeys(ALWAYS, 1)  # methods are compared on the samples that all have


def test_disturbed_units_do_not_count(tmp_path: Path) -> None:
    disturbed = [unit("msr", 0, input_noise=1e-6), unit("msr", 1, intervention="other target")]
    for rows in disturbed:
        save(tmp_path, rows[0]["unit"], curves([0, 1]))
    assert not any(len(method.curves) for method in methods_of(material_of(tmp_path, *disturbed), TRIANGLE))


def test_every_method_has_its_own_look() -> None:
    looks = {(style_of(name).colour, style_of(name).marker) for name in EXPLAINERS}
    assert len(looks) == len(EXPLAINERS)
