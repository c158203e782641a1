"""The benchmark's rows: complete, in agreement, and nothing is left behind."""

from __future__ import annotations

import pandas as pd
import pytest
import torch
from bench_networks import toy_images, toy_model, toy_targets

from misure.bench.compare import METHODS, run_bench


@pytest.fixture(scope="module")
def bench() -> pd.DataFrame:
    model, images = toy_model(torch.float32), toy_images(3, torch.float32)
    targets = toy_targets(model, images)
    counts = {"n_masks": 9, "n_iterations": 3, "mask_size": 8}
    frame = run_bench(model, images, targets, **counts, precisions=["32"], images_per_round=2, progress=False)
    return frame.assign(dataset="triangle", model="unet_vgg16")


def test_bench_has_a_row_per_method_contestant_and_image(bench: pd.DataFrame) -> None:
    counts = bench.groupby(["method", "contestant"])["image"].agg(["nunique", "size"])
    assert set(bench["method"]) == set(METHODS)
    assert (counts == 3).all(axis=None)
    for method in ("msr", "rise", "seg_grad_cam"):
        assert (method, "literal") in counts.index
    assert (bench[["seconds", "misure_seconds"]] > 0).all(axis=None)
    torch.testing.assert_close(
        torch.tensor(bench["times_faster"]), torch.tensor(bench["seconds"] / bench["misure_seconds"])
    )
    assert (bench["precision"] == "32").all()


@pytest.mark.parametrize("bfloat16", ["slow", "fast"], indirect=True)
def test_bench_runs_the_precisions_that_the_hardware_is_fast_at(bfloat16) -> None:
    model, images = toy_model(torch.float32), toy_images(1, torch.float32)
    frame = run_bench(model, images, toy_targets(model, images), methods=["seg_grad_cam"], progress=False)
    assert set(frame["precision"]) == {"slow": {"32"}, "fast": {"32", "bf16"}}[bfloat16]


def test_bench_versions_agree(bench: pd.DataFrame) -> None:
    literal = bench[bench["contestant"] == "literal"]
    # float32 on a toy network of two layers: rounding only
    assert (literal["scaled_difference"] < 1e-4).all()
    assert (literal["correlation"] > 1 - 1e-6).all()
    # float32 rounding may move a pixel or two of 266 to the other class
    assert ((literal["dice_explained"] - literal["misure_dice_explained"]).abs() < 0.02).all()


def test_bench_gives_the_network_back_as_it_was() -> None:
    model, images = toy_model(torch.float32), toy_images(2, torch.float32)
    targets = toy_targets(model, images)
    first, *others = model.module.parameters()
    model.module.train()
    first.requires_grad_(False)
    others[0].grad = torch.ones_like(others[0])
    pointers = [p.data_ptr() for p in (first, *others)]
    run_bench(model, images, targets, n_masks=2, n_iterations=1, mask_size=8, progress=False)
    assert all(m.training for m in model.module.modules())
    assert [p.requires_grad for p in (first, *others)] == [False] + [True] * len(others)
    assert torch.equal(others[0].grad, torch.ones_like(others[0]))
    assert all(p.grad is None for p in others[1:])
    assert [p.data_ptr() for p in (first, *others)] == pointers
