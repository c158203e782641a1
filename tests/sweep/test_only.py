"""One table or figure alone: which sweeps it is made from."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from pipeline import PROJECT

from misure.config import CONFIG_FOLDER
from misure.errors import MisureError
from misure.sweep.only import chosen_sweeps

SWEEPS = {path.stem for path in Path(CONFIG_FOLDER, "sweep").glob("*.yaml")}
OUTPUTS = [*(f"table{n}" for n in range(1, 8)), *(f"figure{n}" for n in range(1, 10)), "claims"]


@pytest.fixture(autouse=True)
def _hydra() -> Iterator[None]:
    with initialize_config_dir(CONFIG_FOLDER, version_base="1.3"):
        yield


def chosen(*overrides: str) -> list[str]:
    return chosen_sweeps(compose("reproduce", list(overrides)), overrides)


def test_by_default_everything_is_run():
    assert chosen() == list(compose("reproduce").sweeps)
    assert chosen("sweeps=[table2,table1]") == ["table2", "table1"]


@pytest.mark.parametrize("name", OUTPUTS)
def test_every_output_is_made_from_sweeps_that_exist(name):
    found = chosen(f"only={name}")
    assert found
    assert set(found) <= SWEEPS


@pytest.mark.parametrize(
    ("only", "expected"),
    [
        ("table3", ["table3"]),
        ("Figure7", ["table1_coco"]),
        ("table6", ["table6", "table6_synapse", "table6_coco"]),
        ("[figure8,table2]", ["table2", "table7"]),
        ("stability_coco", ["stability_coco"]),
        ("[table2,table2]", ["table2"]),
    ],
)
def test_an_output_runs_what_it_is_made_from_in_the_usual_order(only, expected):
    assert chosen(f"only={only}") == expected


def test_every_sweep_can_be_named():
    assert all(chosen(f"only={sweep}") for sweep in SWEEPS)


def test_an_unknown_name_is_one_line_with_close_ones():
    with pytest.raises(MisureError, match=r"only=figur7 is no table, figure or sweep; close names: figure7"):
        chosen("only=figur7")


def test_two_choices_at_once_are_refused():
    with pytest.raises(MisureError, match="give one of them"):
        chosen("only=table3", "sweeps=[table1]")


def test_make_passes_the_choice_on():
    assert "$(if $(ONLY),'only=[$(ONLY)]')" in (PROJECT / "Makefile").read_text()
