"""MONAI bundles: the network of a configuration of plain values, and none of its code."""

from __future__ import annotations

import json
import warnings

import pytest
import torch
from explained_networks import explained

from misure.errors import MisureError
from misure.models.loading import load_model

monai = pytest.importorskip("monai", reason="needs monai")

IMAGE = torch.rand(1, 32, 32, 16, generator=torch.Generator().manual_seed(0))
NETWORK = {
    "_target_": "UNet",
    "spatial_dims": 3,
    "in_channels": 1,
    "out_channels": "@classes",
    "channels": [4, 8, 16],
    "strides": "@settings::strides",
    "norm": "batch",
}
CONFIG = {
    "classes": 3,
    "settings": {"strides": [2, 2]},
    "device": "$torch.device('cuda')",  # of no concern to the network
    "network_def": NETWORK,
    "network": "$@network_def.to(@device)",
    "preprocessing": [{"_target_": "LoadImaged", "keys": "image"}],
}
HOVERNET = {"_target_": "HoVerNet", "adapt_standard_resnet": True, "pretrained_url": "http://127.0.0.1:9/net.pth"}
METADATA = {
    "network_data_format": {
        "inputs": {"image": {"num_channels": 1, "value_range": [-1, 1]}},
        "outputs": {"pred": {"channel_def": {"0": "background", "1": "spleen", "2": "liver"}}},
    }
}
RANGE = {"_target_": "ScaleIntensityRanged", "a_min": -57, "a_max": 164, "b_min": 0.0, "b_max": 1.0, "clip": True}


def built(**changes):
    torch.manual_seed(0)
    plain = NETWORK | {"out_channels": 3, "strides": [2, 2]} | changes
    plain.pop("_target_")
    return monai.networks.nets.UNet(**plain).eval()


def bundle(folder, config, *, metadata=METADATA, suffix="json", wrapped=False, network=None):
    import yaml

    (folder / "configs").mkdir()
    (folder / "models").mkdir()
    text = json.dumps(config) if suffix == "json" else yaml.safe_dump(config)
    (folder / "configs" / f"inference.{suffix}").write_text(text)
    (folder / "configs" / "metadata.json").write_text(json.dumps(metadata))
    state = (network or built()).state_dict()
    torch.save({"model": state} if wrapped else state, folder / "models" / "model.pt")
    return folder


@pytest.mark.parametrize("suffix", ["json", "yaml"])
def test_a_bundle_is_its_network_with_its_weights_and_metadata(tmp_path, suffix):
    model = load_model(bundle(tmp_path, CONFIG, suffix=suffix, wrapped=suffix == "yaml"))
    with torch.no_grad():
        torch.testing.assert_close(model(IMAGE[None]), built()(IMAGE[None]), rtol=0, atol=1e-5)
    assert (model.class_names, model.in_channels) == (("background", "spleen", "liver"), 1)
    assert ((-1 - model.mean[0]) / model.std[0], model.mean, model.std) == (-3, (0.5,), (0.5,))  # [0, 1] to [-1, 1]
    explained(model, IMAGE)


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"network_def": NETWORK | {"norm": "$__import__('os').system('false')"}}, "network_def::norm"),
        ({"classes": "$1 + 2"}, "classes"),
        ({"settings": {"strides": {"_target_": "os.system", "command": "false"}}}, "settings::strides::_target_"),
        ({"classes": "%other.json::classes"}, "classes"),
        ({"network_def": NETWORK | {"_mode_": "debug"}}, "network_def::_mode_"),
    ],
)
def test_code_is_refused_and_not_run(tmp_path, change, place):
    with pytest.raises(MisureError, match=rf"describes its network by code \({place} is "):
        load_model(bundle(tmp_path, CONFIG | change))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"network_def": NETWORK | {"_target_": "os.system"}}, "a network of its own, os.system"),
        ({"network_def": NETWORK | {"_target_": "scripts.mine.UNet"}}, "a network of its own, scripts.mine.UNet"),
        ({"network_def": NETWORK | {"_target_": "monai.networks.nets.evil"}}, "a network of its own"),
        ({"network_def": HOVERNET}, r"weights from elsewhere \(pretrained_url\)"),
        ({"network_def": NETWORK | {"act": ["relu", {"my_url": "file:x"}]}}, r"elsewhere \(act::1::my_url\)"),
        ({"network_def": NETWORK | {"pretrained": "x.pt", "kind": 1}}, "does not build its network"),
        ({"network_def": NETWORK | {"nothing": 1}}, "does not build its network"),
        ({"network_def": NETWORK | {"channels": [4, 8, 8]}}, "model.pt cannot be read"),
        ({"network_def": NETWORK | {"norm": "@absent"}}, "refers to 'absent'"),
        ({"network_def": "$build()"}, "describes no network"),
    ],
)
def test_what_is_no_network_of_monai_s_is_one_line(tmp_path, change, message):
    with pytest.raises(MisureError, match=message) as caught:
        load_model(bundle(tmp_path, CONFIG | change))
    assert "\n" not in str(caught.value)


