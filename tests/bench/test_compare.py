"""The benchmark: literal versions give the explainers' answers, nothing is left behind."""

from __future__ import annotations

import pandas as pd
import pytest
import torch
from bench_networks import toy_images, toy_model, toy_targets

from misure.bench.compare import METHODS, run_bench
from misure.bench.literal import literal_msr, literal_rise, literal_seg_grad_cam
from misure.bench.page import write_page
from misure.bench.report import markdown, summarise
from misure.errors import MisureError
from misure.explainers import MSR, RISE, SegGradCAM


@pytest.fixture(scope="module")
def bench() -> pd.DataFrame:
    model, images = toy_model(torch.float32), toy_images(3, torch.float32)
    targets = toy_targets(model, images)
    counts = {"n_masks": 9, "n_iterations": 3, "mask_size": 8}
    frame = run_bench(model, images, targets, **counts, precisions=["32"], images_per_round=2, progress=False)
    return frame.assign(dataset="triangle", model="unet_vgg16")


def test_literal_msr_gives_the_explainers_masks() -> None:
    model, images = toy_model(), toy_images(2)
    targets = toy_targets(model, images)
    explained = MSR(n_iterations=12, mask_size=8, tau=0.99).explain(model, images, targets)
    for image, target, expected in zip(images, targets, explained, strict=True):
        for weight_gradients in (False, True):
            counts = {"n_iterations": 12, "mask_size": 8, "tau": 0.99, "weight_gradients": weight_gradients}
            found = literal_msr(model, image, target, **counts)
            assert found.n_dilations == expected.n_dilations
            assert torch.equal(found.sufficient_region, expected.sufficient_region)
            # float64: summation order differs, 12 Adam steps amplify it by far less than 1e5
            torch.testing.assert_close(found.saliency, expected.saliency, rtol=0, atol=1e-10)
    assert max(e.n_dilations for e in explained) > 0


def test_literal_rise_and_seg_grad_cam_give_the_explainers_maps() -> None:
    model, images = toy_model(), toy_images(2)
    targets = toy_targets(model, images)
    rise = RISE(n_masks=7)
    by_rise, by_cam = rise.explain(model, images, targets), SegGradCAM().explain(model, images, targets)
    for i, (image, target) in enumerate(zip(images, targets, strict=True)):
        torch.testing.assert_close(literal_rise(model, image, target, rise).saliency, by_rise[i].saliency)
        torch.testing.assert_close(literal_seg_grad_cam(model, image, target).saliency, by_cam[i].saliency)


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


def test_bench_names_the_methods_it_knows() -> None:
    model, images = toy_model(torch.float32), toy_images(1, torch.float32)
    with pytest.raises(MisureError, match="close names: rise"):
        run_bench(model, images, toy_targets(model, images), methods=["rice"])


def test_numbers_of_the_table_are_medians_with_their_range() -> None:
    row = {"method": "msr", "contestant": "literal", "precision": "32", "correlation": 1.0, "scaled_difference": 0.0}
    row |= {"dice_explained": 0.9, "perturbation_ratio": 1.0, "peak_bytes": 5 << 20, "misure_seconds": 0.5}
    row |= {"misure_dice_explained": 0.9, "misure_perturbation_ratio": 0.96, "misure_peak_bytes": 7 << 20}
    measured = zip([1.0, 4.0, 2.0], [2.0, 8.0, 4.0], strict=True)
    bench = pd.DataFrame([{**row, "seconds": seconds, "times_faster": times} for seconds, times in measured])
    (row,) = summarise(bench).to_dict("records")
    assert (row["method"], row["against"], row["precision"], row["images"]) == ("MSR", "literal", "32", 3)
    assert row["its s an image"] == "2 (1 to 4)"
    assert row["misure s an image"] == "0.5 (0.5 to 0.5)"
    assert row["times faster"] == "4 (2 to 8)"
    assert (row["its peak MB"], row["misure peak MB"]) == (5, 7)
    assert (row["lowest correlation"], row["largest scaled difference"]) == (1.0, 0.0)
    assert (row["its Dice explained"], row["its ratio"], row["misure ratio"]) == (0.9, 1.0, pytest.approx(0.96))


def test_report_is_written_with_setting_and_tables(bench: pd.DataFrame, tmp_path) -> None:
    text = markdown(bench, notes=("Weights: random.",))
    assert "Weights: random." in text
    assert "Load average before" in text
    assert "| Seg-Grad-CAM | literal | 32 | 3 |" in text
    write_page(tmp_path / "outputs", "bench", text, bench)
    assert len(pd.read_csv(tmp_path / "outputs" / "bench.csv")) == len(bench)
    assert (tmp_path / "outputs" / "bench.md").read_text(encoding="utf-8") == text
    assert list(summarise(bench)["method"].unique())[:3] == ["MSR", "RISE", "Seg-Grad-CAM"]


def test_an_unwritable_folder_is_a_clear_error(bench: pd.DataFrame, tmp_path) -> None:
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    with pytest.raises(MisureError, match="cannot write"):
        write_page(tmp_path / "file", "bench", "text", bench)
