"""The paper's tables: their columns, parts and rows, what they hold back, and the prose around them."""

from __future__ import annotations

import math

import pandas as pd
import pytest
from paper_records import ORGANS, frame, organ, photo, run_of, triangle_records, unit

from misure.paper.maps import NoiseFloor
from misure.paper.material import Material
from misure.paper.query import further_pairs, latest_run, shown_pairs
from misure.paper.tables import paper
from misure.paper.tables.paper import by_class, lr_lambda, table1, table6

WIDTH = 110
"""Characters that fit a page."""


@pytest.fixture(scope="module")
def material(tmp_path_factory) -> Material:
    maps = tmp_path_factory.mktemp("maps")
    synapse = frame(organ("msr", 1, "Liver"), organ("msr", 2, "Aorta"), photo("msr", 3, "dog"))
    run = latest_run(pd.concat([triangle_records(maps), synapse]), "quick")
    return Material(run, "quick", maps, pd.DataFrame(), shown_pairs(run))


@pytest.fixture(scope="module")
def tables(material):
    triangle, unet, transunet, _ = material.pairs
    return [table1(material), by_class(material, [unet, transunet]), lr_lambda(material, triangle), table6(material)]


def rows_of(table) -> list[str]:
    return [line for line in table.body().splitlines() if line.startswith("| ") and not line.startswith("| ---")]


def test_every_row_is_shown_once_and_fits_a_page(tables):
    assert [len(table.frame) for table in tables] == [9 * 4, 2 * 8 * 2, 9, 3 * 4]
    for table in tables:
        headers = {column.header for column in table.columns}
        body = [line for line in rows_of(table) if line.split(" | ")[0].removeprefix("| ") not in headers]
        assert len(body) == len(table.frame)
        assert max(map(len, body)) <= WIDTH


def test_the_papers_columns_stand_beside_ours(tables):
    for table in tables:
        names = [column.name for column in table.columns]
        assert {"dice_explained_mean", "perturbation_ratio_mean", "n_samples", "remarks"} <= set(names)
        assert not any("median" in name or "region" in name for name in names) or table.name.startswith("table1_")
        assert {column.paper for column in table.columns if column.paper} <= set(table.frame.columns)
    assert {"paper_seconds", "seconds_mean"} <= {column.name for column in tables[0].columns}


def test_parts_name_dataset_and_model(tables):
    headings = [line.removeprefix("## ") for line in tables[0].body().splitlines() if line.startswith("## ")]
    assert headings == ["Triangle, U-Net", "Synapse, U-Net", "Synapse, TransUNet", "COCO-2017, DeepLabv3"]
    assert [line for line in tables[1].body().splitlines() if line.startswith("## ")] == ["## U-Net", "## TransUNet"]
    assert tables[1].columns[1].title == "Organ"
    assert tables[1].frame["class"].tolist()[::2] == [*ORGANS, *ORGANS]


def test_noise_floors_are_given_pair_by_pair(material, monkeypatch):
    floors = iter(
        [NoiseFloor(0, *(math.nan,) * 4), NoiseFloor(2, 1e-6, 0.7, 0.4, 1.0), *[NoiseFloor(0, *(math.nan,) * 4)] * 2]
    )
    assert "not measured" in table1(material).notes
    monkeypatch.setattr(paper, "noise_floor", lambda records, folder: next(floors))
    notes = table1(material).notes
    assert "- Synapse, U-Net: " in notes
    assert "not measured" not in notes


def test_what_the_paper_does_not_have_joins_with_dashes(tmp_path):
    run = run_of(unit("msr", 0, dataset="cells", model="tiny"), unit("msr", 0))
    table = table1(Material(run, "quick", tmp_path, pd.DataFrame(), shown_pairs(run)[:1], further_pairs(run)))
    paper_methods, further = (rows for _, rows in table.frame.groupby("dataset", sort=False))
    assert further["method"].tolist() == paper_methods["method"].tolist()
    assert further.filter(like="paper_").drop(columns="paper_masks").isna().all(axis=None)
    assert further["dice_explained_mean"].notna().sum() == 1
    assert "## cells, tiny" in table.body()
