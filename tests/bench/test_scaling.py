"""The scaling table: its points, one measurement, one process, what is left out, and the page from known numbers."""

from __future__ import annotations

import functools

import pandas as pd
import pytest
import torch
from bench_networks import Bright, ending_network, slow_network, small_network

from misure.bench.scaling import Point, make_points, measure, run_scaling
from misure.bench.scaling_report import scaling_page
from misure.errors import MisureError
from misure.models.wrapper import SegmentationModel

IMAGE = torch.linspace(0, 1, 64).view(1, 8, 8)


def test_points_vary_one_thing_at_a_time() -> None:
    points = make_points({"batch_size": [1, 4], "size": [8], "masks": [2], "images": [3]}, iterations=2, masks=5)
    assert points == [
        Point("batch_size", "rise", batch_size=1, iterations=2, masks=5),
        Point("batch_size", "msr", batch_size=1, iterations=2, masks=5, images=4),
        Point("batch_size", "rise", batch_size=4, iterations=2, masks=5),
        Point("batch_size", "msr", batch_size=4, iterations=2, masks=5, images=4),
        Point("size", "rise", size=8, iterations=2, masks=5),
        Point("size", "msr", size=8, iterations=2, masks=5),
        Point("masks", "rise", masks=2, iterations=2),
        Point("images", "rise", images=3, iterations=2, masks=5),
        Point("images", "msr", images=3, iterations=2, masks=5),
    ]
    with pytest.raises(MisureError, match="no axis 'depth'"):
        make_points({"depth": [1]})


@pytest.mark.parametrize("bfloat16", ["slow"], indirect=True)  # else a pass each way is measured first
def test_a_point_does_the_work_it_says(bfloat16) -> None:
    model = small_network()
    found = measure(model, IMAGE, Point("masks", "rise", size=16, masks=6, images=2, batch_size=4))
    # two passes to choose the target, one mask to warm up and six, on two images each
    assert model.module.seen == 2 + 2 * (1 + 6)
    assert found["seconds_a_step"] == pytest.approx(found["seconds"] / 6)
    more = Bright()
    measure(SegmentationModel(more), IMAGE, Point("images", "msr", size=16, images=2, iterations=4, batch_size=2))
    fewer = Bright()
    measure(SegmentationModel(fewer), IMAGE, Point("images", "msr", size=16, images=2, iterations=3, batch_size=2))
    assert more.seen - fewer.seen == 2


def test_points_are_measured_in_processes_of_their_own_or_left_out_with_the_reason() -> None:
    points = make_points({"size": [16, 32]}, masks=2, iterations=2)[::2]
    frame = run_scaling(functools.partial(small_network, largest=16), IMAGE, points, progress=False)
    assert list(frame["value"]) == [16, 32]
    assert frame["seconds"][0] > 0
    assert list(frame["left_out"]) == ["", "images are larger than 16"]
    assert pd.isna(frame["seconds"][1])


def test_a_process_that_takes_too_long_or_ends_is_left_out() -> None:
    point = Point("size", "rise", size=16)
    (slow,) = run_scaling(slow_network, IMAGE, [point], limit=0.5, progress=False)["left_out"]
    assert slow == "took more than 0.5 s"
    (ended,) = run_scaling(ending_network, IMAGE, [point], progress=False)["left_out"]
    assert ended == "the process ended with code 3: too little memory?"


def test_the_page_has_a_table_per_axis() -> None:
    row = {"batch_size": "auto", "size": 224, "masks": 8, "images": 1, "iterations": 4, "device": "cpu"}
    measured = {"seconds": 2.0, "seconds_a_step": 0.25, "peak_bytes": 3 << 20, "left_out": ""}
    frame = pd.DataFrame(
        [
            {**row, "axis": "size", "method": "rise", "size": 512, "value": 512, "left_out": "no"},
            {**row, "axis": "size", "method": "rise", "value": 224, **measured},
            {**row, "axis": "images", "method": "msr", "images": 2, "value": 2, **measured},
        ]
    )
    lines = [line for line in scaling_page(frame).splitlines() if line.startswith(("| RISE", "| MSR"))]
    assert lines == [
        "| RISE (1 images, 8 masks) | 224 | 2 | 0.25 | 3 |  |",
        "| RISE (1 images, 8 masks) | 512 |  |  |  | no |",
        "| MSR (224 px, 4 iterations) | 2 | 2 | 0.25 | 3 |",
    ]
