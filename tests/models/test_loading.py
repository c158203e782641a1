"""Networks from files: each gives the original network's logits, and explanations like it."""

from __future__ import annotations

import json
import pickle
import warnings

import pytest
import torch
from oracles.toys import Convolutional
from torch import nn

import misure
from misure.errors import MisureError
from misure.models.checkpoint import CheckpointInfo, save_checkpoint
from misure.models.loading import load_model
from misure.models.onnx import in_pieces
from misure.models.unet import build_unet

IMAGES = torch.rand(3, 3, 16, 24, generator=torch.Generator().manual_seed(5))
ROUNDING = 1e-5  # float32 sums in another order


@pytest.fixture(scope="module")
def network() -> nn.Module:
    return Convolutional(channels=3, seed=2).eval()


def dynamic() -> dict:
    return {0: torch.export.Dim.DYNAMIC, 2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC}


@pytest.fixture(scope="module")
def files(network, tmp_path_factory):
    """The same network in every kind of file; ``fixed`` ones take one image of 16 x 24."""
    folder = tmp_path_factory.mktemp("networks")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r".*torch\.jit")
        script = torch.jit.trace(network, IMAGES)
        script.save(folder / "net.pt")
        torch.jit.freeze(script).save(folder / "frozen.pt")
    torch.export.save(torch.export.export(network, (IMAGES[:1],)), folder / "fixed.pt2")
    torch.export.save(torch.export.export(network, (IMAGES[:2],)), folder / "two.pt2")
    torch.export.save(torch.export.export(network, (IMAGES,), dynamic_shapes=(dynamic(),)), folder / "any.pt2")
    return folder


@pytest.fixture(scope="module")
def onnx_files(network, files):
    pytest.importorskip("onnxruntime", reason="needs onnxruntime")
    pytest.importorskip("onnxscript", reason="writing ONNX files needs onnxscript")
    onnx = pytest.importorskip("onnx", reason="writing ONNX files needs onnx")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own
        torch.onnx.export(
            network,
            (IMAGES,),
            files / "any.onnx",
            dynamo=True,
            external_data=False,
            verbose=False,
            optimize=False,
            output_names=["logits"],
            dynamic_shapes=(dynamic(),),
        )
    described = onnx.load(files / "any.onnx")
    for side, size in zip(described.graph.input[0].type.tensor_type.shape.dim, (1, 3, 16, 24), strict=True):
        side.dim_value = size
    onnx.save(described, files / "fixed.onnx")
    return files


def same_logits(model: misure.SegmentationModel, network: nn.Module, images: torch.Tensor = IMAGES) -> None:
    with torch.no_grad():
        torch.testing.assert_close(model(images), network(images), rtol=0, atol=ROUNDING)


def explain(model, method: str, **options):
    parameters = {"rise": {"n_masks": 6, "grid": 3}, "msr": {"n_iterations": 2, "mask_size": 8}}[method]
    return misure.explain(model, IMAGES, 1, method, precision="32", **parameters, **options)


@pytest.mark.parametrize("name", ["net.pt", "frozen.pt", "fixed.pt2", "two.pt2", "any.pt2"])
def test_programs_give_what_the_network_gives(files, network, name):
    model = load_model(files / name, class_names=["nothing", "thing", "other"], mean=[0.5] * 3)
    same_logits(model, network)
    assert (model.title, model.differentiable, model.mean) == (name, True, (0.5, 0.5, 0.5))
    assert model.class_names == ("nothing", "thing", "other")
    for one, other in zip(explain(model, "msr"), explain(network, "msr"), strict=True):
        assert one.n_dilations == other.n_dilations
        torch.testing.assert_close(one.saliency, other.saliency, rtol=0, atol=1e-3)  # AdamW divides small gradients


