"""Layers: listed with what they give, found by a pattern, and the end of the encoder of real architectures."""

from __future__ import annotations

import pytest
import segmentation_models_pytorch as smp
import torch
from models.test_lending import snapshot
from models.test_loading import small_segformer
from oracles.toys import Convolutional, Tokens
from torch import nn
from torchvision.models import segmentation

import misure
from misure import MisureError, SegmentationModel
from misure.models.layers import Layer, find_layer, image_axes, suggest

IMAGE = torch.rand(3, 64, 96, generator=torch.Generator().manual_seed(3))


class Repeating(nn.Module):
    """A layer that runs twice, one that gives a tuple, one that gives a dict, one that never runs."""

    def __init__(self) -> None:
        super().__init__()
        self.twice = nn.AvgPool2d(2)
        self.pair = nn.Sequential()
        self.never = nn.Conv2d(3, 3, 1)
        self.pair.forward = lambda x: (x, "beside")
        self.named = nn.Sequential()
        self.named.forward = lambda x: {"out": x}

    def forward(self, images):
        return self.named(self.pair(self.twice(self.twice(images)))[0])


def test_layers_are_listed_in_forward_order_with_their_shapes():
    listed = SegmentationModel(Convolutional(3)).layers(torch.rand(3, 16, 24))
    assert listed == [
        Layer("features.0", "Conv2d", (1, 6, 16, 24)),
        Layer("features.1", "BatchNorm2d", (1, 6, 16, 24)),
        Layer("features.2", "ReLU", (1, 6, 16, 24)),
        Layer("features.3", "Dropout", (1, 6, 16, 24)),
        Layer("features", "Sequential", (1, 6, 16, 24)),
        Layer("bottleneck", "Conv2d", (1, 5, 4, 6)),
        Layer("head", "Conv2d", (1, 3, 16, 24)),
    ]
    assert str(listed[5]) == "bottleneck  Conv2d  1 x 5 x 4 x 6"


def test_layers_that_run_twice_or_give_no_tensor():
    listed = SegmentationModel(Repeating()).layers(torch.rand(3, 16, 24))
    assert listed == [
        Layer("twice", "AvgPool2d", (1, 3, 4, 6), 2),
        Layer("pair", "Sequential", (1, 3, 4, 6)),
    ]
    assert str(listed[0]).endswith("(2 times)")


def test_listing_leaves_the_network_as_it_was():
    toy = Convolutional(3).train()
    before = snapshot(toy)
    SegmentationModel(toy).layers(IMAGE)
    assert snapshot(toy) == before


@pytest.mark.parametrize(
    ("pattern", "found"),
    [("bott*", "bottleneck"), ("*.2", "features.2"), ("feat*", "features"), ("features.[1]", "features.1")],
)
def test_a_pattern_means_the_outermost_layer_it_fits(pattern, found):
    toy = Convolutional()
    assert find_layer(toy, pattern) is toy.get_submodule(found)
    assert SegmentationModel(toy, bottleneck=pattern).layer() is toy.get_submodule(found)


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("features.*", r"'features\.\*' could be any of 4: features\.0, features\.1, features\.2, features\.3; name"),
        ("*e*", r"could be any of 3: features, bottleneck, head; name one"),
        ("botleneck*", r"no layer 'botleneck\*'; close names: bottleneck"),
    ],
)
def test_patterns_that_mean_no_single_layer_are_refused(pattern, message):
    with pytest.raises(MisureError, match=message):
        find_layer(Convolutional(), pattern)


def described(*rows: tuple) -> list[Layer]:
    return [Layer(name, "Conv2d", (1, *shape)) for name, *shape in rows]


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([("encoder.a", 4, 8, 8), ("encoder.b", 8, 2, 2), ("decoder.a", 4, 8, 8)], "encoder.b"),
        ([("down1", 4, 8, 8), ("pool", 4, 2, 2), ("lowest", 8, 2, 2), ("up", 4, 8, 8)], "lowest"),
        ([("backbone.a", 4, 4, 4), ("backbone.b", 16, 4, 4), ("head.a", 8, 4, 4), ("head", 2, 4, 4)], "backbone.b"),
        ([("body.a", 4, 4, 4), ("squeeze", 4, 1, 1), ("head", 2, 4, 4)], "body.a"),  # one pixel is no place
        ([("net.net.a", 4, 8, 8), ("net.net.b", 4, 2, 2), ("net.net.c", 2, 8, 8)], "net.net.b"),
        ([("tokens", 4, 9), ("last", 2, 4, 99), ("map", 2, 8, 8)], "map"),  # tokens, and channels last
        ([("low", 8, 2, 2), ("up", 4, 8, 8), ("again", 9, 2, 2)], "low"),  # the first descent is the encoder
        ([("only", 4, 3, 3)], "only"),
        ([("tokens", 4, 9)], None),
    ],
)
def test_the_rule_for_the_end_of_the_encoder(rows, expected):
    assert suggest(described(*rows), (16, 16)) == expected


def test_context_copies_and_repetitions_are_not_suggested():
    layers = [
        Layer("body.conv", "Conv2d", (1, 8, 8, 8)),
        Layer("body.drop", "Dropout2d", (1, 8, 8, 8)),
        Layer("body.pool", "MaxPool2d", (1, 8, 4, 4), 3),
        Layer("pyramid.pool", "AdaptiveAvgPool2d", (1, 8, 2, 2)),
        Layer("pyramid.conv", "Conv2d", (1, 8, 2, 2)),
    ]
    assert suggest(layers, (16, 16)) == "body.conv"


