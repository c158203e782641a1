"""Checkpoints: a safetensors file and a small JSON beside it, read without unpickling anything."""

from __future__ import annotations

import hashlib
import importlib
import inspect
import json
import pkgutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from misure.errors import MisureError, brief
from misure.io.atomic import replacing
from misure.io.download import file_digest
from misure.io.reading import check_size, reading
from misure.models.wrapper import SegmentationModel
from misure.validation import check_fields, shown

FORMAT_VERSION = 1

_MOST_BYTES = 16_000_000
_MOST_CHANNELS = 65_536

_PAPERS_SIDE = 224  # of images (paper 4.1)

TRAINED_HERE = "trained here"
"""Origin of a network that this project trained into its own outputs folder."""

PUBLISHED = "published"
"""Origin of others' weights for a network that this project describes."""

RANDOM = "random"
"""Name of the initial weights of a network that starts from none."""

_BUILDER_MODULES = frozenset(f"misure.models.{m.name}" for m in pkgutil.iter_modules([str(Path(__file__).parent)]))
"""Checkpoints name their builder; only functions ``build_...`` of this folder's files are called."""


@dataclass(frozen=True)
class CheckpointInfo:
    """The contents of the JSON beside the weights.

    Attributes:
        name: Such as ``triangle-unet_vgg16-quick``.
        network: Import path of the builder under ``_target_`` and its arguments.
        bottleneck: Layer for CAM methods.
        class_names: By class index.
        in_channels: Image channels.
        data: Origin of the training data.
        metrics: Validation metrics, with how many images they were measured on.
        training: Recipe, steps and seconds.
        versions: Package versions.
        weights: SHA-256 of the safetensors file.
        mean: Per channel, what was subtracted from images in [0, 1].
        std: Per channel, the divisor after that.
        initial_weights: Start of the training: ``"random"`` or the name of pre-trained weights; empty where there
            was no training, or in files of older versions, which do not know.
        origin: Where this file came from: :data:`TRAINED_HERE`, a place in the data root, an address, or whose
            published weights they are; empty in files of older versions, which do not know.
        format_version: Of this JSON.
    """

    name: str
    network: Mapping[str, Any]
    bottleneck: str | None
    class_names: tuple[str, ...]
    in_channels: int
    data: Mapping[str, Any]
    metrics: Mapping[str, float]
    training: Mapping[str, Any]
    versions: Mapping[str, str]
    weights: str = ""
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    initial_weights: str = ""
    origin: str = ""
    format_version: int = field(default=FORMAT_VERSION)

    @property
    def fingerprint(self) -> str:
        """First 16 digits of the weights' hash: the model's identity in records."""
        return self.weights[:16]

    @property
    def size(self) -> int | str | None:
        """Side of the images it was trained on, as the dataset's ``size`` has it; None where that is not known.

        Files of older versions do not tell it; what they name after the profile ``paper`` had the paper's images.
        """
        known = {"size": _PAPERS_SIDE} if self.name.endswith("-paper") else {}
        size: int | str | None = {**known, **self.data}.get("size")
        return size


def save_checkpoint(path: Path, network: nn.Module, info: CheckpointInfo) -> CheckpointInfo:
    """Write ``path`` (.safetensors) and ``path`` with .json, each atomically, the JSON last.

    Returns:
        ``info`` with the weights' hash filled in.

    Raises:
        MisureError: If the place cannot be written.
    """
    tensors = {k: v.detach().cpu().contiguous() for k, v in network.state_dict().items()}
    try:
        with replacing(path) as partial:
            partial.touch()
            mode = partial.stat().st_mode
            save_file(tensors, partial)
            partial.chmod(mode)  # safetensors' files are for their owner alone, whatever the umask
            info = replace(info, weights=file_digest(partial))
    except SafetensorError as error:
        raise MisureError(f"cannot write {path}: {brief(error)}; free space or choose another folder") from error
    return write_info(path, info)


def write_info(path: Path, info: CheckpointInfo) -> CheckpointInfo:
    """Write the JSON beside a checkpoint's weights, atomically, and return what it says.

    Raises:
        MisureError: If the place cannot be written.
    """
    with replacing(path.with_suffix(".json")) as partial:
        partial.write_text(json.dumps(asdict(info), indent=2), encoding="utf-8")
    return info


def read_info(path: Path) -> CheckpointInfo:
    """Read a checkpoint's JSON.

    Raises:
        MisureError: If it is missing, damaged or of another format.
    """
    description = path.with_suffix(".json")
    if not description.exists():
        raise MisureError(f"there is no checkpoint {path}: train it with misure train")
    with reading(description, "delete the checkpoint and train again"):
        check_size(description, description.stat().st_size, _MOST_BYTES)
        raw = json.loads(description.read_text(encoding="utf-8"))
        if raw.get("format_version", FORMAT_VERSION) != FORMAT_VERSION:
            raise MisureError(
                f"{description} has format {shown(raw['format_version'])}, this version reads {FORMAT_VERSION}"
            )
        lists = {name: tuple(raw[name]) for name in ("class_names", "mean", "std") if isinstance(raw.get(name), list)}
        info = CheckpointInfo(**{**raw, **lists, "network": _moved(raw["network"])})
        try:
            _check(info)
        except MisureError as error:
            raise ValueError(str(error)) from error
    return info


