"""Published weights: found in a folder, a cache or on a server, checked, and put into a network."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

import numpy as np
import torch
from torch import Tensor, nn

from misure.errors import MisureError, brief
from misure.io.download import fetch, file_digest, file_name_of, is_reachable
from misure.io.reading import reading

HUB = "https://huggingface.co"


class Elsewhere(Protocol):
    """Weights that need no training here."""

    @property
    def source(self) -> str:
        """A description of one line."""

    def is_at_hand(self) -> bool:
        """Say whether the weights can be expected to be had: a file is there, or a server answers."""

    @property
    def download(self) -> str:
        """The file that would be downloaded, with its size where that is known; empty for none."""


class PublishedWeights(Elsewhere, Protocol):
    """Weights that somebody published in a format of their own."""

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
        megabytes: Size of the file, where it is known.
    """

    name: str
    url: str
    digest: str
    folder: Path | str
    ignored: str = "aux_classifier."
    megabytes: int | None = None

    @property
    def source(self) -> str:
        """Its name."""
        return f"torchvision {self.name}"

    def is_at_hand(self) -> bool:
        """Say whether a file is here, unread, or its server answers within seconds."""
        return not self.download or is_reachable(self.url)

    @property
    def download(self) -> str:
        """The file, its size and its server."""
        if any(path.is_file() for path in self._places()):
            return ""
        return announced(self.url, self.megabytes)

    def load_into(self, network: nn.Module) -> None:
        """Fill a network from the local file, the cache or the server."""
        path = self._file()
        tensors = _read_tensors(path)
        try:
            network.load_state_dict({k: v for k, v in tensors.items() if not k.startswith(self.ignored)})
        except RuntimeError as error:
            raise MisureError(f"{path} does not fit the network of this configuration: {brief(error)}") from error

    def _places(self) -> tuple[Path, Path]:
        file_name = file_name_of(self.url)
        return Path(self.folder, file_name), Path(torch.hub.get_dir(), "checkpoints", file_name)

    def _file(self) -> Path:
        by_hand, cached = self._places()
        if by_hand.is_file():
            check_digest(by_hand, self.digest)
            return by_hand
        if not (cached.is_file() and file_digest(cached).startswith(self.digest)):
            try:
                self._download(cached)
            except MisureError as error:
                raise MisureError(f"{error}; put {by_hand.name} into {by_hand.parent} by hand") from error
        return cached

    def _download(self, path: Path) -> None:
        if not is_reachable(self.url):
            raise MisureError(f"{urlsplit(self.url).netloc} does not answer")
        fetch(self.url, path, digest=self.digest)


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

    @property
    def download(self) -> str:
        """Nothing: the files are put into the folder by hand."""
        return ""

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
        weights, listing = self.files
        with reading(f"{weights} with {listing.name}", "place the published files there"):
            operators = [op for op in json.loads(listing.read_text(encoding="utf-8")) if op["op"].endswith("CONV_2D")]
            _check_fit(operators, list(_convolutions(network)), listing)
            with weights.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
                for operator, (convolution, _) in zip(operators, _convolutions(network), strict=True):
                    for parameter in ("weight", "bias"):
                        _fill(getattr(convolution, parameter), arrays[f"{operator['k']:02d}.{parameter}"])


def announced(url: str, megabytes: int | None) -> str:
    """Name a file to be downloaded, with its size where that is known, and its server."""
    size = f", {megabytes} MB" if megabytes else ""
    return f"{file_name_of(url)}{size}, from {urlsplit(url).netloc}"


def check_digest(path: Path, digest: str) -> None:
    """Raise a MisureError unless a file's SHA-256 starts with ``digest``."""
    try:
        actual = file_digest(path)
    except OSError as error:
        raise MisureError(f"{path} cannot be read: {error.strerror}") from error
    if not actual.startswith(digest):
        raise MisureError(
            f"{path} has sha256 {actual[:16]}..., expected {digest[:16]}...: it was changed or cut short; "
            "replace it by the published file"
        )


def _read_tensors(path: Path) -> dict[str, Tensor]:
    """Read a state dict; code in it is not run."""
    with reading(path, "replace it by the published file"):
        content = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise MisureError(f"{path} holds no tensors by name: it is no checkpoint of a network")
    return content


def _convolutions(network: nn.Module) -> Iterator[tuple[nn.Conv2d, str | None]]:
    """Walk through convolutions and the activation behind each."""
    leaves = [module for module in network.modules() if not any(module.children())]
    names = {nn.ReLU6: "relu6", nn.ReLU: "relu"}
    for place, leaf in enumerate(leaves):
        if isinstance(leaf, nn.Conv2d):
            yield leaf, names.get(type(leaves[place + 1])) if place + 1 < len(leaves) else None


def _check_fit(
    operators: Sequence[Mapping[str, Any]], convolutions: Sequence[tuple[nn.Conv2d, str | None]], path: Path
) -> None:
    if len(operators) != len(convolutions):
        raise MisureError(f"{path} lists {len(operators)} convolutions, the network has {len(convolutions)}")
    for operator, (convolution, activation) in zip(operators, convolutions, strict=True):
        ours = (list(convolution.weight.shape), convolution.stride[0], convolution.dilation[0], activation)
        theirs = (operator["weight"], operator["stride"], operator["dilation"], operator["act"])
        if ours != theirs:
            raise MisureError(f"{path}: operator {operator['k']} is {theirs}, the network has {ours}")


@torch.no_grad()
def _fill(parameter: nn.Parameter, values: np.ndarray) -> None:
    if values.shape != parameter.shape:
        raise ValueError(f"an array has shape {values.shape}, expected {tuple(parameter.shape)}")
    parameter.copy_(torch.from_numpy(values))


def is_cached(repository: str, revision: str | None = None) -> bool:
    """Say whether the hub's cache on this machine holds the weights of a repository."""
    from huggingface_hub import try_to_load_from_cache

    return isinstance(try_to_load_from_cache(repository, "model.safetensors", revision=revision), str)


def built_from_hub(
    build: Callable[[], Any],
    repository: str,
    revision: str | None = None,
    *,
    title: str,
    weights: str,
    advice: str = "",
    stacklevel: int = 1,
) -> Any | None:
    """Build a network with weights of the hub, or warn once that its training starts from random ones.

    Args:
        build: Downloads the weights, unless they are cached, and builds the network.
        repository: The weights' repository, which is not asked if the hub does not answer within seconds.
        revision: Their version.
        title: The network, in the warning.
        weights: Name of the weights, in the warning.
        advice: End of the warning.
        stacklevel: Of the warning, counted from the caller.

    Returns:
        The network, or None where the weights cannot be had.
    """
    reason = f"{HUB} cannot be reached and no cached copy exists"
    if is_cached(repository, revision) or is_reachable(HUB):
        try:
            return build()
        except (OSError, ValueError, RuntimeError) as error:
            reason = str(error).splitlines()[0]
    warnings.warn(
        f"{title}: training starts from random weights, not {weights}: {reason}{advice}", stacklevel=stacklevel + 1
    )
    return None
