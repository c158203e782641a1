"""Google's weights file: a complete mapping both ways, checked on generated files; damaged ones are refused."""

from __future__ import annotations

import re

import numpy as np
import pytest
import timm
import torch
from torch.nn.functional import interpolate

from misure.errors import MisureError
from misure.models.transunet import build_transunet
from misure.models.transunet_weights import google_names, load_google_weights

WIDTH, DEPTH = 64, 2
SMALL = {"num_classes": 0, "depth": DEPTH, "embed_dim": WIDTH, "num_heads": 2, "img_size": 64}


def google_shapes(depth: int, width: int, heads: int, grid: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the file, written from Google's description of the network, not from timm's."""
    shapes = {"conv_root/kernel": (7, 7, 3, 64), "embedding/kernel": (1, 1, 1024, width), "embedding/bias": (width,)}
    shapes |= {f"gn_root/{leaf}": (1, 1, 1, 64) for leaf in ("scale", "bias")}
    inputs = 64
    for block, (units, inner) in enumerate([(3, 64), (4, 128), (9, 256)], start=1):
        for unit in range(1, units + 1):
            here = f"block{block}/unit{unit}"
            kernels = {"1": (1, 1, inputs, inner), "2": (3, 3, inner, inner), "3": (1, 1, inner, 4 * inner)}
            if unit == 1:
                kernels["_proj"] = (1, 1, inputs, 4 * inner)
            for name, kernel in kernels.items():
                shapes[f"{here}/conv{name}/kernel"] = kernel
                shapes |= {f"{here}/gn{name}/{leaf}": (1, 1, 1, kernel[-1]) for leaf in ("scale", "bias")}
            inputs = 4 * inner
    shapes |= {"cls": (1, 1, width), "Transformer/posembed_input/pos_embedding": (1, 1 + grid**2, width)}
    norms = ["Transformer/encoder_norm"]
    for layer in range(depth):
        here = f"Transformer/encoderblock_{layer}"
        attention = f"{here}/MultiHeadDotProductAttention_1"
        for part in ("query", "key", "value"):
            shapes[f"{attention}/{part}/kernel"] = (width, heads, width // heads)
            shapes[f"{attention}/{part}/bias"] = (heads, width // heads)
        shapes |= {f"{attention}/out/kernel": (heads, width // heads, width), f"{attention}/out/bias": (width,)}
        for name, (inputs, outputs) in {"0": (width, 4 * width), "1": (4 * width, width)}.items():
            shapes[f"{here}/MlpBlock_3/Dense_{name}/kernel"] = (inputs, outputs)
            shapes[f"{here}/MlpBlock_3/Dense_{name}/bias"] = (outputs,)
        norms += [f"{here}/LayerNorm_0", f"{here}/LayerNorm_2"]
    return shapes | {f"{name}/{leaf}": (width,) for name in norms for leaf in ("scale", "bias")}


@pytest.fixture(scope="module")
def arrays() -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    shapes = google_shapes(DEPTH, WIDTH, heads=2, grid=4)
    shapes |= {
        "head/kernel": (WIDTH, 5),
        "head/bias": (5,),
        "pre_logits/kernel": (WIDTH, WIDTH),
        "pre_logits/bias": (WIDTH,),
    }
    return {name: generator.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


@pytest.fixture(scope="module")
def encoder():
    """Filled again by every test that loads into it."""
    return timm.create_model("vit_base_r50_s16_224", **SMALL)


@pytest.fixture
def make_file(tmp_path):
    path = tmp_path / "google.npz"

    def make(arrays) -> str:
        np.savez(path, **arrays)
        return str(path)

    yield make
    path.unlink()  # 36 MB each


def expected_parameter(name: str, arrays) -> np.ndarray:
    """A parameter of timm's encoder, made from Google's arrays by hand."""
    if name == "pos_embed":
        return arrays["Transformer/posembed_input/pos_embedding"]
    if name == "cls_token":
        return arrays["cls"]
    name = name.replace("patch_embed.backbone.stem.conv", "conv_root").replace(
        "patch_embed.backbone.stem.norm", "gn_root"
    )
    name = name.replace("patch_embed.proj", "embedding").replace("downsample.conv", "conv_proj")
    name = name.replace("downsample.norm", "gn_proj")
    name = re.sub(
        r"patch_embed.backbone.stages.(\d).blocks.(\d).", lambda m: f"block{int(m[1]) + 1}/unit{int(m[2]) + 1}/", name
    )
    if name.startswith("block") and "/norm" in name:
        name = name.replace("/norm", "/gn")
    name = re.sub(r"^norm", "Transformer/encoder_norm", name)
    name = re.sub(r"^blocks.(\d+).", r"Transformer/encoderblock_\1/", name)
    name = name.replace("norm1.", "LayerNorm_0.").replace("norm2.", "LayerNorm_2.")
    name = name.replace("fc1", "MlpBlock_3/Dense_0").replace("mlp.", "").replace("fc2", "MlpBlock_3/Dense_1")
    is_norm = "LayerNorm" in name or "gn" in name or "encoder_norm" in name
    name = name.replace(".weight", "/scale" if is_norm else "/kernel").replace(".bias", "/bias")
    if "attn.qkv" in name:
        parts = [
            arrays[name.replace("attn.qkv", f"MultiHeadDotProductAttention_1/{p}")] for p in ("query", "key", "value")
        ]
        return np.concatenate([p.reshape(WIDTH, WIDTH).T if p.ndim == 3 else p.reshape(-1) for p in parts])
    array = arrays[name.replace("attn.proj", "MultiHeadDotProductAttention_1/out")]
    if array.ndim == 4 and array.shape[:3] != (1, 1, 1):
        return np.transpose(array, (3, 2, 0, 1))
    if array.ndim in (2, 3):
        return array.reshape(-1, array.shape[-1]).T
    return array.reshape(-1)


def test_every_parameter_gets_its_arrays(arrays, make_file, encoder):
    load_google_weights(encoder, make_file(arrays))
    for name, parameter in encoder.named_parameters():
        expected = torch.from_numpy(np.ascontiguousarray(expected_parameter(name, arrays)))
        assert torch.equal(parameter, expected), name


def test_the_full_size_mapping_is_complete_both_ways():
    with torch.device("meta"):
        encoder = timm.create_model("vit_base_r50_s16_224", num_classes=0)
    names = google_names(encoder)
    shapes = google_shapes(12, 768, heads=12, grid=14)
    assert list(names) == list(dict.fromkeys(names))
    assert set(names) == {name for name, _ in encoder.named_parameters()}
    used = [array for arrays in names.values() for array in arrays]
    assert len(used) == len(set(used))
    assert set(used) == set(shapes)
    for parameter, tensor in encoder.named_parameters():
        assert sum(np.prod(shapes[array]) for array in names[parameter]) == tensor.numel()


def test_an_encoder_with_more_parameters_is_refused():
    with torch.device("meta"):
        encoder = timm.create_model("vit_base_r50_s16_224", **{**SMALL, "num_classes": 3})
    with pytest.raises(MisureError, match=r"nothing for head\.weight, head\.bias"):
        google_names(encoder)


def test_position_embeddings_are_resized_bilinearly(arrays, make_file):
    network = build_transunet(1, 2, image_size=96, pretrained=make_file(arrays), depth=DEPTH, width=WIDTH)
    old = torch.from_numpy(arrays["Transformer/posembed_input/pos_embedding"])
    grid = old[:, 1:].transpose(1, 2).reshape(1, WIDTH, 4, 4)
    resized = interpolate(grid, (6, 6), mode="bilinear", align_corners=False).flatten(2).transpose(1, 2)
    assert torch.equal(network.encoder.pos_embed[:, :1], old[:, :1])
    torch.testing.assert_close(network.encoder.pos_embed[:, 1:], resized)


def test_another_number_of_channels_repeats_the_stem(arrays, make_file):
    network = build_transunet(4, 2, image_size=64, pretrained=make_file(arrays), depth=DEPTH, width=WIDTH)
    kernel = torch.from_numpy(arrays["conv_root/kernel"]).permute(3, 2, 0, 1)
    torch.testing.assert_close(network.encoder.patch_embed.backbone.stem.conv.weight, kernel[:, [0, 1, 2, 0]] * 3 / 4)


BLOCK_1 = [name for name in google_shapes(DEPTH, WIDTH, heads=2, grid=4) if "encoderblock_1" in name]
KERNEL = "block1/unit1/conv1/kernel"
POSITIONS = "Transformer/posembed_input/pos_embedding"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cls": None}, "lacks cls: "),
        ({"block2/unit1/gn_proj/scale": None}, "lacks block2/unit1/gn_proj/scale"),
        (dict.fromkeys(BLOCK_1), r"lacks .*encoderblock_1.* and 13 more"),
        ({"extra": np.zeros(3)}, "has extra, which"),
        ({KERNEL: np.zeros(1)}, "conv1/kernel has 1 numbers where .* 4096"),
        ({"embedding/bias": np.full(WIDTH, np.nan)}, r"no finite numbers for patch_embed\.proj\.bias"),
        ({KERNEL: np.zeros((64, 64, 1, 2))[..., :1]}, "does not fit the encoder"),
        ({POSITIONS: np.zeros((1, 12, WIDTH))}, "pos_embedding has"),
        ({"cls": np.array([None] * WIDTH)}, r"no whole \.npz archive"),
    ],
)
def test_files_of_another_network_are_refused(arrays, make_file, encoder, changes, message):
    changed = {name: array for name, array in {**arrays, **changes}.items() if array is not None}
    with pytest.raises(MisureError, match=message) as caught:
        load_google_weights(encoder, make_file(changed))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("damage", [lambda b: b[:-1], lambda _: b"", lambda b: b[:200] + bytes(64) + b[264:]])
def test_damaged_files_are_refused(make_file, encoder, damage, tmp_path):
    path = make_file({"cls": np.ones((1, 1, WIDTH)), "embedding/bias": np.ones(WIDTH)})
    content = (tmp_path / "google.npz").read_bytes()
    (tmp_path / "google.npz").write_bytes(damage(content))
    with pytest.raises(MisureError, match=r"google\.npz cannot be read .*no whole \.npz archive"):
        load_google_weights(encoder, path)


def test_other_files_are_refused(encoder, tmp_path):
    with pytest.raises(MisureError, match="there is no weights file"):
        load_google_weights(encoder, tmp_path / "missing.npz")
    np.save(tmp_path / "array.npy", np.zeros(3))
    with pytest.raises(MisureError, match=r"no whole \.npz archive"):
        load_google_weights(encoder, tmp_path / "array.npy")
