"""Hugging Face folders: a network gets what its own image processor gives, or the step in the way is named."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import misure
from misure.errors import MisureError
from misure.models.loading import load_model

transformers = pytest.importorskip("transformers", reason="needs transformers")

TINY = {"depths": [1] * 4, "hidden_sizes": [4, 8, 8, 16], "num_attention_heads": [1] * 4, "decoder_hidden_size": 8}
PICTURE = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8) // np.array([4, 1, 2], np.uint8)
FRACTIONS = torch.from_numpy(PICTURE).permute(2, 0, 1) / 255
OWN_SIZE = {"do_resize": False, "do_center_crop": False, "do_pad": False}


def segformer(**config) -> nn.Module:
    torch.manual_seed(0)
    config = transformers.SegformerConfig(**TINY, **config)
    return transformers.SegformerForSemanticSegmentation(config).eval()


@pytest.fixture(scope="module")
def network() -> nn.Module:
    """Weights that the picture's values can be seen through."""
    network = segformer(num_labels=4)
    for parameter in network.parameters():
        if parameter.ndim > 1:
            nn.init.kaiming_normal_(parameter)
    return network


@pytest.fixture
def folder(network, tmp_path):
    network.save_pretrained(tmp_path)
    return tmp_path


def describe(folder, processor: str, **described) -> None:
    key = "feature_extractor_type" if processor.endswith("FeatureExtractor") else "image_processor_type"
    described = {key: processor, **described}
    (folder / "preprocessor_config.json").write_text(json.dumps(described))


def prepared(folder, picture=PICTURE) -> torch.Tensor:
    """What the folder's own processor makes of a picture at its own size."""
    processor = transformers.AutoImageProcessor.from_pretrained(folder)
    sizes = {name: value for name, value in OWN_SIZE.items() if name in processor.to_dict()}
    return processor(Image.fromarray(picture), return_tensors="pt", **sizes)["pixel_values"].float()


def spread_apart(model, network, own) -> float:
    """How far the logits are from those behind the processor, in standard deviations."""
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (model.mean, model.std))
    with torch.no_grad():
        right, ours = network(own).logits, model.network(((FRACTIONS - mean) / std)[None]).logits
    assert right.std() > 0
    return float((ours - right).abs().max() / right.std())


@pytest.mark.parametrize(
    ("processor", "described"),
    [
        ("SegformerImageProcessor", {}),
        ("SegformerImageProcessor", {"do_reduce_labels": True}),
        ("SegformerImageProcessor", {"do_normalize": False}),
        (
            "SegformerImageProcessor",
            {"do_rescale": False, "image_mean": [123.7, 116.3, 103.5], "image_std": [58.4] * 3},
        ),
        ("SegformerImageProcessor", {"do_rescale": False, "do_normalize": False}),
        ("SegformerImageProcessor", {"rescale_factor": 1 / 127.5, "image_mean": [1.0] * 3, "image_std": [1.0] * 3}),
        ("SegformerImageProcessor", {"image_mean": 0.5, "image_std": 0.25}),
        (
            "SegformerFeatureExtractor",
            {"size": 512, "reduce_labels": True, "resample": 2},
        ),  # as folders of 2022 have it
        ("MobileViTFeatureExtractor", {"size": 544, "crop_size": 512, "do_flip_channel_order": True}),
        ("BeitFeatureExtractor", {"size": 640, "crop_size": 640, "do_center_crop": False, "reduce_labels": True}),
        ("DPTFeatureExtractor", {"size": 384, "ensure_multiple_of": 32, "keep_aspect_ratio": True}),
        ("MobileViTImageProcessor", {}),
        ("MobileViTImageProcessor", {"do_flip_channel_order": False}),
        ("MobileViTImageProcessor", {"do_rescale": False}),
        ("BeitImageProcessor", {}),
        ("DPTImageProcessor", {"do_pad": True, "size_divisor": 32}),
        ("MobileNetV2ImageProcessor", {}),
        ("EfficientNetImageProcessor", {"rescale_offset": True, "rescale_factor": 1 / 127.5}),
        ("EfficientNetImageProcessor", {"image_mean": [0.1, 0.2, 0.3]}),  # divides by std twice
        ("ConvNextImageProcessor", {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6]}),
        ("ViTImageProcessor", {}),
    ],
)
def test_the_network_gets_what_its_processor_gives(folder, network, processor, described):
    describe(folder, processor, **described)
    assert spread_apart(load_model(folder), network, prepared(folder)) < 1e-3