class Harmful:
    def __reduce__(self):
        return exit, (3,)


def test_a_pickle_is_not_opened(tmp_path):
    bundle(tmp_path, CONFIG)
    torch.save({"model": Harmful()}, tmp_path / "models" / "model.pt")
    with pytest.raises(MisureError, match=r"model.pt cannot be read"):
        load_model(tmp_path)


def test_steps_before_and_after_the_network_are_read_as_data(tmp_path):
    before = [RANGE, {"_target_": "Orientationd", "axcodes": "RAS"}, {"_target_": "Spacingd", "pixdim": [1, 1, 2]}]
    after = {"_target_": "Compose", "transforms": [{"_target_": "Activationsd", "keys": "pred", "sigmoid": True}]}
    steps = {"preprocessing": {"_target_": "Compose", "transforms": before}, "postprocessing": after}
    folder = bundle(tmp_path, CONFIG | steps)
    with pytest.warns(UserWarning, match=r"ScaleIntensityRanged, Spacingd.*give window=\[-57,164\], axes=ras"):
        model = load_model(folder)
    assert (model.mean, model.std, model.multi_label) == ((0.0,), (1.0,), True)
    explained(model, IMAGE)


@pytest.mark.parametrize("transforms", ["@steps", "%own::before", "@own#before", ["@steps::0"], "@more"])
@pytest.mark.parametrize("where", ["inference", "validate"])
def test_references_to_steps_are_followed(tmp_path, transforms, where):
    scaled = RANGE | {"a_min": "@lowest"}
    after = {"_target_": "Compose", "transforms": ["@own::sigmoid"]}
    found = {"preprocessing": {"_target_": "Compose", "transforms": transforms}, "postprocessing": after}
    sigmoid = {"_target_": "Activationsd", "sigmoid": True}
    entries = {"lowest": -57, "steps": [scaled], "own": {"before": [scaled], "sigmoid": sigmoid}, "more": "@steps"}
    config = {key: value for key, value in CONFIG.items() if key != "preprocessing"} | entries
    folder = bundle(tmp_path, config | (found if where == "inference" else {where: found}))
    with pytest.warns(UserWarning, match=r"by ScaleIntensityRanged, of which.*give window=\[-57,164\]"):
        model = load_model(folder)
    assert (model.mean, model.std, model.multi_label) == ((0.0,), (1.0,), True)


@pytest.mark.parametrize(
    ("steps", "words"),
    [
        (None, "does not say in plain values how its images are prepared"),
        ("$scripts.steps()", "does not say in plain values"),
        ({"_target_": "Compose", "transforms": "$@a + @b"}, "does not say in plain values"),
        ({"_target_": "Compose", "transforms": "@round"}, "does not say in plain values"),
        (["@absent", "%other.json::steps"], "does not say in plain values"),
        ([{"_target_": "LoadImaged"}, "$scripts.step()"], "prepares its images by code, of which"),
    ],
)
def test_steps_that_are_not_plain_are_told(tmp_path, steps, words):
    config = CONFIG | {"preprocessing": steps, "round": "@turn", "turn": "@round"}
    if steps is None:
        del config["preprocessing"]
    with pytest.warns(UserWarning, match=words) as told:
        load_model(bundle(tmp_path, config))
    assert len(told) == 1
    load_model(tmp_path, mean=[0.5], std=[0.5])


def test_a_single_sigmoid_channel_and_torchscript(tmp_path):
    """Without model.pt the TorchScript file is taken; its channel becomes two logits."""
    network = built(out_channels=1)
    metadata = {"network_data_format": {"outputs": {"pred": {"channel_def": {"0": "tumour"}}}}}
    bundle(tmp_path, CONFIG, metadata=metadata, network=network)
    (tmp_path / "models" / "model.pt").unlink()
    with pytest.raises(MisureError, match=r"no models/model\.pt or model\.ts"):
        load_model(tmp_path)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r".*torch\.jit")
        torch.jit.trace(network, IMAGE[None]).save(tmp_path / "models" / "model.ts")
    model = load_model(tmp_path)
    assert model.class_names == ("background", "tumour")
    assert model(IMAGE[None]).shape == (1, 2, *IMAGE.shape[1:])
