"""The network a command names: one of this project's, published or trained, or a file, folder or id of the user's."""

from __future__ import annotations

import codecs
import hashlib
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from torch import nn

from misure.config import build
from misure.errors import MisureError
from misure.io.download import file_digest
from misure.io.reading import reading, user_path
from misure.models.checkpoint import fingerprint, load_checkpoint, read_info
from misure.models.compute import default_device
from misure.models.logits import OutputReading
from misure.models.nnunet import Result, is_result
from misure.models.pretrained import PublishedWeights
from misure.models.wrapper import SegmentationModel

_PROFILES = ("paper", "reference", "quick")
"""Which of several trainings of one network is taken: the most thorough; then any other."""


@dataclass(frozen=True)
class NamedNetwork:
    """A network and where it comes from.

    Attributes:
        model: On the device it runs on.
        origin: What the manifest says of it: ``source`` and the hash of its file or weights.
        size: Side or sides of the images it takes, where it takes no other or was trained on no other.
        result: Of nnU-Net, how images are prepared and which patches of them are taken.
    """

    model: SegmentationModel
    origin: Mapping[str, str]
    size: int | list[int] | None = None
    result: Result | None = None

    @property
    def sides(self) -> int | list[int] | None:
        """Of the images or patches it takes, where it takes no other or was trained on no other."""
        return self.size if self.result is None else self.result.patch_size

    @property
    def dimensions(self) -> int:
        """2 or 3: of the images it takes; 2 where nothing tells."""
        return self.model.image_axes or 2

    @property
    def channels(self) -> int | None:
        """Channels of the images it takes, or None where neither the model nor a first layer says."""
        if self.model.in_channels is not None:
            return self.model.in_channels
        parameters = () if self.model.module is None else self.model.module.parameters()
        first = next((p.shape[1] for p in parameters if p.ndim >= 4 and p.shape[1] in (1, 3)), None)
        return first or (len(self.model.mean) if len(self.model.mean) > 1 else None)


def named_network(cfg: DictConfig) -> NamedNetwork:
    """Load the network of a configuration (``configs/explain.yaml``) and put it on the GPU, if there is one.

    Raises:
        MisureError: If there are no weights, or the file cannot be used.
    """
    if cfg.model_file:
        network = _from_file(cfg)
    elif OmegaConf.select(cfg, "model.weights") is not None:
        network = _published(cfg)
    else:
        network = trained_network(user_path(cfg.checkpoint) if cfg.checkpoint else _checkpoint(cfg))
    _override(network.model, cfg)
    network.model.to(default_device())
    return network


def trained_network(path: Path) -> NamedNetwork:
    """Load a checkpoint of this project's.

    Raises:
        MisureError: If it cannot be read.
    """
    info = read_info(path)
    side = info.network.get("image_size") or (info.size if isinstance(info.size, int) else None)
    origin = {"source": path.name, "sha256": info.weights}
    return NamedNetwork(load_checkpoint(path), origin, int(side) if side else None)


def content_digest(path: Path, parts: Iterable[Path] | None = None) -> str:
    """SHA-256 of a file; of a folder, that of the names and digests in order of all its files, or of those given.

    An ONNX file whose weights lie in others beside it counts as the folder of these.
    """
    if path.suffix.lower() == ".onnx" and path.is_file() and (beside := _weights_beside(path)):
        return content_digest(path.parent, [path, *beside])
    if not path.is_dir():
        return file_digest(path)
    digest = hashlib.sha256()
    for part in sorted(part for part in path.rglob("*") if part.is_file()) if parts is None else parts:
        digest.update(f"{part.relative_to(path).as_posix()}\0{file_digest(part)}\n".encode())
    return digest.hexdigest()


def _weights_beside(path: Path) -> list[Path]:
    """The files that an ONNX file names as those of its weights, as PyTorch writes them unless told otherwise."""
    with path.open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as content:
        lengths = re.finditer(rb"\n\x08location\x12([\x80-\xff]?[\x01-\x7f])", content)  # of a protobuf's text
        names = {content[found.end() : found.end() + _varint(found[1])] for found in lengths}
    return [beside for name in sorted(names) if (beside := path.parent / os.fsdecode(name)).is_file()]


def _varint(content: bytes) -> int:
    return sum((byte & 0x7F) << 7 * place for place, byte in enumerate(content))


