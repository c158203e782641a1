"""Where a setup's network comes from: the data root, a server, or training."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from file_host import running_host
from hydra import compose
from pipeline import TINY, shipped_root
from sweep_runs import PACE

from misure.config import plain
from misure.errors import MisureError
from misure.models.checkpoint import TRAINED_HERE, CheckpointInfo, read_info, save_checkpoint, write_info
from misure.models.unet import build_unet
from misure.sweep import setup as setups
from misure.sweep.availability import NetworkChoice
from misure.sweep.needs import Needs
from misure.sweep.networks import (
    checkpoint_path,
    elsewhere,
    import_network,
    kept_with_weights,
    needs_no_training,
    train_network,
)

pytestmark = pytest.mark.usefixtures("hydra")

NAME = "triangle-unet_vgg16-mine"
FOLDER = "triangle_unet_vgg16"


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A network with its description, as version 0.1 wrote it: without its origin, its start and the images' size."""
    path = tmp_path_factory.mktemp("elsewhere") / f"{NAME}.safetensors"
    torch.manual_seed(5)
    network = build_unet("mobilenet_v2", 1, 2, pretrained=None)
    builder = {"encoder": "mobilenet_v2", "in_channels": 1, "classes": 2, "pretrained": "imagenet"}
    described = {"_target_": "misure.networks.unet.build_unet", **builder}
    data = {"dataset": "triangle", "source": "elsewhere", "fingerprint": "0" * 16, "stand_in": False}
    classes = ("background", "triangle")
    info = CheckpointInfo(NAME, described, "encoder", classes, 1, data, {"val_dice": 0.5}, {"steps": 3}, {})
    info = save_checkpoint(path, network, info)
    old = {key: value for key, value in asdict(info).items() if key not in {"origin", "initial_weights"}}
    path.with_suffix(".json").write_text(json.dumps(old))
    return path


@pytest.fixture
def compose_run(tmp_path) -> Callable[..., object]:
    root = shipped_root(tmp_path / "root")
    return lambda *more: compose("run", [*TINY, f"data_root={root}", f"outputs={tmp_path / 'out'}", *more])


def place(made: Path, root: Path, name: str = NAME, **changes: object) -> Path:
    """Put the network into the data root, its description changed."""
    path = root / FOLDER / f"{name}.safetensors"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(made.read_bytes())
    info = read_info(made)
    write_info(path, replace(info, **{"name": name, "data": {**info.data, "size": 64}, **changes}))
    return path


