"""Folders of segmentation_models_pytorch: the same logits, a normalisation where one is beside them, explanations."""

from __future__ import annotations

import json

import pytest
import segmentation_models_pytorch as smp
import torch
from explained_networks import explained

from misure.errors import MisureError
from misure.models.loading import load_model

IMAGE = torch.rand(3, 32, 64, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A network as smp saves it, which says that its encoder began from ImageNet."""
    torch.manual_seed(0)
    network = smp.Unet("mobilenet_v2", encoder_weights=None, decoder_channels=(8,) * 5, classes=3).eval()
    folder = tmp_path_factory.mktemp("smp")
    network.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text()) | {"encoder_weights": "imagenet"}
    (folder / "config.json").write_text(json.dumps(config))
    return network, folder


@pytest.fixture
def folder(saved, tmp_path):
    for path in saved[1].iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


def transforms(folder, *steps) -> None:
    """Write what albumentations 2.0 saves."""
    listed = [{"__class_fullname__": name, "p": 1.0, **keys} for name, keys in steps]
    whole = {"__version__": "2.0.8", "transform": {"__class_fullname__": "Compose", "transforms": listed}}
    (folder / "albumentations_config_eval.json").write_text(json.dumps(whole))


def test_the_network_is_the_saved_one_without_its_encoder_s_weights_being_fetched(saved):
    network, folder = saved
    model = load_model(folder, mean=[0.5], std=[0.5])
    with torch.no_grad():
        assert torch.equal(model(IMAGE[None]), network(IMAGE[None]))
    assert (model.in_channels, model.mean, model.title) == (3, (0.5,), folder.name)
    explained(model, IMAGE)


@pytest.mark.parametrize(
    ("steps", "mean", "std"),
    [
        ([("Resize", {"height": 8}), ("Normalize", {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]})], 0.1, 0.4),
        ([("Normalize", {"mean": [0.1] * 3, "std": [0.5] * 3, "max_pixel_value": 1.0})], 0.1 / 255, 0.5 / 255),
        ([("Resize", {"height": 8}), ("ToTensorV2", {})], 0, 1 / 255),  # pixels from 0 to 255
    ],
)
def test_transforms_beside_it_are_its_normalisation(folder, steps, mean, std):
    transforms(folder, *steps)
    model = load_model(folder)
    assert (model.mean[0], model.std[0]) == pytest.approx((mean, std))


@pytest.mark.parametrize("steps", [None, [("Normalize", {"normalization": "image"})], [("CLAHE", {})]])
def test_who_does_not_say_how_images_are_prepared_is_warned_of(folder, steps):
    if steps:
        transforms(folder, *steps)
    with pytest.warns(UserWarning, match="does not say how images are prepared"):
        assert load_model(folder).mean == (0.0,)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"_model_class": "from_pretrained"}, "for from_pretrained, which segmentation_models_pytorch does not have"),
        ({"classes": 4}, "cannot be read .* damaged, or incomplete"),
        ({"encoder_name": "nobody"}, "cannot be read"),
        ({"encoder_name": "tu-hf-hub:owner/name"}, "an encoder from elsewhere, tu-hf-hub:owner/name"),
    ],
)
def test_what_does_not_fit_is_one_line(folder, change, message):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(MisureError, match=message) as caught:
        load_model(folder, mean=[0], std=[1])
    assert "\n" not in str(caught.value)


def test_a_sigmoid_at_the_end_is_known(tmp_path):
    torch.manual_seed(0)
    smp.Unet("mobilenet_v2", encoder_weights=None, decoder_channels=(8,) * 5, activation="sigmoid").save_pretrained(
        tmp_path
    )
    model = load_model(tmp_path, mean=[0], std=[1])
    assert model.output.kind == "probabilities"
    assert model(IMAGE[None]).shape == (1, 2, 32, 64)
