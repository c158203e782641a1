"""The benchmark's rows: complete, in agreement, and nothing is left behind."""

from __future__ import annotations

import pandas as pd
import pytest
import torch
from bench_networks import toy_images, toy_model, toy_targets

from misure.bench.compare import as_the_paper, run_bench
from misure.explainers import MSR, RISE, Explainer, IntegratedGradients, SegGradCAM

EXPLAINERS: dict[str, Explainer] = {
    "msr": MSR(n_iterations=3, mask_size=8),
    "msr_short": MSR(n_iterations=1, mask_size=8),
    "rise": RISE(n_masks=60),
    "seg_grad_cam": SegGradCAM(),
    "integrated_gradients": IntegratedGradients(n_steps=3),
}


@pytest.fixture(scope="module")
def bench() -> pd.DataFrame:
    model, images = toy_model(torch.float32), toy_images(3, torch.float32)
    targets = toy_targets(model, images)
    options = {"plain_masks": 30, "repeats": 2, "precisions": ["32"], "images_per_round": 2}
    return run_bench(model, images, targets, EXPLAINERS, progress=False, **options)


def test_bench_has_a_row_per_method_contestant_image_and_run(bench: pd.DataFrame) -> None:
    groups = bench.groupby(["method", "contestant"])
    assert (groups["image"].nunique() == 3).all()
    runs = groups["run"].nunique()
    assert (groups.size() == 3 * runs).all()
    assert {name: set(runs[name]) for name in runs.index.unique("method")} == {
        "msr": {2}, "rise": {2}, "seg_grad_cam": {2}, "integrated_gradients": {2},
    }  # fmt: skip
    assert set(runs["msr"].index) == {"literal", "misure", "misure msr_short"}
    assert (bench["ours"] == bench["contestant"].str.startswith("misure")).all()
    masks = bench[bench["method"] == "rise"].groupby("contestant")["masks"].unique()
    assert {name: list(counts) for name, counts in masks.items()} == {
        name: [60 if name == "misure" else 30] for name in masks.index
    }
    assert (bench[["seconds", "flops", "peak_flops"]] > 0).all(axis=None)


def test_bench_versions_agree(bench: pd.DataFrame) -> None:
    literal, ours = (
        bench[bench["contestant"] == name].set_index(["method", "image", "run"]).sort_index()
        for name in ("literal", "misure")
    )
    for method in ("msr", "seg_grad_cam"):
        # float32 on a toy network of two layers: rounding only
        assert (ours.loc[method, "correlation"] > 1 - 1e-6).all()
        # float32 rounding may move a pixel or two of 266 to the other class
        difference = ours.loc[method, "dice_explained"] - literal.loc[method, "dice_explained"]
        assert (difference.abs() < 0.02).all()
    two_runs = bench[bench["method"] == "rise"].groupby(["contestant", "image"])["correlation"]
    assert (two_runs.max() < 1).all()  # of different masks
    assert (two_runs.max() - two_runs.min() < 1e-9).all()


def test_operations_of_a_method_are_those_of_its_passes(bench: pd.DataFrame) -> None:
    # two operations for each weight of two 5 x 5 convolutions, of 1 to 6 to 3 channels, on 19 x 14 pixels
    first, second = 2 * 25 * 6 * 19 * 14, 2 * 25 * 18 * 19 * 14
    flops = bench[bench["contestant"] == "misure"].set_index(["method", "image", "run"]).sort_index()
    assert (flops.loc["rise", "flops"] == 60 * (first + second)).all()
    assert (flops.loc["integrated_gradients", "flops"] == 3 * 2 * (first + second)).all()
    assert (flops.loc["seg_grad_cam", "flops"] == first + 2 * second).all()  # the layer is between the two
    dilations = flops.loc["msr", "n_dilations"].astype(int)
    assert (flops.loc["msr", "flops"] == (dilations + 1 + 3 * 2) * (first + second)).all()


def test_others_sum_plain_masks() -> None:
    plain = as_the_paper(RISE(n_masks=7, grid=4, keep_probability=0.3, antithetic=True, stratified=True), 11)
    expected = RISE(n_masks=11, grid=4, keep_probability=0.3, antithetic=False, control_variate=None)
    numbers = torch.arange(11)
    assert torch.equal(plain.masks(numbers, torch.Size((8, 8))), expected.masks(numbers, torch.Size((8, 8))))


@pytest.mark.parametrize("bfloat16", ["slow", "fast"], indirect=True)
def test_bench_runs_the_precisions_that_the_hardware_is_fast_at(bfloat16) -> None:
    model, images = toy_model(torch.float32), toy_images(1, torch.float32)
    targets = toy_targets(model, images)
    frame = run_bench(model, images, targets, {"seg_grad_cam": SegGradCAM()}, repeats=1, progress=False)
    assert set(frame["precision"]) == {"slow": {"32"}, "fast": {"32", "bf16"}}[bfloat16]


def test_bench_gives_the_network_back_as_it_was() -> None:
    model, images = toy_model(torch.float32), toy_images(2, torch.float32)
    targets = toy_targets(model, images)
    first, *others = model.module.parameters()
    model.module.train()
    first.requires_grad_(False)
    others[0].grad = torch.ones_like(others[0])
    pointers = [p.data_ptr() for p in (first, *others)]
    few = {"msr": MSR(n_iterations=1, mask_size=8), "seg_grad_cam": SegGradCAM()}
    run_bench(model, images, targets, few, repeats=1, progress=False)
    assert all(m.training for m in model.module.modules())
    assert [p.requires_grad for p in (first, *others)] == [False] + [True] * len(others)
    assert torch.equal(others[0].grad, torch.ones_like(others[0]))
    assert all(p.grad is None for p in others[1:])
    assert [p.data_ptr() for p in (first, *others)] == pointers
