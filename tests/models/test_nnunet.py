"""Results of nnU-Net v2: the plans' network with the fold's weights at full resolution, and nothing of theirs run."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from explained_networks import explained
from nnunet_results import INTENSITIES, PATCH, name, plans, write_result

from misure.errors import MisureError
from misure.explaining.network import content_digest
from misure.models.loading import load_model
from misure.models.nnunet import Result, built, is_result, layer_class, scales

INSTALLED = importlib.util.find_spec("nnunetv2") is not None
needs_nnunet = pytest.mark.skipif(not INSTALLED, reason="needs nnunetv2")


@pytest.mark.parametrize("kind", [torch.nn.LeakyReLU, torch.nn.Conv3d, torch.nn.InstanceNorm2d])
def test_layers_are_known_by_either_of_their_names(kind):
    assert layer_class(f"torch.nn.{kind.__name__}") is layer_class(f"{kind.__module__}.{kind.__name__}") is kind


FOREIGN = (
    "os.system",
    "torch.hub.load",
    "torch.nn.functional.torch.hub.load",  # through what a module imports
    "torch.nn.functional.torch.nn.ReLU",
    "torch.nn.modules.conv.Module.apply",  # through a class
    "torch.nn.modules.conv.Tensor",
    "torch.nn.init.kaiming_normal_",
    "torch.nn.functional",
    "torch.nn..ReLU",
    "torch.nn.",
    "dynamic_network_architectures.absent.Net",
)


@pytest.mark.parametrize("name", FOREIGN)
@pytest.mark.parametrize("as_argument", [False, True])
def test_foreign_names_are_refused_before_anything_is_called(name, as_argument):
    kind, arguments = ("torch.nn.Identity", {"nonlin": name}) if as_argument else (name, {})
    with pytest.raises(MisureError, match=r"plans\.json names a network of its own, ") as caught:
        built(kind, arguments, arguments, 1, 2)
    assert name in str(caught.value)


class Whole(torch.nn.Module):
    def __init__(self, **given):
        super().__init__()
        self.given = given


def test_arguments_that_name_layers_become_them(monkeypatch):
    monkeypatch.setattr(torch.nn, "Whole", Whole, raising=False)
    monkeypatch.setattr(Whole, "__module__", "torch.nn.modules.conv")
    monkeypatch.setattr(torch.nn.modules.conv, "Whole", Whole, raising=False)
    plan = plans(3)["configurations"][name(3)]["architecture"]
    network = built("torch.nn.Whole", plan["arch_kwargs"], plan["_kw_requires_import"], 1, 4)
    layers = {"conv_op": torch.nn.Conv3d, "norm_op": torch.nn.InstanceNorm3d, "nonlin": torch.nn.LeakyReLU}
    own = {"input_channels": 1, "num_classes": 4, "deep_supervision": False}
    assert network.given == plan["arch_kwargs"] | layers | own


def test_mean_and_std_are_those_of_the_plans_between_their_percentiles():
    found = scales(["CTNormalization", "ZScoreNormalization", "NoNormalization"], {"0": INTENSITIES})
    values = np.array([-500.0, 20, 80, 1000])
    low, high = INTENSITIES["percentile_00_5"], INTENSITIES["percentile_99_5"]
    right = (values.clip(low, high) - INTENSITIES["mean"]) / INTENSITIES["std"]
    fractions = (values.clip(low, high) - low) / (high - low)  # window=[low, high]
    np.testing.assert_allclose((fractions - found["mean"][0]) / found["std"][0], right, rtol=1e-12)
    assert (found["mean"][1:], found["std"][1:]) == ((0.5, 0.0), (0.1, 1.0))


def test_a_folder_is_known_by_its_descriptions(tmp_path):
    fold = tmp_path / "fold_1"
    fold.mkdir()
    assert not is_result(tmp_path)
    for described in ("plans.json", "dataset.json"):
        (tmp_path / described).write_text("{}")
    assert is_result(tmp_path)
    assert is_result(fold)
    with pytest.raises(MisureError, match=r"has no fold_0/checkpoint_final\.pth"):
        Result(tmp_path)
    if not INSTALLED:
        with pytest.raises(MisureError, match=r"needs nnunetv2: pip install 'misure\[nnunet\]'"):
            load_model(tmp_path)


@needs_nnunet
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


@needs_nnunet
def test_the_identity_is_of_the_descriptions_and_the_checkpoint_that_is_used(tmp_path, monkeypatch):
    folder, _ = write_result(tmp_path, 2)
    monkeypatch.chdir(tmp_path)
    whole = content_digest(folder, Result(folder).files)
    fold = Result(Path(folder.name, "fold_0"))
    assert content_digest(fold.folder, fold.files) == whole
    (folder / "fold_1").mkdir()
    (folder / "fold_1" / "checkpoint_final.pth").touch()
    assert content_digest(folder, Result(folder).files) == whole
    (folder / "dataset.json").write_text((folder / "dataset.json").read_text() + " ")
    assert content_digest(folder, Result(folder).files) != whole


@needs_nnunet
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


@needs_nnunet
@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (foreign("network_class_name", "subprocess.Popen"), "a network of its own, subprocess.Popen"),
        (foreign("conv_op", "os.system"), "a network of its own, os.system"),
        (
            foreign("nonlin", "torch.nn.functional.torch.hub.load"),
            "a network of its own, torch.nn.functional.torch.hub",
        ),
        (foreign("features_per_stage", [4, 8, 16]), r"cannot be read .* another network than its plans say"),
        (cascade(), "second stage of a cascade"),
    ],
)
def test_plans_that_are_not_followed_are_one_line(tmp_path, plan, message):
    folder, _ = write_result(tmp_path, 3, plan=plan)
    with pytest.raises(MisureError, match=message) as caught:
        load_model(folder)
    assert "\n" not in str(caught.value)


@needs_nnunet
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