def test_a_network_in_the_data_root_is_used_bit_by_bit(made, compose_run, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(setups, "train_network", lambda *_, **__: pytest.fail("it was trained"))
    found, cfg = place(made, tmp_path / "root"), compose_run()
    needs = Needs.of(cfg, PACE)
    assert (needs.training, needs.downloads) == (0, ()) or "Fashion" in needs.downloads[0]
    assert found.name in needs.network
    info = setups.prepare(cfg).info
    origin = f"data root ({FOLDER}/{found.name})"
    assert f"weights from {origin}" in capsys.readouterr().out
    assert checkpoint_path(cfg).read_bytes() == found.read_bytes()
    before = read_info(found)
    assert info == replace(before, origin=origin, network={**before.network, "pretrained": None})
    assert info.initial_weights == ""
    assert setups.prepare(cfg).info == info
    assert Needs.of(compose_run("outputs=other"), PACE, anew=True).training > 0


@pytest.mark.parametrize(
    ("name", "data", "size", "is_used"),
    [
        ("mine", {"size": 64}, 64, True),
        ("mine", {"size": 64}, 32, False),
        ("mine", {}, 64, False),
        ("paper", {}, 224, True),
        ("paper", {}, 64, False),
        ("quick-0.5", {}, 224, False),
    ],
)
def test_it_is_for_images_of_the_size_it_was_trained_on(made, compose_run, tmp_path, *, name, data, size, is_used):
    place(made, tmp_path / "root", f"triangle-unet_vgg16-{name}", data={"dataset": "triangle", **data})
    assert needs_no_training(compose_run(f"dataset.size={size}")) == is_used


def test_a_file_the_user_names_is_the_only_one(made, compose_run, tmp_path):
    place(made, tmp_path / "root")
    assert elsewhere(compose_run("checkpoint=own.safetensors")) is None


def test_generated_images_get_a_network_of_their_own(compose_run, tmp_path):
    folder = tmp_path / "root" / "synapse_unet_resnet34"
    folder.mkdir()
    (folder / "damaged.json").write_text("{")
    cfg = compose("run", ["dataset=synapse", "stand_in=true", f"data_root={folder.parent}"])
    assert elsewhere(cfg) is None
    with pytest.raises(MisureError):
        elsewhere(compose("run", ["dataset=synapse", f"data_root={folder.parent}"]))


@pytest.mark.parametrize("tolerant", ["profile.stand_in=true", "stand_in=true", "model.network.pretrained=null", ""])
def test_where_nothing_may_stand_in_no_training_begins_without_its_weights(compose_run, monkeypatch, tolerant):
    monkeypatch.setattr("misure.models.unet.built_from_hub", lambda *_, **__: None)
    monkeypatch.setattr("misure.training.module.train", lambda network, *_, **__: network)
    cfg = compose_run("model.network.pretrained=imagenet", "profile.stand_in=false", *filter(None, [tolerant]))
    if tolerant:
        assert train_network(cfg).initial_weights == "random"
    else:
        with pytest.raises(MisureError, match="would be trained from random weights, as imagenet weights cannot be"):
            train_network(cfg)


def second(path: Path) -> None:
    other = path.with_stem(f"{path.stem}2")
    other.write_bytes(path.read_bytes())
    other.with_suffix(".json").write_bytes(path.with_suffix(".json").read_bytes())


@pytest.mark.parametrize(
    ("changes", "damage", "message"),
    [
        ({}, lambda path: path.unlink(), "is missing"),
        ({}, lambda path: path.with_suffix(".json").unlink(), "json is missing"),
        ({}, lambda path: path.with_suffix(".json").write_text("{"), "cannot be read"),
        ({}, second, "keep one"),
        ({"data": {"dataset": "coco", "size": 64}}, None, "the dataset coco"),
        ({"data": {"dataset": "triangle", "size": 64, "stand_in": True}}, None, "generated images"),
        ({"class_names": ("a", "b")}, None, "classes"),
        ({"network": {"_target_": "misure.models.unet.build_unet", "encoder": "resnet18"}}, None, "a network"),
    ],
)
def test_a_file_that_cannot_be_meant_is_an_error_and_not_a_training(
    made, compose_run, tmp_path, *, changes, damage, message
):
    path = place(made, tmp_path / "root", **changes)
    if damage:
        damage(path)
    with pytest.raises(MisureError, match=message) as caught:
        elsewhere(compose_run())
    assert "\n" not in str(caught.value)
    assert FOLDER in str(caught.value)
    overrides = [*TINY, f"data_root={tmp_path / 'root'}", f"outputs={tmp_path / 'out'}"]
    with pytest.raises(MisureError, match=message):  # where a dataset that cannot be had is left out, before the plan
        NetworkChoice(overrides, stand_in=True)("triangle", [])


def test_changed_weights_are_not_taken(made, compose_run, tmp_path):
    path = place(made, tmp_path / "root")
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(MisureError, match=rf"{path.name} has sha256 .* changed or cut short"):
        import_network(compose_run())
    assert not (tmp_path / "out").exists()


def served(made: Path, host: str, **changes: object) -> str:
    entry = {"url": f"{host}/x/{made.name}?download=1", "sha256": read_info(made).weights, "size": 64, "megabytes": 27}
    pairs = ",".join(f"{key}: '{v}'" if isinstance(v, str) else f"{key}: {v}" for key, v in (entry | changes).items())
    return f"+model.trained={{triangle: {{{pairs}}}}}"


@pytest.fixture
def host(made):
    description = json.loads(made.with_suffix(".json").read_text())
    description["data"]["size"] = 64
    place = f"/x/{made.stem}"
    files = {".safetensors": made.read_bytes(), ".json": json.dumps(description).encode()}
    with running_host({f"{place}{ending}?download=1": content for ending, content in files.items()}) as running:
        yield running


def test_a_network_is_downloaded_with_its_description(made, compose_run, host, tmp_path):
    cfg = compose_run(served(made, host.url))
    needs = Needs.of(cfg, PACE)
    assert needs.network == "to download"
    assert needs.downloads[-1] == f"{made.name}, 27 MB, from {host.url.removeprefix('http://')}"
    assert elsewhere(cfg).is_at_hand()
    assert not host.asked
    info = import_network(cfg)
    assert read_info(checkpoint_path(cfg)) == info
    assert checkpoint_path(cfg).read_bytes() == made.read_bytes()
    assert info.origin == plain(cfg.model.trained.triangle)["url"]
    assert [asked.partition("?")[0][-5:] for asked in host.asked] == [".json", "nsors"]
    place(made, tmp_path / "root")
    assert elsewhere(cfg).download == ""  # what lies in the data root comes first
    assert elsewhere(compose_run(served(made, host.url, size=32), "dataset.size=16")) is None


@pytest.mark.parametrize(
    ("changes", "dataset", "message"),
    [
        ({"sha256": "0" * 64}, "triangle", "is described as sha256"),
        ({"url": "{url}/x/nothing.safetensors"}, "triangle", "HTTP error 404"),
        ({}, "coco", "the dataset coco"),
        ({"size": 32}, "triangle", "is for images of size 64, the model names 32"),
    ],
)
def test_what_a_server_has_in_its_place_is_refused_before_the_weights_are_fetched(
    made, compose_run, host, *, changes, dataset, message
):
    for path, content in host.files.items():
        host.files[path] = content.replace(b'"triangle", "source"', f'"{dataset}", "source"'.encode())
    changes = {"size": 64} | {key: str(value).format(url=host.url) for key, value in changes.items()}
    changes["size"] = int(changes["size"])
    cfg = compose_run(served(made, host.url, **changes), f"dataset.size={changes['size']}")
    with pytest.raises(MisureError, match=message):
        import_network(cfg)
    assert not any(".safetensors" in asked for asked in host.asked)
    assert not checkpoint_path(cfg).parent.exists()


@pytest.mark.parametrize(("key", "value"), [("bottleneck", "elsewhere"), ("mean", (0.5,)), ("std", (0.25,))])
def test_what_a_trained_network_keeps_is_not_overridden_without_a_word(made, compose_run, tmp_path, key, value):
    """Its layer and normalisation are those of the checkpoint, and records do not tell them apart."""
    cfg = compose_run()
    path, kept = checkpoint_path(cfg), kept_with_weights(cfg)
    path.parent.mkdir(parents=True)
    path.write_bytes(made.read_bytes())
    info = replace(read_info(made), network=plain(cfg.model.network), origin=TRAINED_HERE, **kept)
    write_info(path, info)
    assert setups.prepare(cfg).info.bottleneck == kept["bottleneck"]
    write_info(path, replace(info, **{key: value}))
    with pytest.raises(MisureError, match=rf"holds {key} .*configuration asks for {key}"):
        setups.prepare(cfg)
    write_info(path, replace(info, origin="elsewhere", **{key: value}))
    assert getattr(setups.prepare(cfg).info, key) == value
