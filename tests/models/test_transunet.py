"""TransUNet: shapes stage by stage, parameters, gradients, checkpoints, explanations and where weights come from."""

from __future__ import annotations

import copy
from types import SimpleNamespace

import pytest
import timm
import torch
from torch.nn.functional import conv2d, interpolate, pad

from misure.errors import MisureError
from misure.models.checkpoint import CheckpointInfo, load_checkpoint, save_checkpoint
from misure.models.transunet import Decoder, TokenMap, build_transunet

SMALL = {"image_size": 64, "depth": 1, "width": 64, "pretrained": None}


@pytest.fixture(autouse=True)
def _seed(network):
    torch.manual_seed(6)


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(5)
    built = build_transunet(1, 3, **SMALL)
    with torch.no_grad():
        built(torch.rand(2, 1, 64, 64))  # moves the statistics of batch normalisation
    return built.eval()


@pytest.fixture(scope="module")
def double(network):
    """The same network in float64, for comparisons up to rounding."""
    return copy.deepcopy(network).double()


@pytest.fixture(scope="module")
def full_size():
    with torch.device("meta"):
        return build_transunet(1, 9, pretrained=None).eval()


def shapes_of(network, images, names) -> dict[str, tuple[int, ...]]:
    shapes = {}

    def note(name):
        return lambda _module, _inputs, output: shapes.update({name: tuple(output.shape)})

    handles = [network.get_submodule(name).register_forward_hook(note(name)) for name in names]
    shapes["logits"] = tuple(network(images).shape)
    for handle in handles:
        handle.remove()
    return shapes


def test_the_shapes_of_every_stage_at_full_size(full_size):
    expected = {
        "encoder.patch_embed.backbone.stem.norm": (2, 64, 112, 112),
        "encoder.patch_embed.backbone.stem.pool": (2, 64, 56, 56),
        "encoder.patch_embed.backbone.stages.0": (2, 256, 56, 56),
        "encoder.patch_embed.backbone.stages.1": (2, 512, 28, 28),
        "encoder.patch_embed.backbone.stages.2": (2, 1024, 14, 14),
        "encoder.patch_embed.proj": (2, 768, 14, 14),
        "encoder.blocks.0": (2, 197, 768),
        "encoder.blocks.11": (2, 197, 768),
        "encoder.norm": (2, 197, 768),
        "tokens": (2, 768, 14, 14),
        "decoder.conv_more": (2, 512, 14, 14),
        "decoder.blocks.0": (2, 256, 28, 28),
        "decoder.blocks.1": (2, 128, 56, 56),
        "decoder.blocks.2": (2, 64, 112, 112),
        "decoder.blocks.3": (2, 16, 224, 224),
        "logits": (2, 9, 224, 224),
    }
    assert shapes_of(full_size, torch.zeros(2, 1, 224, 224, device="meta"), expected.keys() - {"logits"}) == expected


def test_the_parameter_count(full_size):
    """About 105 M; the encoder's are checked against Google's arrays, the decoder's by their shapes above."""
    assert sum(parameter.numel() for parameter in full_size.parameters()) == 105_278_617


@pytest.mark.parametrize("size", [(64, 64), (96, 64), (32, 48), (70, 51), (7, 5)])
def test_images_of_any_size(network, size):
    grid = tuple(-(-side // 16) for side in size)
    with torch.no_grad():
        shapes = shapes_of(network, torch.rand(2, 1, *size), ["tokens", "decoder.blocks.3"])
    assert shapes == {"tokens": (2, 64, *grid), "decoder.blocks.3": (2, 16, *size), "logits": (2, 3, *size)}


def test_position_embeddings_are_interpolated_for_other_sizes(network):
    seen = []
    handle = network.encoder.pos_drop.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    projected = []
    other = network.encoder.patch_embed.proj.register_forward_hook(lambda _m, _i, output: projected.append(output))
    with torch.no_grad():
        network(torch.rand(1, 1, 96, 32))
    handle.remove()
    other.remove()
    old = network.encoder.pos_embed
    grid = old[:, 1:].transpose(1, 2).reshape(1, 64, 4, 4)
    resized = interpolate(grid, (6, 2), mode="bilinear", align_corners=False)
    torch.testing.assert_close(seen[0][:, :1], network.encoder.cls_token + old[:, :1])
    torch.testing.assert_close(seen[0][:, 1:], (projected[0] + resized).flatten(2).transpose(1, 2))


def test_the_transformer_is_timms(network):
    """The encoder's own forward pass, which is not used, gives the same tokens."""
    images = torch.rand(2, 1, 64, 64)
    tokens = []
    handle = network.encoder.norm.register_forward_hook(lambda _module, _inputs, output: tokens.append(output))
    with torch.no_grad():
        network(images)
        expected = network.encoder.forward_features(images.repeat(1, 3, 1, 1))
    handle.remove()
    torch.testing.assert_close(tokens[0], expected)


def test_other_channels_than_announced_are_refused(network):
    with pytest.raises(MisureError, match="takes 1-channel images"):
        network(torch.rand(1, 3, 64, 64))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"in_channels": 0}, "in_channels=0"),
        ({"classes": 0}, "classes=0"),
        ({"image_size": 0}, "image_size=0"),
        ({"depth": 0}, "depth=0"),
        ({"width": 32}, "width=0"),
        ({"width": 100}, "width=100 is not a multiple of 64"),
        ({"skips": 4}, "skips=4"),
        ({"pretrained": "imagenet12k"}, "no weights 'imagenet12k'; close names: imagenet21k"),
        ({"pretrained": "imagenet21k"}, "depth=12 and width=768 only"),
        ({"pretrained": "missing.npz"}, "there is no weights file missing.npz"),
    ],
)
def test_wrong_arguments_get_one_line(options, message):
    with pytest.raises(MisureError, match=message) as caught:
        build_transunet(**{"in_channels": 1, "classes": 2, **SMALL, **options})
    assert "\n" not in str(caught.value)


