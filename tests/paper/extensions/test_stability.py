"""Stability of maps, by hand."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from omegaconf import OmegaConf
from paper_records import TRIANGLE, UNET, frame, organ, run_of, save_map, unit

from misure.explainers import MSR
from misure.paper.extensions.stability import NOISES, STABLE, SUBJECTS, alike, stability_table, stability_tables
from misure.paper.maps import noise_floor
from misure.paper.material import Material
from misure.paper.query import latest_run, select

CONFIGS = Path(__file__).resolve().parents[3] / "configs"
GREY = 1 / 255


def a_map(**values: float) -> np.ndarray:
    """A map of 4 x 4 zeros but for some pixels: ``p3=0.5``."""
    flat = np.zeros(16)
    for name, value in values.items():
        flat[int(name[1:])] = value
    return flat.reshape(4, 4)


def twins_of(
    explainer: str, first: np.ndarray, second: np.ndarray, folder: Path, noise: float = 1e-6, **quiet: Any
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    made = unit(explainer, 0, **quiet), unit(explainer, 0, input_noise=noise, dice_explained=0.7)
    for rows, saliency in zip(made, (first, second), strict=True):
        save_map(folder, rows[0]["unit"], saliency)
    return made


def row_of(table: pd.DataFrame, title: str, noise: float) -> pd.Series:
    (place,) = table.index[(table["method"] == title) & (table["noise"] == noise)]
    return table.loc[place]


def test_masks_are_compared_by_hand(tmp_path: Path) -> None:
    maps = a_map(p0=0.5, p1=1.0), a_map(p1=1.0, p2=0.5)
    table = stability_table(run_of(*twins_of("msr", *maps, tmp_path)), TRIANGLE, tmp_path)
    row = row_of(table, "MSR", 1e-6)
    assert (row["n"], row["n_images"]) == (1, 1)
    assert row["iou_mean"] == pytest.approx(1 / 3, abs=1e-12)
    assert row["difference_mean"] == 1 / 16
    assert row["dice_change_mean"] == pytest.approx(0.2, abs=1e-12)
    assert (row["ratio_change_mean"], row["dice_explained_mean"]) == (0, 0.9)
    assert row_of(table, "MSR", GREY)["n"] == 0
    assert row_of(table, STABLE.title, 1e-6)["n"] == 0


def test_maps_are_scaled_and_cut_at_their_first_threshold(tmp_path: Path) -> None:
    # Scaled, the second map is the first: twice as high and lifted by a quarter
    first = a_map(p0=0.5, p1=0.05)
    table = stability_table(run_of(*twins_of("rise", first, 2 * first + 0.25, tmp_path, GREY)), TRIANGLE, tmp_path)
    row = row_of(table, "RISE", GREY)
    assert (row["threshold"], row["n"], row["iou_mean"]) == (0.2, 1, 1)
    assert row["difference_mean"] == pytest.approx(0, abs=1e-3)  # maps are saved with half precision
    assert row["pearson_mean"] == pytest.approx(1, abs=1e-4)


def test_measures_of_two_maps_by_hand() -> None:
    ordered = np.arange(4.0).reshape(2, 2)
    measures = alike(ordered, ordered[::-1], None)
    # Ranks 0 1 2 3 and 2 3 0 1: 1 - 6 * 16 / (4 * 15) = -0.6; both maps are linear in them
    assert measures["spearman"] == pytest.approx(-0.6, abs=1e-12)
    assert measures["pearson"] == pytest.approx(-0.6, abs=1e-12)
    assert (measures["iou"], measures["difference"]) == (0.5, 2)


def test_a_constant_map_has_no_correlation() -> None:
    measures = alike(np.zeros((3, 3)), np.zeros((3, 3)), 0.2)
    assert math.isnan(measures["pearson"])
    assert math.isnan(measures["spearman"])
    assert (measures["iou"], measures["difference"]) == (1, 0)


def test_several_sizes_of_noise_and_variants_do_not_mix(tmp_path: Path) -> None:
    quiet, rounding = twins_of("msr", a_map(p0=1), a_map(p0=1), tmp_path)
    grey = unit("msr", 0, input_noise=GREY)
    stable = unit("msr", 0, dict(STABLE.parameters)), unit("msr", 0, dict(STABLE.parameters), input_noise=1e-6)
    for rows, place in ((grey, "p1"), (stable[0], "p2"), (stable[1], "p3")):
        save_map(tmp_path, rows[0]["unit"], a_map(**{place: 1.0}))
    run = run_of(quiet, rounding, grey, *stable)
    table = stability_table(run, TRIANGLE, tmp_path)
    assert row_of(table, "MSR", 1e-6)["iou_mean"] == 1
    assert row_of(table, "MSR", GREY)["iou_mean"] == 0
    assert row_of(table, STABLE.title, 1e-6)["iou_mean"] == 0
    floor = noise_floor(run, tmp_path)
    assert (floor.n, floor.noise, floor.mean) == (1, 1e-6, 1)


def test_the_most_stable_method_is_named_first(tmp_path: Path) -> None:
    units = []
    for explainer, second in (("msr", a_map(p1=1)), ("sufficient_region", a_map(p0=1))):
        made = organ(explainer, 0, "Liver"), organ(explainer, 0, "Liver", input_noise=1e-6)
        for rows, saliency in zip(made, (a_map(p0=1), second), strict=True):
            save_map(tmp_path, rows[0]["unit"], saliency)
        units += made
    material = Material(run_of(*units), "quick", tmp_path, pd.DataFrame(), [TRIANGLE, UNET])
    (table,) = stability_tables(material)
    assert len(table.frame) == 2 * len(SUBJECTS) * len(NOISES)
    assert table.frame["stand_in"].equals(table.frame["dataset"].eq("Synapse"))
    lines = [line for line in table.notes.splitlines() if "noise of 1e-6" in line]
    assert lines[0].endswith(": not measured.")
    assert lines[1].index(f"{SUBJECTS[0].title} 1.000") < lines[1].index("MSR 0.000")


def test_records_from_before_a_parameter_existed_have_its_default() -> None:
    old = frame(unit("msr", 0)).drop(columns="param_lr_schedule")
    run = latest_run(old, "quick")
    assert len(select(run, "msr")) == 1
    assert len(select(run, "msr", lr_schedule="linear")) == 0
    mixed = latest_run(pd.concat([old, frame(unit("msr", 1, {"lr_schedule": "linear"}))]), "quick")
    assert select(mixed, "msr")["sample"].tolist() == [0]
    assert select(mixed, "msr", lr_schedule="linear")["sample"].tolist() == [1]


def test_the_sweep_runs_what_is_compared() -> None:
    params = OmegaConf.load(CONFIGS / "sweep" / "stability.yaml").hydra.sweeper.params
    expected = ["msr_stable" if subject is STABLE else subject.explainer for subject in SUBJECTS]
    assert sorted(params.explainer.split(",")) == sorted(expected)
    assert [float(size) for size in params.input_noise.split(",")] == pytest.approx([0, *NOISES], rel=1e-12)
    stable = OmegaConf.to_container(OmegaConf.load(CONFIGS / "explainer" / "msr_stable.yaml"))
    assert stable.pop("defaults") == ["msr", "_self_"]
    assert stable == dict(STABLE.parameters)
    MSR(**stable)  # every value is allowed
