"""Insertion and deletion: areas by hand, and what the figure shows."""

from __future__ import annotations

from pathlib import Path

import pytest
from paper_curves import aorta, compared, curves, material_of, save
from paper_records import TRANSUNET, UNET, unit

from misure.paper.extensions.insertion_deletion import (
    insertion_deletion_figures,
    insertion_deletion_tables,
    swept_area,
)
from misure.paper.extensions.methods import methods_of


def test_areas_by_hand() -> None:
    assert swept_area({"insertion_dice": [0, 0.5, 1], "insertion_fraction": [0, 0.5, 1]}, "insertion") == 0.5
    # Unequal steps: two trapezoids of widths 0.9 and 0.1.
    unequal = {"deletion_dice": [1, 0.5, 0], "deletion_fraction": [0, 0.9, 1]}
    assert swept_area(unequal, "deletion") == pytest.approx(0.9 * 0.75 + 0.1 * 0.25)


def test_the_table_by_hand(tmp_path: Path) -> None:
    units = [unit("msr", 0), unit("rise", 0)]
    save(tmp_path, units[0][0]["unit"], curves([0, 1], swept=([0, 0.1, 1], [0, 1, 1])))
    save(tmp_path, units[1][0]["unit"], curves([0, 1], swept=([0, 0.5, 1], [0, 0, 1])))
    (table,) = insertion_deletion_tables(material_of(tmp_path, *units))
    rows = table.frame.set_index("explainer")
    assert rows.loc["msr", ["insertion_mean", "deletion_mean"]].tolist() == pytest.approx([0.95, 0.05])
    assert rows.loc["rise", "difference_mean"] == pytest.approx(0.25 - 0.75)


def test_a_figure_has_both_curves_for_each_network_and_names_every_method(tmp_path: Path) -> None:
    units = [*compared(tmp_path, make=aorta), *compared(tmp_path, make=aorta, model="transunet")]
    material = material_of(tmp_path, *units, pairs=(UNET, TRANSUNET))
    ((name, figure),) = insertion_deletion_figures(material)
    assert (name, len(figure.axes)) == ("insertion_deletion_synapse", 4)
    assert "stand-in" in figure.get_supxlabel()
    titles = {method.title for method in methods_of(material, UNET)}
    assert all(titles <= {text.get_text() for text in axes.texts} for axes in figure.axes)