@pytest.mark.parametrize("name", ["fixed.pt2", "any.pt2"])
def test_layers_of_an_exported_program_are_watched(files, network, name):
    """A program for one image is watched image by image."""
    model, options = load_model(files / name, bottleneck="*bottleneck"), {"precision": "32", "batch_size": 1}
    assert model.suggest_bottleneck(IMAGES[0]).endswith("bottleneck")
    together = misure.explain(model, IMAGES, 1, "seg_grad_cam", **options)
    expected = misure.explain(network, IMAGES, 1, "seg_grad_cam", layer="bottleneck", **options)
    for one, other in zip(together, expected, strict=True):
        torch.testing.assert_close(one.saliency, other.saliency, rtol=1e-4, atol=ROUNDING)
        assert one.saliency.max() > 0


@pytest.mark.parametrize("name", ["net.pt", "two.pt2"])
def test_programs_in_one_piece_have_no_layers_and_say_so(files, name):
    """A program for two images is given copies, which its layers would see."""
    with pytest.raises(MisureError, match=r"runs as one piece, so it has no layers.*torch\.export"):
        misure.explain(load_model(files / name), IMAGES[0], 1, "seg_grad_cam", layer="*bottleneck")


@pytest.mark.parametrize("name", ["fixed.onnx", "any.onnx"])
def test_onnx_gives_what_the_network_gives_without_gradients(onnx_files, network, name):
    model = load_model(onnx_files / name)
    same_logits(model, network)
    same_logits(model, network, IMAGES[:1])
    assert (model.differentiable, model.in_channels, model.title) == (False, 3, name)
    assert not model(IMAGES.clone().requires_grad_()).requires_grad
    for one, other in zip(explain(model, "rise"), explain(network, "rise"), strict=True):
        torch.testing.assert_close(one.saliency, other.saliency, rtol=0, atol=ROUNDING)
    with pytest.raises(MisureError, match="gives no gradients"):
        explain(model, "msr")
    if name == "any.onnx":
        same_logits(model, network, torch.rand(2, 3, 20, 32))


@pytest.mark.parametrize("name", ["fixed.pt2", "fixed.onnx"])
def test_other_sizes_are_refused_by_files_of_one_size(files, request, name):
    if name.endswith("onnx"):
        request.getfixturevalue("onnx_files")
    with pytest.raises(MisureError, match=f"{name} takes images of 3 x 16 x 24, not 3 x 20 x 24: resize"):
        load_model(files / name)(torch.rand(1, 3, 20, 24))


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5])
def test_portions_are_filled_up_and_cut(n):
    sizes = []

    def run(images):
        sizes.append(len(images))
        return 2 * images

    images = torch.arange(float(n)).view(n, 1, 1, 1)
    assert torch.equal(in_pieces(run, images, (2, None, None, None), "net"), 2 * images)
    assert sizes == [2] * ((n + 1) // 2)


def test_a_checkpoint_brings_its_description(tmp_path):
    torch.manual_seed(0)
    network = build_unet("mobilenet_v2", 1, 2, pretrained=None).eval()
    recipe = {"_target_": "misure.models.unet.build_unet", "encoder": "mobilenet_v2", "in_channels": 1, "classes": 2}
    recipe["pretrained"] = "imagenet"  # not fetched when the checkpoint is loaded
    info = CheckpointInfo(
        "small", recipe, "encoder", ("background", "thing"), 1, {}, {}, {}, {}, mean=(0.2,), std=(3.0,)
    )
    save_checkpoint(tmp_path / "small.safetensors", network, info)
    model = load_model(tmp_path / "small.safetensors")
    same_logits(model, network, torch.rand(1, 1, 32, 32))
    assert (model.class_names, model.mean, model.std, model.bottleneck) == (info.class_names, (0.2,), (3.0,), "encoder")
    assert load_model(tmp_path / "small.safetensors", mean=[0.4]).mean == (0.4,)


def small_segformer() -> nn.Module:
    transformers = pytest.importorskip("transformers", reason="needs transformers")
    sizes = {"depths": [1] * 4, "hidden_sizes": [4, 8, 8, 16], "num_attention_heads": [1] * 4, "decoder_hidden_size": 8}
    labels = {"id2label": {0: "sky", 1: "sea", 2: "sand"}, "label2id": {"sky": 0, "sea": 1, "sand": 2}}
    return transformers.SegformerForSemanticSegmentation(transformers.SegformerConfig(**sizes, **labels)).eval()


@pytest.fixture(scope="module")
def segformer(tmp_path_factory):
    network, folder = small_segformer(), tmp_path_factory.mktemp("segformer")
    network.save_pretrained(folder)
    described = {"do_normalize": True, "image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6]}
    (folder / "preprocessor_config.json").write_text(json.dumps(described))
    return network, folder


def test_a_hugging_face_folder(segformer):
    network, folder = segformer
    model = load_model(folder)
    images = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        small = network(images).logits
        assert small.shape[2:] == (16, 24)
        expected = nn.functional.interpolate(small, size=(64, 96), mode="bilinear", align_corners=False)
        torch.testing.assert_close(model(images), expected, rtol=0, atol=ROUNDING)
    assert model.class_names == ("sky", "sea", "sand")
    assert (model.mean, model.std, model.in_channels) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6), 3)


