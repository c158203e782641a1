"""Published weights: from a folder, PyTorch's cache or a server, and every way they can be unusable."""

from __future__ import annotations

import hashlib
import io
import pickle
from collections import OrderedDict
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from oracles import operator_list
from torch import nn
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.models.segmentation.deeplabv3 import DeepLabHead, DeepLabV3
from torchvision.models.segmentation.fcn import FCNHead

from misure.errors import MisureError
from misure.models.pretrained import OperatorListWeights, TorchvisionWeights, built_from_hub

NAME = "small-12345678.pth"
NEVER = "http://127.0.0.1:1/" + NAME
"""Nothing listens on port 1; files at hand must be used without asking."""


def small_deeplab(*, auxiliary: bool) -> nn.Module:
    """torchvision's own DeepLabV3 with two convolutions for a backbone."""
    torch.manual_seed(int(auxiliary))
    layers = OrderedDict(layer3=nn.Conv2d(3, 8, 3, 2, 1), layer4=nn.Conv2d(8, 8, 3, 2, 1))
    backbone = IntermediateLayerGetter(nn.Sequential(layers), {"layer3": "aux", "layer4": "out"})
    return DeepLabV3(backbone, DeepLabHead(8, 4), FCNHead(8, 4) if auxiliary else None).eval()


def digest_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def saved(content: object) -> bytes:
    stream = io.BytesIO()
    torch.save(content, stream)
    return stream.getvalue()


@pytest.fixture(scope="module")
def published() -> tuple[nn.Module, bytes]:
    """A network with the auxiliary head and its checkpoint."""
    network = small_deeplab(auxiliary=True)
    return network, saved(network.state_dict())


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    """PyTorch's cache in a folder of the test's own."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return tmp_path / "torch" / "hub" / "checkpoints"


class Server:
    """What stands for the download: its file (none: 404), whether it answers, and what it was asked for."""

    def __init__(self) -> None:
        self.content: bytes | None = None
        self.answers = True
        self.asked: list[str] = []

    def fetch(self, url: str, path: Path, *, digest: str) -> None:
        self.asked.append(url)
        if self.content is None or not digest_of(self.content).startswith(digest):
            raise MisureError("404 or another file")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(self.content)


@pytest.fixture
def server(monkeypatch) -> Server:
    server = Server()
    monkeypatch.setattr("misure.models.pretrained.fetch", server.fetch)
    monkeypatch.setattr("misure.models.pretrained.is_reachable", lambda _url: server.answers)
    return server


def weights_at(url: str, folder: Path, digest: str) -> TorchvisionWeights:
    return TorchvisionWeights("SMALL_V1", url, digest, folder / "by_hand")


def by_hand(folder: Path, content: bytes, digest: str | None = None) -> TorchvisionWeights:
    """Weights whose file lies in the user's folder; the digest is right unless told otherwise."""
    (folder / "by_hand").mkdir()
    (folder / "by_hand" / NAME).write_bytes(content)
    return weights_at(NEVER, folder, digest or digest_of(content)[:8])


def assert_filled(weights: TorchvisionWeights, original: nn.Module) -> None:
    network, images = small_deeplab(auxiliary=False), torch.rand(1, 3, 33, 20)
    assert not torch.equal(network(images)["out"], original(images)["out"])
    weights.load_into(network)
    torch.testing.assert_close(network(images)["out"], original(images)["out"], rtol=0, atol=0)


@pytest.mark.parametrize("place", ["by hand", "cache"])
def test_a_file_at_hand(tmp_path, cache, published, place):
    original, content = published
    if place == "by hand":
        weights = by_hand(tmp_path, content)
    else:
        weights = weights_at(NEVER, tmp_path, digest_of(content)[:8])
        cache.mkdir(parents=True)
        (cache / NAME).write_bytes(content)
    assert (weights.source, weights.is_at_hand(), weights.download) == ("torchvision SMALL_V1", True, "")
    assert_filled(weights, original)


@pytest.mark.parametrize("in_cache", [b"", b"another version", None])
def test_download_once(tmp_path, cache, published, server, in_cache):
    original, server.content = published
    if in_cache is not None:
        cache.mkdir(parents=True)
        (cache / NAME).write_bytes(in_cache)
    weights = weights_at(NEVER, tmp_path, digest_of(server.content)[:8])
    assert weights.is_at_hand()
    assert server.asked == []
    for _ in range(2):
        assert_filled(weights, original)
    assert server.asked == [NEVER]
    assert [path.name for path in cache.iterdir()] == [NAME]