def monai(name: str, **parameters):
    pytest.importorskip("monai", reason="needs monai")
    from monai.networks import nets

    return getattr(nets, name)(spatial_dims=2, in_channels=3, out_channels=3, **parameters)


def swin():
    pytest.importorskip("einops", reason="MONAI's SwinUNETR needs einops")
    return monai("SwinUNETR", feature_size=12, depths=(1,) * 4, num_heads=(1,) * 4)


SMP = {"encoder_name": "resnet18", "encoder_weights": None, "classes": 3}
NOTHING = {"weights": None, "weights_backbone": None, "num_classes": 3}
ARCHITECTURES = {
    "smp U-Net": (lambda: smp.Unet(**SMP), "encoder.layer4", (512, 2, 3)),
    "smp DeepLabV3": (lambda: smp.DeepLabV3(**SMP), "encoder.layer4", (512, 8, 12)),
    "torchvision": (lambda: segmentation.lraspp_mobilenet_v3_large(**NOTHING), "backbone.16", (960, 4, 6)),
    "SegFormer": (small_segformer, "segformer.stages.3", (16, 2, 3)),
    # the lowest block beside its skip connection
    "MONAI U-Net": (lambda: monai("UNet", channels=(4, 8, 16), strides=(2, 2)), "model.1.submodule.1", (24, 16, 24)),
    "MONAI SwinUNETR": (swin, "swinViT.layers4.0", (192, 2, 3)),
    "tokens": (lambda: Tokens(3), "embed", (7, 17, 25)),
}


def normal(network: nn.Module) -> nn.Module:
    """Let random weights of a deep network predict more than one class: the last layer's logits are centred."""
    last = [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d | nn.Linear)][-1]
    nn.init.normal_(last.weight, std=1.0)
    return network.eval()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_real_architectures_work_as_they_are(architecture):
    """Logits are the network's own, upsampled; the suggested layer exists and Seg-Grad-CAM works there."""
    build, name, shape = ARCHITECTURES[architecture]
    torch.manual_seed(0)
    network = normal(build())
    model = SegmentationModel(network)
    with torch.no_grad():
        output = network(IMAGE[None])
        logits = output if isinstance(output, torch.Tensor) else output["logits" if "logits" in output else "out"]
        logits = nn.functional.interpolate(logits, size=(64, 96), mode="bilinear", align_corners=False)
        torch.testing.assert_close(model(IMAGE[None]), logits, rtol=1e-5, atol=1e-5)  # float32
    assert model.suggest_bottleneck(IMAGE) == name
    assert [layer.shape for layer in model.layers(IMAGE, name)] == [(1, *shape)]
    target = int(logits.argmax(1).flatten().mode().values)
    cam = misure.explain(model, IMAGE, target, "seg_grad_cam", layer=name, precision="32")
    assert cam.saliency.shape == (64, 96)
    assert cam.saliency.isfinite().all()


def test_volumes_have_layers_too():
    network = nn.Sequential(nn.Conv3d(1, 2, 3, 2, 1), nn.Conv3d(2, 4, 3, 2, 1), nn.Upsample(scale_factor=4))
    model = SegmentationModel(network)
    assert model.suggest_bottleneck(torch.rand(1, 8, 8, 12)) == "1"
    assert model.layers(torch.rand(1, 8, 8, 12), "1") == [Layer("1", "Conv3d", (1, 4, 2, 2, 3))]


def test_a_network_without_feature_maps_says_so():
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 16), nn.Unflatten(1, (1, 16)))
    model = SegmentationModel(lambda x: x)
    with pytest.raises(MisureError, match="<lambda> is a plain callable"):
        model.layers(IMAGE)
    with pytest.raises(MisureError, match=r"no layer of Sequential gives feature maps: .*reshape="):
        SegmentationModel(nn.Sequential(*network, Square())).suggest_bottleneck(torch.rand(1, 4, 4))


class Square(nn.Sequential):
    """Puts the sixteen values back on the image, as a list, which is no feature map."""

    def forward(self, values):
        return [values.view(-1, 1, 4, 4)]


@pytest.mark.filterwarnings("ignore:.*torch.jit")
@pytest.mark.parametrize("n_axes", [2, 3])
def test_the_axes_of_images_are_known_of_every_kind_of_network(n_axes):
    """A volume read as one image, its slices as channels or classes, would be explained without a word."""
    convolution = {2: nn.Conv2d, 3: nn.Conv3d}[n_axes]
    network = nn.Sequential(nn.Identity(), convolution(1, 4, 3, padding=1), nn.ReLU(), convolution(4, 1, 1)).eval()
    nn.init.constant_(network[3].bias, 9.0)  # class 1 everywhere
    image = torch.rand(1, *(6, 8, 10)[-n_axes:])
    scripted = torch.jit.script(network)
    kinds = {
        "module": network,
        "scripted": scripted,
        "traced": torch.jit.trace(network, image[None]),
        "frozen": torch.jit.freeze(scripted),
        "exported": torch.export.unflatten(torch.export.export(network, (image[None],))),
    }
    assert {name: image_axes([kind]) for name, kind in kinds.items()} == dict.fromkeys(kinds, n_axes)
    assert image_axes([nn.Linear(2, 3)]) is image_axes([]) is None
    model = SegmentationModel(kinds["frozen"], output="logits")
    assert misure.explain(model, image, 1, "prediction").saliency.shape == image.shape[1:]
