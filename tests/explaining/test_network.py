"""The network that a command names."""

from __future__ import annotations

import pytest
import torch
from image_files import Bright, write_checkpoint
from omegaconf import OmegaConf

from misure.explaining.network import NamedNetwork, _checkpoint, content_digest, trained_network
from misure.explaining.work import prepared
from misure.io.images import LoadedImage
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


@pytest.mark.parametrize(("profiles", "taken"), [("quick reference smoke", "reference"), ("reference paper", "paper")])
def test_the_most_thorough_training_is_taken(tmp_path, profiles, taken):
    for profile in profiles.split():
        (tmp_path / "checkpoints").mkdir(exist_ok=True)
        (tmp_path / "checkpoints" / f"triangle-tiny-{profile}.safetensors").touch()
    cfg = OmegaConf.create({"model": {"name": "tiny"}, "outputs": str(tmp_path), "data_root": str(tmp_path / "data")})
    assert _checkpoint(cfg).stem == f"triangle-tiny-{taken}"