def class_names_of(value: Any) -> tuple[str, ...] | None:
    """Read names given as a list, or as a text file with one a line.

    Raises:
        MisureError: If the file cannot be read.
    """
    if value is None:
        return None
    if isinstance(value, ListConfig | Sequence) and not isinstance(value, str):
        return tuple(str(name) for name in value)
    path = user_path(value)
    with reading(f"class_names={path}", "give a list, or a text file in UTF-8 with one name a line"):
        text = path.read_bytes()
        lines = text.decode("utf-16" if text[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "utf-8-sig")
    names = [name.strip() for name in re.split("\r\n|\r|\n", lines.rstrip())]
    if "" in names:
        raise MisureError(f"class_names={path}: line {names.index('') + 1} is empty, and line 1 is the name of class 0")
    return tuple(names)


def _from_file(cfg: DictConfig) -> NamedNetwork:
    """Load a file, a folder, or what an id of the Hugging Face Hub names."""
    from misure.models.hub import fetched, is_hub_id
    from misure.models.loading import load_model

    path = user_path(cfg.model_file)
    name, fetches = path.name, is_hub_id(cfg.model_file)
    if fetches:
        path, name = fetched(cfg.model_file), str(cfg.model_file)
    with reading(f"model_file={path}", "give a network's file or folder"):
        there = path.exists()
    if not there:
        raise MisureError(f"model_file={path} does not exist")
    if path.suffix.lower() == ".safetensors" and path.with_suffix(".json").is_file():
        return trained_network(path)
    model = load_model(path, multi_label=bool(cfg.multi_label), mean=_numbers(cfg.mean), std=_numbers(cfg.std))
    model.title = name if fetches else model.title
    result = Result(path) if path.is_dir() and is_result(path) else None
    digest = content_digest(path) if result is None else content_digest(result.folder, result.files)
    return NamedNetwork(model, {"source": name, "sha256": digest}, _fixed_sides(model), result)


def _fixed_sides(model: SegmentationModel) -> list[int] | None:
    sides = [side for side in model.shape[2:] if side is not None]
    return sides if sides and len(sides) == len(model.shape) - 2 else None


def _published(cfg: DictConfig) -> NamedNetwork:
    """Put published weights into their network; the configuration's dataset names its classes."""
    weights: PublishedWeights = build(cfg.model.weights)
    network: nn.Module = build(cfg.model.network)
    try:
        weights.load_into(network)
    except MisureError as error:
        raise MisureError(f"{error}; or choose another model=..., or model_file=<your network>") from error
    model = SegmentationModel(
        network.eval(),
        bottleneck=cfg.model.bottleneck,
        class_names=tuple(cfg.dataset.class_names),
        in_channels=cfg.dataset.in_channels,
        mean=tuple(cfg.model.mean),
        std=tuple(cfg.model.std),
        title=str(cfg.model.name),
    )
    return NamedNetwork(model, {"source": weights.source, "weights_sha256_16": fingerprint(network)})


def _checkpoint(cfg: DictConfig) -> Path:
    """The most thoroughly trained checkpoint of a network, among those trained here and those in the data root.

    It brings its own network and classes; no dataset is configured here that it would have to fit, as in a sweep.

    Raises:
        MisureError: If there is none, or the network was trained on several datasets.
    """
    name, trained_here = cfg.model.name, Path(cfg.outputs, "checkpoints")
    folders = [trained_here, *sorted(Path(cfg.data_root).glob(f"*_{name}"))]
    checkpoints = [path for folder in folders for path in sorted(folder.glob(f"*-{name}-*.safetensors"))]
    if not checkpoints:
        raise MisureError(
            f"model={name} has no weights: there is no {trained_here}/*-{name}-*.safetensors; train it with "
            "misure train, choose model=deeplabv3_mobilenetv2 or name a file of your own with model_file=..."
        )
    if len({path.stem.partition("-")[0] for path in checkpoints}) > 1:
        names = ", ".join(path.name for path in checkpoints)
        raise MisureError(f"model={name} was trained on several datasets ({names}): choose one with model_file=...")
    ranks = {profile: rank for rank, profile in enumerate(_PROFILES)}
    return min(checkpoints, key=lambda path: ranks.get(path.stem.rpartition("-")[2], len(ranks)))


def _override(model: SegmentationModel, cfg: DictConfig) -> None:
    """Set what the user knows better than the network's file."""
    given: dict[str, Any] = {
        "class_names": class_names_of(cfg.class_names),
        "mean": _numbers(cfg.mean),
        "std": _numbers(cfg.std),
        "bottleneck": cfg.bottleneck,
        "in_channels": cfg.in_channels,
        "multi_label": True if cfg.multi_label else None,
        "output": None if cfg.network_output == "auto" else OutputReading(cfg.network_output),
    }
    for name, value in given.items():
        if value is not None:
            setattr(model, name, value)


def _numbers(value: Any) -> tuple[float, ...] | None:
    return None if value is None else tuple(map(float, value if isinstance(value, ListConfig) else [value]))