def _check(info: CheckpointInfo) -> None:
    """Raise a MisureError where a field is of another kind than it says, or two contradict each other."""
    check_fields(info)
    if not all(isinstance(value, tuple) for value in (info.class_names, info.mean, info.std)):
        raise MisureError("class_names, mean or std is not a list")
    if not {len(info.mean), len(info.std)} <= {1, info.in_channels}:
        raise MisureError(f"mean={shown(info.mean)} and std={shown(info.std)} are not for {info.in_channels} channels")
    if not all(info.std):
        raise MisureError(f"std={shown(info.std)} has a zero")
    for name in ("in_channels", "classes"):
        if (channels := info.network.get(name, 1)) not in range(1, _MOST_CHANNELS):
            raise MisureError(f"network.{name}={shown(channels)} is not a number of channels")
    if info.network.get("in_channels", info.in_channels) != info.in_channels:
        raise MisureError(f"in_channels={info.in_channels} is not network.in_channels={info.network['in_channels']}")
    if len(info.class_names) != max(2, info.network.get("classes", len(info.class_names))):  # 1 logit is for 2 classes
        raise MisureError(f"class_names={shown(info.class_names)} are not one for each class of the network")


def _moved(network: Mapping[str, Any]) -> dict[str, Any]:
    """Name the builder where it is now; checkpoints of versions before 0.2 have it in ``misure.networks``."""
    if not isinstance(network, Mapping):
        raise TypeError(f"network={shown(network)} is not a dictionary")
    target = network.get("_target_")
    renamed = {} if target is None else {"_target_": str(target).replace("misure.networks.", "misure.models.", 1)}
    return {**network, **renamed}


def load_checkpoint(path: Path | str, network: nn.Module | None = None) -> SegmentationModel:
    """Load a checkpoint as a model that is ready to be explained.

    Args:
        path: The .safetensors file.
        network: Where the weights go; by default the network is built as its JSON says.

    Raises:
        MisureError: If a file is missing, truncated, changed or does not fit the network.
    """
    path = Path(path)
    info = read_info(path)
    if not path.is_file():
        raise MisureError(f"{path} is missing although its JSON exists: delete the JSON and train again")
    if file_digest(path) != info.weights:
        raise MisureError(f"{path} is truncated or was changed (its hash differs from its JSON's): train again")
    network = network or _build(info, path.with_suffix(".json"))
    with reading(path, "train again"):
        tensors = load_file(path)
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        raise MisureError(f"{path} does not fit the network of this configuration: {brief(error)}") from error
    return SegmentationModel(
        network.eval(),
        bottleneck=info.bottleneck,
        class_names=info.class_names,
        in_channels=info.in_channels,
        mean=info.mean,
        std=info.std,
    )


def without_pretrained(arguments: Mapping[str, Any]) -> dict[str, None]:
    """Return the argument that makes a builder start from random weights, if it has one."""
    return {"pretrained": None} if "pretrained" in arguments else {}


def started_from(info: CheckpointInfo, initial_weights: str) -> CheckpointInfo:
    """Return a description that says what training started from, also among the builder's arguments."""
    network = dict(info.network)
    if "pretrained" in network and initial_weights == RANDOM:
        network["pretrained"] = None
    return replace(info, network=network, initial_weights=initial_weights)


def architecture(network: Mapping[str, Any]) -> dict[str, Any]:
    """Return what decides a network's layers: its builder and arguments but for where its weights come from."""
    return {name: value for name, value in network.items() if name != "pretrained"}


def _build(info: CheckpointInfo, path: Path) -> nn.Module:
    """Build the network a JSON describes; only builders of this package are called."""
    arguments = dict(info.network)
    module, _, name = str(arguments.pop("_target_", "")).rpartition(".")
    builder = vars(importlib.import_module(module)).get(name) if module in _BUILDER_MODULES else None
    if not inspect.isfunction(builder) or builder.__module__ != module or not name.startswith("build_"):
        raise MisureError(f"{path} names the builder {shown(f'{module}.{name}')}, which is not one of misure.models")
    arguments |= without_pretrained(arguments)
    try:
        with torch.random.fork_rng(devices=[]):
            network = builder(**arguments)
    except Exception as error:
        raise MisureError(f"{path} does not fit its builder {module}.{name}: {brief(error)}") from error
    if not isinstance(network, nn.Module):
        raise MisureError(f"{path}: {module}.{name} did not build a network")
    return network


def fingerprint(network: nn.Module) -> str:
    """Hash a network's weights (16 hex digits), for models that have no checkpoint file."""
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes() if tensor.ndim else b"")
    return digest.hexdigest()[:16]
