"""Results of nnU-Net v2: the plans' network with the fold's weights at full resolution, and nothing of theirs run."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from explained_networks import explained

from misure.errors import MisureError
from misure.models.loading import load_model

pytest.importorskip("nnunetv2", reason="needs nnunetv2")
from nnunet_results import INTENSITIES, PATCH, name, plans, write_result


@pytest.mark.parametrize("dimensions", [2, 3])
def test_a_result_is_the_network_of_its_plans_at_full_resolution(tmp_path, dimensions):
    folder, network = write_result(tmp_path, dimensions)
    image = torch.rand(1, *PATCH[dimensions], generator=torch.Generator().manual_seed(0))
    model = load_model(folder)
    with torch.no_grad():
        finest, *coarser = network(image[None])
        assert torch.equal(model.network(image[None]), finest)
    assert len(coarser) == 1
    assert (model.class_names, model.in_channels) == (("background", "spleen", "liver"), 1)
    assert torch.equal(load_model(folder / "fold_0")(image[None]), model(image[None]))
    explained(model, image)


def test_mean_and_std_are_those_of_the_plans_between_their_percentiles(tmp_path):
    model = load_model(write_result(tmp_path, 3)[0])
    values = np.array([-500.0, 20, 80, 1000])
    low, high = INTENSITIES["percentile_00_5"], INTENSITIES["percentile_99_5"]
    right = (values.clip(low, high) - INTENSITIES["mean"]) / INTENSITIES["std"]
    fractions = (values.clip(low, high) - low) / (high - low)  # window=[low, high]
    np.testing.assert_allclose((fractions - model.mean[0]) / model.std[0], right, rtol=1e-12)


def test_regions_overlap_and_have_no_background(tmp_path):
    labels = {"background": 0, "whole": [1, 2], "core": [2]}
    model = load_model(write_result(tmp_path, 2, labels=labels, regions_class_order=[1, 2])[0])
    assert (model.class_names, model.multi_label) == (("whole", "core"), True)
    explained(model, torch.rand(1, 16, 16, generator=torch.Generator().manual_seed(0)))


class Harmful:
    def __reduce__(self):
        return exit, (3,)


def foreign(key: str, value: str) -> dict:
    plan = plans(3)
    described = plan["configurations"]["3d_fullres"]["architecture"]
    (described if key in described else described["arch_kwargs"])[key] = value
    return plan


def cascade() -> dict:
    plan = plans(3)
    plan["configurations"]["3d_fullres"]["previous_stage"] = "3d_lowres"
    return plan


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (foreign("network_class_name", "subprocess.Popen"), "a network of its own, subprocess.Popen"),
        (foreign("conv_op", "os.system"), "a network of its own, os.system"),
        (foreign("features_per_stage", [4, 8, 16]), r"cannot be read .* another network than its plans say"),
        (cascade(), "second stage of a cascade"),
    ],
)
def test_plans_that_are_not_followed_are_one_line(tmp_path, plan, message):
    folder, _ = write_result(tmp_path, 3, plan=plan)
    with pytest.raises(MisureError, match=message) as caught:
        load_model(folder)
    assert "\n" not in str(caught.value)


def test_pickles_and_absent_weights_are_one_line(tmp_path):
    folder, _ = write_result(tmp_path, 3)
    checkpoint = folder / "fold_0" / "checkpoint_final.pth"
    torch.save({"network_weights": Harmful()}, checkpoint)
    with pytest.raises(MisureError, match=r"checkpoint_final\.pth cannot be read"):
        load_model(folder)
    checkpoint.unlink()
    with pytest.raises(MisureError, match=r"has no fold_0/checkpoint_final\.pth"):
        load_model(folder)
    (folder / "plans.json").write_text(json.dumps({"configurations": {name(2): {}}}))
    checkpoint.touch()
    with pytest.raises(MisureError, match=r"cannot be read .* no result of nnU-Net v2"):
        load_model(folder)
