"""The network that a command names."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from image_files import Bright, write_checkpoint
from omegaconf import OmegaConf

import misure
from misure.explaining.network import NamedNetwork, _checkpoint, content_digest, named_network, trained_network
from misure.explaining.work import prepared
from misure.io.download import file_digest
from misure.io.images import LoadedImage
from misure.io.installed import CONFIG_FOLDER
from misure.models.wrapper import SegmentationModel


@pytest.mark.parametrize(
    ("model", "channels", "dimensions"),
    [
        (SegmentationModel(Bright(3)), 3, 2),
        (SegmentationModel(Bright(1)), 1, 2),
        (SegmentationModel(Bright(1), in_channels=4), 4, 2),
        (SegmentationModel(Bright(dimensions=3)), 1, 3),
        (SegmentationModel(lambda x: x), None, 2),
        (SegmentationModel(lambda x: x, mean=(0.5, 0.5)), 2, 2),
    ],
)
def test_channels_and_dimensions_are_asked_of_the_network(model, channels, dimensions):
    network = NamedNetwork(model, {})
    assert (network.channels, network.dimensions) == (channels, dimensions)


@pytest.mark.parametrize(("data", "size"), [({"size": 64}, 64), ({"size": "longest side 64"}, None), ({}, None)])
def test_images_are_brought_to_the_size_that_a_network_was_trained_at(tmp_path, data, size):
    network = trained_network(write_checkpoint(tmp_path / "net.safetensors", data))
    assert network.size == network.sides == size
    image = LoadedImage("image", torch.rand(1, 96, 128), tmp_path)
    cfg = OmegaConf.create({"size": None})
    assert prepared(image, network, cfg).shape[1:] == ((size, size) if size else (96, 128))


def test_a_folder_s_digest_depends_on_names_and_contents(tmp_path):
    def digest(files):
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir()
        for name, content in files.items():
            (folder / name).write_text(content)
        return content_digest(folder)

    one = digest({"a": "1", "b": "2"})
    assert digest({"b": "2", "a": "1"}) == one
    assert len({one, digest({"a": "1", "b": "3"}), digest({"a": "1", "c": "2"}), digest({"a": "1"})}) == 4


def named(path, **keys):
    with initialize_config_dir(CONFIG_FOLDER, version_base="1.3"):
        cfg = compose("explain")
    cfg.merge_with({"model_file": str(path), **keys})
    return named_network(cfg)


def test_a_checkpoint_that_is_named_is_given_the_size_that_it_was_trained_at(tmp_path):
    network = named(write_checkpoint(tmp_path / "net.safetensors", {"size": 64}), class_names=["a", "b", "c"])
    assert (network.size, network.model.class_names) == (64, ("a", "b", "c"))


@pytest.mark.parametrize(("side", "size"), [(24, [24, 28]), (torch.export.Dim("side", min=2), None)])
def test_a_program_of_one_size_is_given_images_of_it(tmp_path, side, size):
    free = None if isinstance(side, int) else ({2: side},)
    program = torch.export.export(Bright().eval(), (torch.zeros(1, 1, 24, 28),), dynamic_shapes=free)
    torch.export.save(program, tmp_path / "net.pt2")
    network = named(tmp_path / "net.pt2")
    assert (network.size, network.dimensions) == (size, 2)


def onnx_file(path, shape, **options):
    onnx = pytest.importorskip("onnx", reason="writing ONNX files needs onnx")
    pytest.importorskip("onnxruntime", reason="needs onnxruntime")
    weight = np.ones((2, 1, *[1] * (len(shape) - 2)), np.float32)
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Conv", ["x", "w"], ["logits"])],
        "network",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, shape)],
        [onnx.helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, None)],
        [onnx.numpy_helper.from_array(weight, "w")],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)])
    model.ir_version = 9
    onnx.save(model, path, **options)
    return path


@pytest.mark.parametrize(
    ("shape", "size", "dimensions"),
    [(["n", 1, 8, 9], [8, 9], 2), ([1, 1, 4, 8, 9], [4, 8, 9], 3), (["n", 1, "d", "h", "w"], None, 3)],
)
def test_an_onnx_file_says_its_size_and_dimensions(tmp_path, shape, size, dimensions):
    network = named(onnx_file(tmp_path / "net.onnx", shape))
    assert (network.size, network.dimensions) == (size, dimensions)
    sides = size or [4, 5, 6]
    assert list(misure.explain(network.model, torch.ones(1, *sides), 0, "prediction").saliency.shape) == sides


def test_an_onnx_file_s_digest_depends_on_weights_that_lie_beside_it(tmp_path):
    plain = onnx_file(tmp_path / "plain.onnx", ["n", 1, "h", "w"])
    assert content_digest(plain) == file_digest(plain)
    beside = {"save_as_external_data": True, "location": "net.onnx.data", "size_threshold": 0}
    path = onnx_file(tmp_path / "net.onnx", ["n", 1, "h", "w"], **beside)
    weights, before = (tmp_path / "net.onnx.data").read_bytes(), content_digest(path)
    (tmp_path / "net.onnx.data").write_bytes(weights[::-1])
    assert content_digest(path) != before
    (tmp_path / "net.onnx.data").write_bytes(weights)
    assert content_digest(path) == before


@pytest.mark.parametrize(("profiles", "taken"), [("quick reference smoke", "reference"), ("reference paper", "paper")])
def test_the_most_thorough_training_is_taken(tmp_path, profiles, taken):
    for profile in profiles.split():
        (tmp_path / "checkpoints").mkdir(exist_ok=True)
        (tmp_path / "checkpoints" / f"triangle-tiny-{profile}.safetensors").touch()
    cfg = OmegaConf.create({"model": {"name": "tiny"}, "outputs": str(tmp_path), "data_root": str(tmp_path / "data")})
    assert _checkpoint(cfg).stem == f"triangle-tiny-{taken}"
