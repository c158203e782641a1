"""Methods side by side: passes are counted exactly, and a method that cannot work has its reason."""

from __future__ import annotations

import pandas as pd
import pytest
import torch
from oracles.toys import Convolutional

from misure.bench.method_table import measure_methods, method_table
from misure.evaluation.curves import dice_at, explanation_curves
from misure.explainers import make_explainer
from misure.models.compute import Compute
from misure.models.wrapper import SegmentationModel, frozen
from misure.paper.published import DASH
from misure.target import make_targets


@pytest.fixture
def case():
    model = SegmentationModel(Convolutional(1, seed=3).double().eval(), bottleneck="bottleneck")
    images = torch.randn(2, 1, 13, 17, dtype=torch.float64, generator=torch.Generator().manual_seed(7))
    with frozen(model, Compute(), images.device) as network:
        present = [set(p.unique().tolist()) - {0} for p in network.predict(images)]
        targets = make_targets(network, images, min(set.intersection(*present)))
    return model, images, targets


def cells_of(frame):
    """The cells of the only method's line."""
    return [cell.strip() for cell in method_table(frame).splitlines()[-1].strip("|").split("|")]


def test_passes_are_those_of_the_method_alone(case) -> None:
    model, images, targets = case
    explainers = [
        make_explainer("rise", n_masks=7, grid=3),
        make_explainer("seg_grad_cam"),
        make_explainer("prediction"),
        make_explainer("msr", n_iterations=5, mask_size=8),
        make_explainer("sufficient_region"),
    ]
    frame = measure_methods(model, images, targets, explainers, compute=Compute(fold=False), progress=False)
    by = frame.groupby("method")
    assert by["forward"].apply(list).loc[["rise", "seg_grad_cam", "prediction"]].tolist() == [[7, 7], [1, 1], [0, 0]]
    assert by["gradient"].apply(list).to_dict() == {
        "rise": [0, 0], "seg_grad_cam": [1, 1], "prediction": [0, 0], "msr": [5, 5], "sufficient_region": [0, 0],
    }  # fmt: skip
    stage_1 = [n + 5 for n in by["forward"].apply(list)["sufficient_region"]]
    assert by["forward"].apply(list)["msr"] == stage_1
    assert not model.module._forward_hooks


def test_the_pass_that_finds_what_can_be_folded_is_counted(case) -> None:
    model, images, targets = case
    rise = [make_explainer("rise", n_masks=7, grid=3)]
    for precision, passes in (("32", [8, 8]), ("bf16", [7, 7])):  # folding would move what 16 bits round
        frame = measure_methods(model, images, targets, rise, compute=Compute(precision), progress=False)
        assert frame["forward"].tolist() == passes


def test_dice_at_a_ratio_is_read_off_the_threshold_curve(case) -> None:
    model, images, targets = case
    rise = make_explainer("rise", n_masks=7, grid=3)
    frame = measure_methods(model, images, targets, [rise], ratios=(0.5, 2), progress=False)
    for i, explanation in enumerate(rise.explain(model, images, targets)):
        curve = explanation_curves(model, explanation, rise.fill, Compute(), n_steps=1)
        assert frame["dice_at_0.5"][i] == dice_at(curve, 0.5)
        assert frame["dice_at_2"][i] == pytest.approx(dice_at(curve, 2), nan_ok=True)


def test_a_method_that_cannot_explain_the_network_says_why(case) -> None:
    model, images, targets = case
    bare = SegmentationModel(model.module)
    frame = measure_methods(bare, images, targets, [make_explainer("seg_grad_cam")], progress=False)
    assert "layer" in frame["problem"].item()
    cells = cells_of(frame.assign(dice_at_1=float("nan")))
    assert cells[2] == "gradients, a layer"
    assert frame["problem"].item() in cells[3]
    assert cells[4:] == [DASH] * 3


def test_the_table_shows_counts_medians_and_means() -> None:
    shared = {"method": "rise", "title": "RISE", "needs_gradients": False, "needs_layer": False, "gradient": 0}
    frame = pd.DataFrame(
        [
            shared | {"image": i, "forward": 10 + i, "seconds": s, "dice_at_1": d}
            for i, s, d in [(0, 1, 0.4), (1, 3, 0.6)]
        ]
    )
    cells = cells_of(frame)
    assert cells[:6] == ["RISE", "`rise`", "nothing", "10", "0", "2"]  # 10.5 rounds to even
    assert cells[6].startswith("0.500 [0.000, 1.000]")