@pytest.mark.parametrize(
    ("described", "mean", "std"),
    [
        ({"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6]}, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)),
        ({"do_rescale": False, "image_mean": [51.0] * 3, "image_std": [255.0] * 3}, (0.2,) * 3, (1.0,) * 3),
        ({"do_normalize": False}, (0.0,), (1.0,)),
    ],
)
def test_mean_and_std_are_for_fractions(folder, described, mean, std):
    describe(folder, "SegformerImageProcessor", **described)
    model = load_model(folder)
    assert model.mean == pytest.approx(mean)
    assert model.std == pytest.approx(std)


def test_a_network_of_bgr_images_takes_rgb_and_keeps_its_layers(folder, network):
    describe(folder, "MobileViTImageProcessor")
    model, image = load_model(folder), FRACTIONS[None]
    names = [name for name, _ in network.named_modules()]
    assert [name for name, _ in model.network.named_modules()] == names
    found = misure.explain(model, image, 1, "seg_grad_cam", layer="decode_head.classifier", precision="32")
    own = misure.explain(
        lambda rgb: network(rgb.flip(1)).logits, image, 1, "rise", n_masks=4, grid=3, precision="32", seed=1
    )
    same = misure.explain(model, image, 1, "rise", n_masks=4, grid=3, precision="32", seed=1)
    assert found[0].saliency.shape == (64, 64)
    torch.testing.assert_close(same[0].saliency, own[0].saliency, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("processor", "described", "step"),
    [
        ("SegformerImageProcessor", {"do_thumbnail": True}, "do_thumbnail"),
        ("SegformerImageProcessor", {"do_invert": True}, "do_invert"),
        ("ViTImageProcessor", {"do_align_long_axis": True}, "do_align_long_axis"),
        (
            "VivitImageProcessor",
            {},
            r"makes \(3, 3, 32, 32\) of an image|makes \(1, 3, 32, 32\) of an image",
        ),  # a video
        ("SegformerImageProcessor", {"image_mean": [0.5, 0.5]}, "cannot be read|do_normalize"),
        ("SegformerImageProcessor", {"image_mean": None, "image_std": "half"}, "cannot be read|do_normalize"),
        ("NobodysImageProcessor", {}, "NobodysImageProcessor|cannot be read"),
    ],
)
def test_what_is_not_understood_is_named(folder, processor, described, step):
    describe(folder, processor, **described)
    with pytest.raises(MisureError, match=step) as caught:
        load_model(folder)
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "[" * 100_000])
def test_a_damaged_description_is_one_line(folder, text):
    (folder / "preprocessor_config.json").write_text(text)
    with pytest.raises(MisureError, match="cannot be read") as caught:
        load_model(folder)
    assert "\n" not in str(caught.value)


def test_the_description_may_be_within_that_of_a_processor(folder, network):
    described = {"image_processor_type": "SegformerImageProcessor", "image_mean": [0.1, 0.2, 0.3]}
    (folder / "processor_config.json").write_text(json.dumps({"image_processor": described}))
    assert load_model(folder).mean == (0.1, 0.2, 0.3)


@pytest.mark.parametrize("described", [None, {"do_thumbnail": True}, {"image_mean": [0.5, 0.5]}])
def test_who_gives_mean_and_std_needs_no_description(folder, described):
    if described:
        describe(folder, "SegformerImageProcessor", **described)
    model = load_model(folder, mean=[0.1], std=[0.2])
    assert (model.mean, model.std) == ((0.1,), (0.2,))


def test_a_folder_that_does_not_say_how_images_are_prepared_is_warned_of(folder):
    with pytest.warns(UserWarning, match="does not say how images are prepared: give mean and std"):
        assert load_model(folder).mean == (0.0,)


@pytest.mark.parametrize(
    ("config", "names"),
    [
        ({"id2label": {"0": "sky", "1": "sea"}}, ("sky", "sea")),
        ({"id2label": {0: "sky", 2: "sand"}}, ("sky", "class_1")),  # two logits
        ({"num_labels": 3}, ("LABEL_0", "LABEL_1", "LABEL_2")),
        ({"id2label": {0: "ship"}}, ("background", "ship")),
    ],
)
def test_names_of_classes(tmp_path, config, names):
    segformer(**config).save_pretrained(tmp_path)
    describe(tmp_path, "SegformerImageProcessor")
    model = load_model(tmp_path)
    assert model.class_names == names
    with torch.no_grad():
        assert model(torch.rand(1, 3, 64, 64)).shape == (1, len(names), 64, 64)


def families():
    wide = {
        "hidden_size": 16,
        "num_hidden_layers": 4,
        "num_attention_heads": 2,
        "intermediate_size": 16,
        "image_size": 64,
    }
    backbone = transformers.ConvNextConfig(hidden_sizes=[8] * 4, depths=[1] * 4, out_features=["stage1", "stage4"])
    yield (
        "BeitImageProcessor",
        transformers.BeitForSemanticSegmentation,
        transformers.BeitConfig(**wide, out_indices=[1, 2, 3, 4], use_auxiliary_head=False),
    )
    yield (
        "DPTImageProcessor",
        transformers.DPTForSemanticSegmentation,
        transformers.DPTConfig(
            **wide,
            backbone_out_indices=[0, 1, 2, 3],
            neck_hidden_sizes=[8] * 4,
            fusion_hidden_size=8,
            use_auxiliary_head=False,
        ),
    )
    yield (
        "SegformerImageProcessor",
        transformers.UperNetForSemanticSegmentation,
        transformers.UperNetConfig(backbone_config=backbone, hidden_size=8, use_auxiliary_head=False, pool_scales=[1]),
    )
    yield "MobileNetV2ImageProcessor", transformers.MobileNetV2ForSemanticSegmentation, transformers.MobileNetV2Config()


@pytest.mark.parametrize(
    ("processor", "kind", "config"), list(families()), ids=lambda value: getattr(value, "__name__", None)
)
def test_families_of_networks(tmp_path, processor, kind, config):
    torch.manual_seed(0)
    network = kind(config).eval()
    network.save_pretrained(tmp_path)
    describe(tmp_path, processor)
    model = load_model(tmp_path)
    assert model.in_channels == 3
    assert spread_apart(model, network, prepared(tmp_path)) < 1e-2


@pytest.mark.parametrize("kind", ["Mask2FormerConfig", "OneFormerConfig", "DetrConfig", "SamConfig", "ViTConfig"])
def test_networks_without_logits_by_pixel_are_refused_by_name(network, tmp_path, kind):
    network.save_pretrained(tmp_path)
    config = getattr(transformers, kind)()
    config.save_pretrained(tmp_path)
    with pytest.raises(MisureError, match=rf"of type {config.model_type}, which gives no logits by pixel"):
        load_model(tmp_path)