@pytest.mark.parametrize(("answers", "reason"), [(True, "404 or another file"), (False, "127.0.0.1:1 does not answer")])
def test_a_file_that_cannot_be_downloaded_can_be_put_in_place(tmp_path, server, answers, reason):
    server.answers = answers
    weights = weights_at(NEVER, tmp_path, "12345678")
    assert weights.is_at_hand() == answers
    with pytest.raises(MisureError, match=rf"{reason}; put {NAME} into .*by_hand by hand"):
        weights.load_into(small_deeplab(auxiliary=False))


class Code:
    """Unpickling it creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("wrap", [partial(pickle.dumps, protocol=2), saved, lambda code: saved({"weight": code})])
def test_code_in_a_checkpoint_does_not_run(tmp_path, wrap):
    ran = tmp_path / "ran"
    content = wrap(Code(ran))
    pickle.loads(pickle.dumps(Code(ran)))
    assert ran.exists(), "the trap is no trap"
    ran.unlink()
    with pytest.raises(MisureError, match=f"{NAME} cannot be read"):
        by_hand(tmp_path, content).load_into(small_deeplab(auxiliary=False))
    assert not ran.exists()


@pytest.mark.parametrize("kept", [0, 100, -1])
@pytest.mark.parametrize("legacy", [True, False])
def test_truncated_checkpoint(tmp_path, published, kept, legacy):
    stream = io.BytesIO()
    torch.save(published[0].state_dict(), stream, _use_new_zipfile_serialization=not legacy)
    content = stream.getvalue()
    cut = content[:kept]
    with pytest.raises(MisureError, match=f"{NAME} has sha256 .* cut short; replace it"):
        by_hand(tmp_path, cut, digest_of(content)[:8]).load_into(small_deeplab(auxiliary=False))
    with pytest.raises(MisureError, match=f"{NAME} cannot be read"):
        weights_at(NEVER, tmp_path, digest_of(cut)[:8]).load_into(small_deeplab(auxiliary=False))


@pytest.mark.parametrize("content", [[torch.zeros(2)], {"weight": [1.0]}, torch.zeros(2)])
def test_a_file_that_is_no_state_dict(tmp_path, content):
    with pytest.raises(MisureError, match="holds no tensors by name"):
        by_hand(tmp_path, saved(content)).load_into(small_deeplab(auxiliary=False))


def test_checkpoint_of_another_network(tmp_path, published):
    weights = by_hand(tmp_path, published[1])
    with pytest.raises(MisureError, match=r"does not fit the network.*Missing key.*bias"):
        weights.load_into(nn.Conv2d(3, 8, 3))
    other = small_deeplab(auxiliary=False)
    other.classifier[4] = nn.Conv2d(256, 5, 1)
    with pytest.raises(MisureError, match=r"does not fit the network.*size mismatch for classifier\.4\.weight"):
        weights.load_into(other)


# --- operator lists

STEM = "tiny"


def tiny_network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.ReLU6(), nn.Conv2d(4, 2, 1))


def tiny_operators() -> list[operator_list.Operator]:
    first = {"stride": 2, "dilation": 1, "same": True, "act": "relu6", "weight": [4, 3, 3, 3]}
    last = {"stride": 1, "dilation": 1, "same": True, "act": None, "weight": [2, 4, 1, 1]}
    return [
        {"k": 0, "op": "CONV_2D", "inputs": [0], "output": 1, **first},
        {"k": 1, "op": "QUANTIZE", "inputs": [1], "output": 2},
        {"k": 2, "op": "CONV_2D", "inputs": [2], "output": 3, **last},
    ]


def listed(folder: Path, operators=None, arrays=None) -> OperatorListWeights:
    """Write two files, right ones unless told otherwise, with their digests."""
    operators = operators or tiny_operators()
    files = operator_list.write(folder, STEM, operators, arrays or operator_list.random_weights(tiny_operators()))
    return rehashed(files)


def rehashed(files: tuple[Path, Path]) -> OperatorListWeights:
    digests = tuple(digest_of(path.read_bytes()) for path in files)
    return OperatorListWeights("Tiny", files[0].parent, STEM, digests)


def test_operator_list_fills_in_order(tmp_path):
    weights, network = listed(tmp_path), tiny_network()
    assert (weights.source, weights.is_at_hand()) == ("Tiny", True)
    weights.load_into(network)
    expected = operator_list.random_weights(tiny_operators())
    assert sorted(expected) == ["00.bias", "00.weight", "02.bias", "02.weight"]
    for place in (0, 2):
        np.testing.assert_array_equal(network[place].weight.detach(), expected[f"{place:02d}.weight"])
        np.testing.assert_array_equal(network[place].bias.detach(), expected[f"{place:02d}.bias"])
    assert all(parameter.requires_grad for parameter in network.parameters())


@pytest.mark.parametrize("which", [0, 1])
def test_operator_list_missing_changed_or_cut_short(tmp_path, which):
    weights = listed(tmp_path)
    path = weights.files[which]
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    with pytest.raises(MisureError, match=f"{path.name} has sha256 .* cut short; replace it"):
        weights.load_into(tiny_network())
    with pytest.raises(MisureError, match="cannot be read"):
        rehashed(weights.files).load_into(tiny_network())
    path.unlink()
    assert not weights.is_at_hand()
    expected = f"{path.name} is missing: put {STEM}_float.npz and {STEM}_layers.json into {tmp_path}"
    with pytest.raises(MisureError, match=expected):
        weights.load_into(tiny_network())


@pytest.mark.parametrize(
    ("place", "changes", "message"),
    [
        (0, {"stride": 1}, r"operator 0 is .*, 1, 1, 'relu6'\), the network has .*, 2, 1, 'relu6'\)"),
        (0, {"dilation": 2}, "operator 0 is .*2, 2, 'relu6'"),
        (0, {"act": "relu"}, "operator 0 is .*'relu'"),
        (2, {"act": "relu6"}, "operator 2 is .*'relu6'.*None"),
        (2, {"weight": [3, 4, 1, 1]}, r"operator 2 is \(\[3, 4, 1, 1\].*\[2, 4, 1, 1\]"),
        (1, {"op": "CONV_2D"}, "lists 3 convolutions, the network has 2"),
        (0, {"op": 7}, "cannot be read"),
        (2, {"k": 9}, "cannot be read .*09.weight"),
    ],
)
def test_operators_of_another_network(tmp_path, place, changes, message):
    operators = tiny_operators()
    operators[place].update(changes)
    with pytest.raises(MisureError, match=message):
        listed(tmp_path, operators).load_into(tiny_network())


@pytest.mark.parametrize(
    "bias", [np.zeros(1), np.zeros((2, 1)), np.zeros(()), np.array(["a", "b"]), np.array([None, None])]
)
def test_arrays_that_do_not_fit(tmp_path, bias):
    """A bias of one number would otherwise be spread over all channels, and objects be unpickled."""
    arrays = operator_list.random_weights(tiny_operators()) | {"02.bias": bias}
    with pytest.raises(MisureError, match="cannot be read"):
        listed(tmp_path, arrays=arrays).load_into(tiny_network())


# --- the hub


@pytest.mark.parametrize(
    ("cached", "reachable", "failure"),
    [
        ("/cache/model.safetensors", False, None),
        (None, True, None),
        (None, False, "cannot be reached"),
        (None, True, "connection lost"),
    ],
)
def test_a_network_is_built_from_the_hub_or_warns_once(monkeypatch, cached, reachable, failure):
    looked_for = []

    def build() -> str:
        if failure:
            raise OSError("connection lost\nand more")
        return "network"

    def look(*names: str, revision: str | None) -> str | None:
        looked_for.append((*names, revision))
        return cached

    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", look)
    monkeypatch.setattr("misure.models.pretrained.is_reachable", lambda _url: reachable)
    ask = partial(built_from_hub, build, "timm/small", "v1", title="Small", weights="imagenet", advice="; wait")
    if failure:
        with pytest.warns(UserWarning, match=f"random weights, not imagenet: .*{failure}.*; wait$") as caught:
            assert ask() is None
        assert [warning.filename for warning in caught] == [__file__]
    else:
        assert ask() == "network"
    assert looked_for == [("timm/small", "model.safetensors", "v1")]
