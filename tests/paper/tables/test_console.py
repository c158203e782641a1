"""Text for a terminal: paper and ours side by side within 110 columns, stand-ins named."""

from __future__ import annotations

import pandas as pd
from paper_records import PHANTOM, frame, organ, unit

from misure.paper.published import DASH
from misure.paper.query import latest_run
from misure.paper.tables.console import console_table, experiment_summary
from misure.paper.tables.rows import NOT_RUN


def _wide_runs() -> pd.DataFrame:
    """Every method on both datasets, with the widest numbers the columns are made for."""
    settings = [("msr", {}), ("rise", {"n_masks": 300}), ("seg_grad_cam", {}), ("prediction", {}), ("random_map", {})]
    widest = {"perturbation_ratio": 1234.5, "seconds": 1234.0}
    return frame(
        *(unit(name, s, parameters, **widest) for name, parameters in settings for s in range(2)),
        *(organ(name, s, "Liver", parameters, **widest) for name, parameters in settings for s in range(2)),
        organ("msr", 0, "Liver", model="transunet", perturbation_ratio=99.994, dataset_source=f"{PHANTOM}, {'x' * 60}"),
        organ("msr", 1, "Liver", model="transunet", status="skipped", reason="not predicted"),
    )


def test_console_table_shows_paper_and_ours_within_a_terminal() -> None:
    text = console_table(_wide_runs(), "quick")
    assert max(map(len, text.splitlines())) <= 110
    triangle, unet, transunet, _ = text.split("\n\n")
    (line,) = (line for line in triangle.splitlines() if line.startswith("MSR"))
    assert " ".join(line.split()) == "MSR 0.965 0.900 [0.900, 0.900] 0.63 1234 [1234, 1234] 3.38 1234 2"
    assert triangle.splitlines()[0] == (
        "Table 1: Triangle, U-Net, profile quick, data: shipped Fashion-MNIST subset; the paper: 150 samples"
    )
    assert f"{DASH} 300 masks: RISE" in unet.splitlines()
    assert f"{DASH} {NOT_RUN}: SR" in unet.splitlines()
    assert f"{DASH} 1 skipped: MSR" in transunet.splitlines()


def test_console_lines_of_a_stand_in_say_so() -> None:
    triangle, unet, transunet, _ = console_table(_wide_runs(), "quick").split("\n\n")
    assert "stand-in" not in triangle
    assert f"data: {PHANTOM};" in unet.splitlines()[0]
    for text in (unet, transunet):
        measured_lines = [line for line in text.splitlines() if "0.900" in line]
        assert measured_lines
        assert all(line.endswith("stand-in") for line in measured_lines)


def test_summary_of_an_experiment_on_a_stand_in_says_so() -> None:
    rows = latest_run(frame(*(organ("rise", s, "Liver") for s in range(2))), "quick")
    lines = experiment_summary(rows).splitlines()
    assert len(lines) == 2
    assert all(line.endswith(f"n = 2; {PHANTOM}") for line in lines)
    assert experiment_summary(latest_run(frame(unit("msr", 0)), "quick")).endswith("n = 1")