def test_checkpoint_round_trip(network, tmp_path):
    arguments = {"in_channels": 1, "classes": 3, **SMALL, "pretrained": "imagenet21k"}
    recipe = {"_target_": "misure.models.transunet.build_transunet", **arguments}
    info = CheckpointInfo("synapse", recipe, "tokens", ("background", "a", "b"), 1, {}, {}, {}, {})
    save_checkpoint(tmp_path / "small.safetensors", network, info)
    model = load_checkpoint(tmp_path / "small.safetensors")  # asks for no pre-trained weights: warnings are errors
    images = torch.rand(2, 1, 48, 80)
    with torch.no_grad():
        assert torch.equal(model(images), network(images))
    assert model.layer().__class__ is TokenMap
    (tmp_path / "small.safetensors").unlink()  # 60 MB


@pytest.mark.parametrize("skips", [0, 1, 2, 3])
def test_fewer_skips(skips):
    decoder = Decoder(64, [512, 256, 64][:skips])
    maps = [torch.rand(2, channels, side, side) for channels, side in [(512, 8), (256, 16), (64, 32)]]
    assert decoder(torch.rand(2, 64, 4, 4), maps, (64, 64)).shape == (2, 16, 64, 64)
    used = [block.conv1[0].in_channels for block in decoder.blocks]
    assert [a - b for a, b in zip(used, [512, 256, 128, 64], strict=True)] == [512, 256, 64][:skips] + [0] * (4 - skips)


@pytest.mark.parametrize("channels", [2, 4])
def test_other_channels_and_gradients(channels):
    built = build_transunet(channels, 2, **SMALL, skips=1)
    assert built.encoder.patch_embed.backbone.stem.conv.in_channels == channels
    image = torch.rand(2, channels, 64, 64, requires_grad=True)
    built(image)[:, 1].square().mean().backward()
    assert (image.grad != 0).double().mean() > 0.99  # every pixel has a path to the logits
    assert not [name for name, p in built.named_parameters() if p.grad is None]


def test_one_channel_is_repeated(double):
    """The stem convolves the image with the sum of its standardised kernels."""
    images = torch.rand(1, 1, 32, 32, dtype=torch.float64)
    stem, outputs = double.encoder.patch_embed.backbone.stem.conv, []
    handle = stem.register_forward_hook(lambda _module, _inputs, output: outputs.append(output))
    with torch.no_grad():
        double(images)
    handle.remove()
    flat = stem.weight.flatten(1)
    kernels = (flat - flat.mean(1, keepdim=True)) / (flat.var(1, unbiased=False, keepdim=True) + stem.eps).sqrt()
    summed = kernels.view_as(stem.weight).sum(1, keepdim=True)
    padded = pad(images, (2, 3, 2, 3))  # TensorFlow's SAME: 7 x 7 at stride 2 needs 5, the odd one at the end
    torch.testing.assert_close(outputs[0], conv2d(padded, summed, stride=2))


def test_batches_do_not_mix(double):
    images = torch.rand(3, 1, 32, 32, dtype=torch.float64)
    with torch.no_grad():
        one_by_one = torch.cat([double(image[None]) for image in images])
        torch.testing.assert_close(double(images), one_by_one, rtol=0, atol=1e-10)  # float64 sums in another order


def test_the_encoder_is_asked_for_with_timms_name_of_the_weights(monkeypatch):
    asked = []

    def create(name, pretrained=False, **options):
        asked.append((name, pretrained))
        return SimpleNamespace(num_prefix_tokens=1, embed_dim=options["embed_dim"])

    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_args, **_kwargs: "/cache/model.safetensors")
    monkeypatch.setattr("timm.create_model", create)
    assert build_transunet(1, 2).initial_weights == "imagenet21k"
    assert asked == [("vit_base_r50_s16_224.orig_in21k", True)]
    assert "vit_base_r50_s16_224.orig_in21k" in timm.list_pretrained("vit_base_r50_s16_224*")


def test_without_the_hub_the_encoder_starts_randomly(monkeypatch):
    monkeypatch.setattr("misure.models.pretrained.is_reachable", lambda _url: False)
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_args, **_kwargs: None)
    with pytest.warns(UserWarning, match="not imagenet21k") as caught, torch.device("meta"):
        assert build_transunet(1, 2).initial_weights == "random"
    assert [warning.filename for warning in caught] == [__file__]
