"""The networks that ``misure app`` offers."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from image_files import CLASSES, Bright, bright_square, write_checkpoint, write_png

from misure.app.command import main
from misure.app.networks import Shelf, offers_at_hand
from misure.app.scene import Cut, look
from misure.errors import MisureError


@pytest.mark.parametrize(
    ("files", "names"),
    [
        (["a/net.pt2", "b/net.pt2"], ["a/net.pt2", "b/net.pt2"]),
        (["a/net.pt2", "./a/net.pt2", "b/other.pt2"], ["net.pt2", "other.pt2"]),
        (["epoch=1-step (2).pt2", "Schädel.pt2", "~x.pt2"], ["epoch=1-step (2).pt2", "Schädel.pt2", "~x.pt2"]),
        (["-net.pt2", "2024", "???"], ["-net.pt2", "2024", "???"]),
    ],
)
def test_every_network_that_is_named_is_offered(tmp_path, monkeypatch, files, names):
    monkeypatch.chdir(tmp_path)
    for file in files:
        Path(file).parent.mkdir(exist_ok=True)
        Path(file).touch()
    offered = [offer.name for offer in offers_at_hand(files, tmp_path / "data", tmp_path / "outputs")]
    assert offered[: len(names)] == names


@pytest.mark.parametrize("model", ["", "nowhere.pt2", "x" * 300])
def test_what_is_no_network_is_one_line(tmp_path, model):
    with pytest.raises(MisureError, match="neither a file nor a published network"):
        offers_at_hand([model], tmp_path, tmp_path)


def taken(file, tmp_path, described=None):
    return Shelf(offers_at_hand([str(file)], tmp_path, tmp_path, described), tmp_path).take(file.name)


def program(path, side=32):
    torch.export.save(torch.export.export(Bright().eval(), (torch.zeros(1, 1, side, side + 4),)), path)
    return path


def test_a_checkpoint_is_one_by_its_ending_and_keeps_its_size(tmp_path):
    assert taken(write_checkpoint(tmp_path / "net.safetensors", {"size": 64}), tmp_path).size == 64
    (tmp_path / "net.pt2").write_bytes(b"none")
    with pytest.raises(MisureError, match=r"net\.pt2 cannot be read"):  # and is not a checkpoint to be deleted
        taken(tmp_path / "net.pt2", tmp_path)


def test_a_program_of_one_size_gets_images_of_it(tmp_path):
    network = taken(program(tmp_path / "${net}.pt2"), tmp_path)
    scene = look(network, write_png(tmp_path / "photo.png", bright_square(48)), Cut())
    assert scene.image.shape == (1, 32, 36)


def test_what_is_said_of_a_file_is_what_misure_explain_takes(tmp_path, monkeypatch, capsys):
    (tmp_path / "classes.txt").write_text("\n".join(CLASSES))
    options = f"--mean 0.5 --std 0.25 --network-output probabilities --multi-label --class-names {tmp_path}/classes.txt"
    loaded = []

    def build_app(models, *, described, **_):
        loaded.append(taken(Path(models[0]), tmp_path, described).model)
        raise MisureError("seen")

    monkeypatch.setattr("misure.app.command.build_app", build_app)
    model = ["--model", str(program(tmp_path / "net.pt2"))]
    with pytest.raises(SystemExit, match="seen"):
        main([*model, *options.split()])
    (network,) = loaded
    assert (network.mean, network.std, network.class_names) == ((0.5,), (0.25,), CLASSES)
    assert (network.output.kind, network.multi_label) == ("probabilities", True)
    for wrong, words in {
        "--mean=x": "x is no number",
        "--std=0": "has a zero",
        "--network-output=x": "network_output=x",
    }.items():
        with pytest.raises(SystemExit) as ended:
            main([*model, wrong])
        assert re.search(words, f"{ended.value.code}{capsys.readouterr().err}")


def test_a_result_of_nnu_net_is_refused_in_one_line(tmp_path):
    for name in ("plans.json", "dataset.json"):
        (tmp_path / name).write_text("{}")
    with pytest.raises(MisureError, match="a result of nnU-Net, which takes patches: use misure explain"):
        offers_at_hand([str(tmp_path)], tmp_path, tmp_path)
