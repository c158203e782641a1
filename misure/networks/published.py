"""Published weights: where they may lie, whether they can be had, and putting them into a network."""

from __future__ import annotations

import json
import pickle
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

import numpy as np
import torch
from torch import nn

from misure.download import fetch, file_digest, is_reachable
from misure.errors import MisureError
from misure.networks.deeplab_mobilenet import SamePadding


class PublishedWeights(Protocol):
    """Weights that somebody published."""

    @property
    def source(self) -> str:
        """What they are, in one line."""

    def is_at_hand(self) -> bool:
        """Say whether :meth:`load_into` can be expected to work: a file is there, or a server answers."""

    def load_into(self, network: nn.Module) -> None:
        """Fill a network.

        Raises:
            MisureError: If the weights cannot be had, are damaged or do not fit.
        """


@dataclass(frozen=True)
class TorchvisionWeights:
    """One of torchvision's checkpoints.

    Attributes:
        name: As torchvision calls it.
        url: Where it is downloaded from, into PyTorch's own cache.
        digest: Start of the file's SHA-256, as in its name.
        folder: Where the user may put it instead.
        ignored: Prefix of entries that the network has no place for.
    """

    name: str
    url: str
    digest: str
    folder: Path | str
    ignored: str = "aux_classifier."

    @property
    def source(self) -> str:
        """Its name."""
        return f"torchvision {self.name}"

    def is_at_hand(self) -> bool:
        """Say whether the file is here or its server answers."""
        return any(path.is_file() for path in self._places()) or is_reachable(self.url)

    def load_into(self, network: nn.Module) -> None:
        """Fill a network from the local file, the cache or the server."""
        path = self._file()
        try:
            tensors = torch.load(path, map_location="cpu", weights_only=True)
            network.load_state_dict({k: v for k, v in tensors.items() if not k.startswith(self.ignored)})
        except (OSError, RuntimeError, EOFError, pickle.UnpicklingError, zipfile.BadZipFile) as error:
            reason = " ".join(str(error).split())[:200]
            raise MisureError(f"{path} cannot be used: {reason}; delete it to download it again") from error

    def _places(self) -> tuple[Path, Path]:
        file_name = Path(urlsplit(self.url).path).name
        return Path(self.folder, file_name), Path(torch.hub.get_dir(), "checkpoints", file_name)

    def _file(self) -> Path:
        by_hand, cached = self._places()
        if by_hand.is_file():
            check_digest(by_hand, self.digest)
            return by_hand
        try:
            return fetch(self.url, cached, digest=self.digest)
        except MisureError as error:
            raise MisureError(
                f"the weights {self.name} cannot be had ({error}): put {by_hand.name} into {by_hand.parent}, or take "
                "model=deeplabv3_mobilenetv2 or model=deeplabv3_stand_in"
            ) from error


@dataclass(frozen=True)
class OperatorListWeights:
    """Float weights of a TensorFlow Lite graph, with the list of its operators as a check.

    ``<stem>_float.npz`` holds ``<index>.weight`` (OIHW) and ``<index>.bias`` of every convolution;
    ``<stem>_layers.json`` lists the operators with stride, dilation and activation.

    Attributes:
        name: What the network is.
        folder: Where the two files are.
        stem: How their names begin.
        digests: Their SHA-256, weights first.
    """

    name: str
    folder: Path | str
    stem: str
    digests: tuple[str, str]

    @property
    def source(self) -> str:
        """Its name."""
        return self.name

    @property
    def files(self) -> tuple[Path, Path]:
        """Weights and operators."""
        return Path(self.folder, f"{self.stem}_float.npz"), Path(self.folder, f"{self.stem}_layers.json")

    def is_at_hand(self) -> bool:
        """Say whether both files are there."""
        return all(path.is_file() for path in self.files)

    def load_into(self, network: nn.Module) -> None:
        """Fill a network whose convolutions come in the order of the operators."""
        for path, digest in zip(self.files, self.digests, strict=True):
            if not path.is_file():
                names = " and ".join(file.name for file in self.files)
                raise MisureError(f"{path} is missing: put {names} into {self.folder}")
            check_digest(path, digest)
        weights, operators = self.files
        listed = [op for op in json.loads(operators.read_text(encoding="utf-8")) if op["op"].endswith("CONV_2D")]
        convolutions = list(_convolutions(network))
        if len(listed) != len(convolutions):
            raise MisureError(f"{operators} lists {len(listed)} convolutions, the network has {len(convolutions)}")
        with np.load(weights, allow_pickle=False) as arrays:
            for operator, (convolution, activation) in zip(listed, convolutions, strict=True):
                _check_fit(operator, convolution, activation, operators)
                _fill(convolution, arrays[f"{operator['k']:02d}.weight"], arrays[f"{operator['k']:02d}.bias"])


def check_digest(path: Path, digest: str) -> None:
    """Raise a MisureError unless a file's SHA-256 starts with ``digest``."""
    found = file_digest(path)
    if not found.startswith(digest):
        raise MisureError(f"{path} has sha256 {found[:16]}..., expected {digest[:16]}...: it was changed or cut short")


def _convolutions(network: nn.Module) -> Iterator[tuple[nn.Conv2d, str | None]]:
    """Walk through convolutions and the activation behind each."""
    leaves = [m for m in network.modules() if not any(m.children()) and not isinstance(m, SamePadding)]
    names = {nn.ReLU6: "relu6", nn.ReLU: "relu"}
    for place, leaf in enumerate(leaves):
        if isinstance(leaf, nn.Conv2d):
            yield leaf, names.get(type(leaves[place + 1])) if place + 1 < len(leaves) else None


def _check_fit(operator: Mapping[str, Any], convolution: nn.Conv2d, activation: str | None, path: Path) -> None:
    ours = (list(convolution.weight.shape), convolution.stride[0], convolution.dilation[0], activation)
    theirs = (operator["weight"], operator["stride"], operator["dilation"], operator["act"])
    if ours != theirs:
        raise MisureError(f"{path}: operator {operator['k']} is {theirs}, the network has {ours}")


@torch.no_grad()
def _fill(convolution: nn.Conv2d, weight: np.ndarray, bias: np.ndarray) -> None:
    convolution.weight.copy_(torch.from_numpy(weight))
    assert convolution.bias is not None  # noqa: S101 - our convolutions have one
    convolution.bias.copy_(torch.from_numpy(bias))
