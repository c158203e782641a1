"""Likeness of maps under interventions: by hand, and against a search over tie breaks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from paper_records import run_of, save_map, unit
from scipy.stats import spearmanr

from misure.paper.extensions.sanity import (
    ENOUGH_SAMPLES,
    FAILS,
    OPEN,
    PASSES,
    likeness,
    sanity_figures,
    sanity_table,
    sanity_tables,
    top_region,
)
from misure.paper.material import Material
from misure.paper.published import PAIRS

SHAPE = (8, 8)  # save_map's object fills a quarter: 16 of 64 pixels
CHANCE = 0.25 / 1.75


def test_top_region_shares_the_places_of_tied_pixels():
    saliency = np.array([[3.0, 1.0], [1.0, 0.0]])
    np.testing.assert_array_equal(top_region(saliency, 2), [[1, 0.5], [0.5, 0]])
    np.testing.assert_array_equal(top_region(np.zeros((2, 2)), 1), np.full((2, 2), 0.25))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 3), min_size=6, max_size=30), st.data())
def test_top_region_has_as_many_pixels_as_the_object(values, data):
    size = data.draw(st.integers(1, len(values)))
    members = top_region(np.array(values, float), size)
    assert members.sum() == pytest.approx(size)  # sums of a few rounded fractions
    assert ((members >= 0) & (members <= 1)).all()


def test_likeness_by_hand():
    first = np.arange(64, dtype=float).reshape(SHAPE)
    same, turned = likeness(first, 2 * first + 1, 16), likeness(first, first[::-1, ::-1], 16)
    assert same["rank_correlation"] == pytest.approx(1)
    assert (same["top_iou"], same["difference"]) == (1, pytest.approx(0))
    assert turned["rank_correlation"] == pytest.approx(-1)
    assert turned["top_iou"] == 0
    constant = likeness(first, np.ones(SHAPE), 16)
    assert np.isnan(constant["rank_correlation"])
    assert constant["excess"] == pytest.approx(0)  # exactly chance, up to rounding
    assert likeness(np.zeros(SHAPE), np.zeros(SHAPE), 16)["top_iou"] == pytest.approx(1)


def test_random_maps_overlap_by_chance():
    draws = np.random.default_rng(0).random((200, 2, 40, 40))
    found = [likeness(a, b, 400) for a, b in draws]
    # the standard error of the mean over 200 pairs of 400 pixels is about 0.001
    assert np.mean([f["top_iou"] for f in found]) == pytest.approx(found[0]["chance"], abs=0.004)
    expected = spearmanr(draws[0, 0].ravel(), draws[0, 1].ravel()).statistic
    assert found[0]["rank_correlation"] == pytest.approx(expected, abs=1e-12)


def test_black_pixels_do_not_make_maps_alike(tmp_path):
    """Both maps are 0 there, as blanking changes nothing of them: they count neither for likeness nor for chance."""
    units, random = [], np.random.default_rng(2)
    seen = np.zeros(SHAPE, bool)
    seen[:, :4] = True
    for sample in range(ENOUGH_SAMPLES):
        for change in ("", "randomised_1"):
            rows = [row | {"unit": f"{sample}-{change}"} for row in unit("msr", sample, intervention=change)]
            save_map(tmp_path, rows[0]["unit"], random.random(SHAPE) * seen, black=~seen)
            units.append(rows)
    run = run_of(*units)
    row = sanity_table(Material(run, "quick", tmp_path, run.iloc[:0], PAIRS[:1])).iloc[0]
    assert row["chance"] == pytest.approx(0.5 / 1.5)  # the object fills half of what is seen
    # Over all 64 pixels the halves that are 0 give a rank correlation of 0.75; over 32, its standard error is
    # 1 / sqrt(31 x 8) = 0.06, and three of them are below 0.25.
    assert abs(row["rank_correlation_mean"]) < 0.25


def _material(folder: Path, n: int) -> Material:
    """RISE never changes, Seg-Grad-CAM becomes constant; MSR has no map of its twin."""
    random = np.random.default_rng(1)
    units = []
    for sample in range(n):
        own = random.random(SHAPE)
        for name in ("rise", "seg_grad_cam", "msr"):
            for change in ("", "randomised_0.5", "randomised_1", "other_target"):
                rows = unit(name, sample, intervention=change)
                rows = [row | {"unit": f"{name}-{sample}-{change}"} for row in rows]
                units.append(rows)
                if name == "msr" and not change:
                    continue
                broken = name == "seg_grad_cam" and change
                save_map(folder, rows[0]["unit"], np.zeros(SHAPE) if broken else own)
    run = run_of(*units)
    return Material(run, "quick", folder, run.iloc[:0], PAIRS[:2])


def test_verdicts(tmp_path):
    table = sanity_table(_material(tmp_path, ENOUGH_SAMPLES)).set_index(["method", "intervention"])
    rise, cam = table.loc[("RISE", "randomised_1")], table.loc[("Seg-Grad-CAM", "randomised_1")]
    assert rise["top_iou_mean"] == pytest.approx(1)
    assert rise["chance"] == pytest.approx(CHANCE)
    assert rise["verdict"] == FAILS
    assert cam["top_iou_mean"] == pytest.approx(CHANCE)
    assert cam["verdict"] == PASSES
    assert cam["rank_correlation_n"] == 0
    assert table.loc[("RISE", "randomised_0.5"), "verdict"] == ""
    assert table.loc[("MSR", "randomised_1"), "n_samples"] == 0
    assert table.loc[("MSR", "randomised_1"), "verdict"] == OPEN
    assert list(table.loc["RISE"].index) == ["randomised_0.5", "randomised_1", "other_target"]
    assert set(sanity_table(_material(tmp_path, 1))["verdict"]) == {"", OPEN}, "too few samples to say"


def test_what_table_and_figure_share_is_made_once(tmp_path):
    material = _material(tmp_path, 1)
    (first,), (second,) = sanity_tables(material), sanity_tables(material)
    assert first.frame is second.frame is sanity_table(material)
    assert sanity_table(_material(tmp_path, 1)) is not first.frame


def test_figure_shows_curves_chance_and_the_hole(tmp_path):
    ((name, figure),) = sanity_figures(_material(tmp_path, 3))
    assert name == "sanity"
    curves, hole = figure.axes[0], figure.axes[1]
    labels = curves.get_legend_handles_labels()[1]
    assert {"RISE", "Seg-Grad-CAM", "two independent random maps"} <= set(labels)
    (chance,) = [line for line in curves.lines if line.get_label() == "two independent random maps"]
    assert chance.get_ydata()[0] == pytest.approx(CHANCE)
    assert hole.texts[0].get_text() == "not run in this profile"
    figure.savefig(tmp_path / "sanity.png", dpi=60)
