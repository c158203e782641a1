"""Sweeps: which are run for a table, figure or dataset, and on which networks."""

from __future__ import annotations

from pathlib import Path

import pytest
from hydra import compose
from pipeline import PROJECT

from misure.errors import MisureError
from misure.io.installed import CONFIG_FOLDER
from misure.sweep.sweeps import chosen_sweeps, networks_of

SWEEPS = {path.stem for path in Path(CONFIG_FOLDER, "sweep").glob("*.yaml")}
OUTPUTS = [*(f"table{n}" for n in range(1, 8)), *(f"figure{n}" for n in range(1, 10)), "claims"]
ALL = ["triangle", "synapse", "coco"]


pytestmark = pytest.mark.usefixtures("hydra")


def chosen(*overrides: str) -> dict[str, list[str]]:
    return chosen_sweeps(compose("reproduce", list(overrides)), overrides)


def test_by_default_everything_is_run():
    assert set(chosen()) == SWEEPS == set(compose("reproduce").sweeps)
    assert chosen("only=report") == chosen()


@pytest.mark.parametrize("name", [*OUTPUTS, *sorted(SWEEPS)])
def test_every_output_and_sweep_can_be_named(name):
    assert set(chosen(f"only={name}")) <= SWEEPS


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["only=table3"], {"table3": ["synapse"]}),
        (["only=table5"], {"table5": ["coco"], "table5_readings": ["coco"]}),
        (["only=Figure7"], {"table1": ["coco"]}),
        (["only=table6"], {"table6": ALL}),
        (["only=[figure8,table2]"], {"table2": ["triangle"], "table7": ["synapse"]}),
        (["only=[table2,table2,figure1]"], {"table1": ["triangle"], "table2": ["triangle"]}),
        (["only=[figure1,figure2]"], {"table1": ["triangle", "synapse"]}),
        (["only=[table1,table7]", "dataset=synapse"], {"table1": ["synapse"], "table7": ["synapse"]}),
        (["only=[table1,table7]", "datasets=[coco,triangle]"], {"table1": ["coco", "triangle"]}),
    ],
)
def test_an_output_runs_what_it_is_made_from_in_the_usual_order(overrides, expected):
    found = chosen(*overrides)
    assert found == expected
    assert list(found) == list(expected)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["only=figur7"], r"only=figur7 is no table, figure or sweep; close names: figure7"),
        (["only=table2", "dataset=coco"], "made from other datasets than coco"),
    ],
)
def test_what_cannot_be_made_is_one_line(overrides, words):
    with pytest.raises(MisureError, match=words):
        chosen(*overrides)


@pytest.mark.parametrize(
    ("dataset", "overrides", "expected"),
    [
        ("triangle", [], [[]]),
        ("synapse", [], [["unet_resnet34"], ["transunet"]]),
        ("coco", ["profile=quick"], [["deeplabv3_resnet50", "deeplabv3_mobilenetv2", "deeplabv3_stand_in"]]),
        ("synapse", ["model=transunet"], [[]]),
    ],
)
def test_a_dataset_names_its_networks_unless_the_user_does(dataset, overrides, expected):
    assert networks_of(dataset, overrides) == expected


def test_make_passes_the_choice_on():
    assert "$(if $(ONLY),'only=[$(ONLY)]')" in (PROJECT / "Makefile").read_text()
