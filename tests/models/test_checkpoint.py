"""Checkpoints: whole or refused, and nothing but this package's own builders is called."""

from __future__ import annotations

import json
import os
from dataclasses import replace

import pytest
import torch

from misure.errors import MisureError
from misure.models.checkpoint import CheckpointInfo, fingerprint, load_checkpoint, read_info, save_checkpoint
from misure.models.unet import build_unet

NETWORK = {
    "_target_": "misure.models.unet.build_unet",
    "encoder": "mobilenet_v2",
    "in_channels": 1,
    "classes": 2,
    "pretrained": "imagenet",
}
INFO = CheckpointInfo(
    name="triangle-small",
    network=NETWORK,
    bottleneck="encoder",
    class_names=("background", "triangle"),
    in_channels=1,
    data={"dataset": "triangle"},
    metrics={"val_dice": 0.5},
    training={"lr": 0.1},
    versions={"torch": "2"},
)


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(3)
    built = build_unet("mobilenet_v2", 1, 2, pretrained=None)
    with torch.no_grad():
        built(torch.rand(2, 1, 32, 32))  # moves the statistics of batch normalisation
    return built.eval()


@pytest.fixture
def saved(network, tmp_path):
    path = tmp_path / "folder" / "small.safetensors"
    return path, save_checkpoint(path, network, INFO)


def test_round_trip(saved, network):
    path, info = saved
    images = torch.rand(2, 1, 32, 32)
    state = torch.get_rng_state()
    model = load_checkpoint(path)
    assert torch.equal(torch.get_rng_state(), state)
    with torch.no_grad():
        assert torch.equal(model(images), network(images))
    assert not any(module.training for module in model.module.modules())
    assert (model.bottleneck, model.class_names, model.in_channels) == ("encoder", INFO.class_names, 1)
    assert info == replace(INFO, weights=info.weights)
    assert read_info(path) == info
    assert len(info.weights) == 64
    assert info.fingerprint == info.weights[:16]
    assert sorted(p.name for p in path.parent.iterdir()) == ["small.json", "small.safetensors"]


def test_loading_into_a_given_network(saved, network):
    other = build_unet("mobilenet_v2", 1, 2, pretrained=None)
    assert fingerprint(other) != fingerprint(network)
    load_checkpoint(saved[0], other)
    assert fingerprint(other) == fingerprint(network)


def test_a_network_it_does_not_fit_is_refused(saved):
    with pytest.raises(MisureError, match="does not fit") as caught:
        load_checkpoint(saved[0], build_unet("mobilenet_v2", 1, 3, pretrained=None))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("damage", [lambda b: b[:-1], lambda b: b[:100], lambda b: b"\0" + b[1:], lambda _: b""])
def test_damaged_weights_are_refused(saved, damage):
    path, _ = saved
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(MisureError, match="truncated or was changed"):
        load_checkpoint(path)


def test_missing_files_are_named(saved, tmp_path):
    path, _ = saved
    path.unlink()
    with pytest.raises(MisureError, match="although its JSON exists"):
        load_checkpoint(path)
    path.with_suffix(".json").unlink()
    with pytest.raises(MisureError, match="there is no checkpoint"):
        load_checkpoint(path)


def rewrite(path, **changes) -> None:
    description = path.with_suffix(".json")
    content = {k: v for k, v in {**json.loads(description.read_text()), **changes}.items() if v is not None}
    description.write_text(json.dumps(content))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[1, 2]",
        "null",
        '{"name": 1}',
        "\xff",
        "[" * 100_000,
        '{"in_channels": %s}' % ("9" * 5000),
        " " * 17_000_000,
    ],
)
def test_a_damaged_description_is_refused(saved, text):
    saved[0].with_suffix(".json").write_text(text, encoding="latin-1")
    with pytest.raises(MisureError, match=r"small\.json (cannot be read .*train again|has 17 MB)") as caught:
        load_checkpoint(saved[0])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        *(
            (c, "cannot be read")
            for c in ({"unknown": 1}, {"bottleneck": None}, {"class_names": 3}, {"network": "unet"})
        ),
        ({"format_version": 99}, "format 99"),
        ({"network": {**NETWORK, "depth": 5}}, "depth"),
        ({"network": {**NETWORK, "encoder": "mobilenet_v3"}}, "mobilenet_v2"),
    ],
)
def test_a_description_of_something_else_is_refused(saved, changes, message):
    rewrite(saved[0], **changes)
    with pytest.raises(MisureError, match=message):
        load_checkpoint(saved[0])


WRONG = {
    "name": [3, [], {}],
    "network": [[], "unet", 3],
    "bottleneck": [3, [], {"layer": 1}, float("nan"), True],
    "class_names": ["ab", {"background": 0, "triangle": 1}, ["background"], ["a", "b", "c"], [0, 1], []],
    "in_channels": ["1", 1.5, 3, True, [1]],
    "data": [3, []],
    "metrics": ["good", [0.5]],
    "versions": [2],
    "mean": ["0", [], [0.0, 0.0], [float("nan")], ["0"], {"red": 0}, 0.5],
    "std": [[0.0], [float("inf")], [], [True]],
    "weights": [3],
    "initial_weights": [3],
    "format_version": [True, "1"],
    "unknown": [1],
}


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, values in WRONG.items() for value in values])
def test_a_description_of_other_types_names_its_file(saved, key, value):
    rewrite(saved[0], **{key: value})
    with pytest.raises(MisureError, match=r"small\.json (cannot be read .*|has format )") as caught:
        load_checkpoint(saved[0])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "changes",
    [
        *({"in_channels": wrong} for wrong in (-1, 0, "1", 3)),
        *({"classes": wrong} for wrong in (0, -3, 2.5, float("nan"), 10**9)),
        {"encoder": 3},
        {"depth": 5},
    ],
)
def test_arguments_that_build_nothing_name_the_file(saved, changes):
    rewrite(saved[0], network={**NETWORK, **changes})
    with pytest.raises(MisureError, match=r"small\.json (cannot be read|does not fit its builder)"):
        load_checkpoint(saved[0])


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_files_may_be_read_by_whom_the_umask_lets(network, tmp_path, mask):
    before = os.umask(mask)
    try:
        save_checkpoint(tmp_path / "small.safetensors", network, INFO)
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o666 & ~mask}


@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "build_unet",
        "",
        "misure.networks_evil.build",
        "misure.models.checkpoint.load_file",
        "misure.models.checkpoint.os.system",
        "misure.models.pretrained.is_reachable",
        "misure.models.unet.nn.Identity",
        "misure.models.unet.nothing",
        "misure.models.loading.load_model",  # opens a file of the description's choice
        3,
    ],
)
def test_a_foreign_builder_is_refused(saved, target):
    rewrite(saved[0], network={**NETWORK, "_target_": target})
    with pytest.raises(MisureError, match=r"not one of misure\.models"):
        load_checkpoint(saved[0])


def test_a_place_that_cannot_be_written_is_named(network, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(MisureError, match="cannot write"):
        save_checkpoint(tmp_path / "file" / "small.safetensors", network, INFO)