def test_an_incomplete_hugging_face_folder_is_refused(segformer, tmp_path):
    from safetensors.torch import load_file, save_file

    _, folder = segformer
    weights = load_file(folder / "model.safetensors")
    del weights["decode_head.classifier.bias"]
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(MisureError, match=r"lacks 1 weights of its network, such as decode_head\.classifier\.bias"):
        load_model(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"\0" * 40)
    with pytest.raises(MisureError, match=r"cannot be read .* no Hugging Face model"):
        load_model(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(MisureError, match=r"cannot be read .* no Hugging Face model"):
        load_model(tmp_path)


@pytest.mark.parametrize("name", ["net.pt", "fixed.pt2", "fixed.onnx", "net.pth"])
@pytest.mark.parametrize("damage", [lambda b: b[: len(b) // 2], lambda _: b"", lambda _: b"no network"])
def test_damaged_files_are_refused_in_one_line(files, request, tmp_path, name, damage):
    if name.endswith("onnx"):
        request.getfixturevalue("onnx_files")
    source = files / name.replace("pth", "pt")
    (tmp_path / name).write_bytes(damage(source.read_bytes()))
    with pytest.raises(MisureError, match="damaged") as caught:
        load_model(tmp_path / name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["weights.pth", "weights.pt", "old.pth", "module.pt"])
def test_weights_and_pickles_are_not_opened(network, tmp_path, name):
    if name == "old.pth":
        (tmp_path / name).write_bytes(pickle.dumps({"weight": 1}))
    else:
        torch.save(network if name == "module.pt" else network.state_dict(), tmp_path / name)
    with pytest.raises(MisureError, match=r"holds weights only.*build the network in Python"):
        load_model(tmp_path / name)


def test_sources_that_are_no_network_are_refused(tmp_path):
    (tmp_path / "net.h5").touch()
    (tmp_path / "lone.safetensors").touch()
    (tmp_path / "pickled").mkdir()
    (tmp_path / "pickled" / "config.json").write_text("{}")
    for name, message in {
        "absent.pt": "there is no .*absent.pt",
        "net.h5": "net.h5 is no network file: expected .safetensors",
        "lone.safetensors": "no lone.json beside it, so it holds weights only",
        "pickled": "no .safetensors file",
        ".": "no config.json",
    }.items():
        with pytest.raises(MisureError, match=message):
            load_model(tmp_path / name)


@pytest.mark.parametrize(
    ("package", "extra", "name"), [("onnxruntime", "onnx", "net.onnx"), ("transformers", "huggingface", "hf")]
)
def test_a_missing_package_names_the_extra(monkeypatch, tmp_path, package, extra, name):
    (tmp_path / "net.onnx").touch()
    (tmp_path / "hf").mkdir()
    (tmp_path / "hf" / "config.json").write_text("{}")
    (tmp_path / "hf" / "model.safetensors").touch()
    monkeypatch.setitem(__import__("sys").modules, package, None)
    with pytest.raises(MisureError, match=rf"needs {package}: pip install 'misure\[{extra}\]'"):
        load_model(tmp_path / name)
