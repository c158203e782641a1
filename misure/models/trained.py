"""Networks trained elsewhere with this project: a checkpoint in a folder or on a server, checked and taken as it is."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from misure.errors import MisureError
from misure.io.atomic import replacing
from misure.io.download import fetch, file_name_of, is_reachable
from misure.models.checkpoint import CheckpointInfo, read_info, without_pretrained, write_info
from misure.models.pretrained import Elsewhere, announced, check_digest
from misure.validation import Side, shown

_MOST_BYTES = 16_000_000
_ENDINGS = (".safetensors", ".json")


class TrainedWeights(Elsewhere, Protocol):
    """A checkpoint that somebody trained with this project."""

    def import_as(self, path: Path, check: Callable[[CheckpointInfo], object]) -> CheckpointInfo:
        """Put the weights, bit by bit, and their description where a run looks for its checkpoint.

        Args:
            path: The .safetensors file to be.
            check: Raises a MisureError, before any weights are read, if they are not what is wanted.

        Returns:
            The description, which now says where the weights came from.

        Raises:
            MisureError: If they cannot be had, are damaged or are not what is wanted.
        """


@dataclass(frozen=True)
class CheckpointFile:
    """A checkpoint in a folder of the data root.

    Attributes:
        path: The .safetensors file.
        info: Its description.
    """

    path: Path
    info: CheckpointInfo

    @property
    def source(self) -> str:
        """The file, without the way to the data root."""
        return f"data root ({self.path.parent.name}/{self.path.name})"

    @property
    def download(self) -> str:
        """Nothing."""
        return ""

    def is_at_hand(self) -> bool:
        """Say that the file is here, unread."""
        return True

    def import_as(self, path: Path, check: Callable[[CheckpointInfo], object]) -> CheckpointInfo:
        """Copy the file, if it has the hash that its description names."""
        check(self.info)
        check_digest(self.path, self.info.weights)
        with replacing(path) as partial:
            shutil.copyfile(self.path, partial)
        return write_info(path, _from(self.source, self.info))


@dataclass(frozen=True)
class ServedCheckpoint:
    """A checkpoint on a server, its description under the same address with the ending .json.

    Attributes:
        url: Address of the .safetensors file.
        sha256: Of that file, 64 hexadecimal digits.
        size: Side of the images that it was trained on.
        megabytes: Size of the file, where it is known.
    """

    url: str
    sha256: str
    size: Side
    megabytes: int | None = None

    @property
    def source(self) -> str:
        """The address."""
        return self.url

    @property
    def download(self) -> str:
        """The file, its size and its server."""
        return announced(self.url, self.megabytes)

    def is_at_hand(self) -> bool:
        """Say whether the server answers within seconds."""
        return is_reachable(self.url)

    def import_as(self, path: Path, check: Callable[[CheckpointInfo], object]) -> CheckpointInfo:
        """Download the description, then the weights, if both are what this class names."""
        info = self._info()
        if info.weights != self.sha256.lower():
            raise MisureError(f"{self.url} is described as sha256 {info.weights}, the model names {self.sha256}")
        if info.size != self.size:
            raise MisureError(f"{self.url} is for images of size {shown(info.size)}, the model names {self.size}")
        check(info)
        fetch(self.url, path, digest=self.sha256)
        return write_info(path, _from(self.source, info))

    def _info(self) -> CheckpointInfo:
        parts = urlsplit(self.url)
        url = parts._replace(path=str(Path(parts.path).with_suffix(".json"))).geturl()
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder, file_name_of(self.url))
            fetch(url, place.with_suffix(".json"), digest=None, progress=False, most_bytes=_MOST_BYTES)
            try:
                return read_info(place)
            except MisureError as error:
                raise MisureError(f"{url} does not describe a checkpoint: it is another file or damaged") from error


def checkpoints_in(folder: Path) -> list[CheckpointFile]:
    """List the checkpoints of a folder, by name; the weights are not read.

    Raises:
        MisureError: If one of two files that belong together is missing, or a description is damaged.
    """
    paths = sorted({path.with_suffix(".safetensors") for path in folder.glob("[!.]*") if path.suffix in _ENDINGS})
    for path in (path.with_suffix(ending) for path in paths for ending in _ENDINGS):
        if not path.is_file():
            raise MisureError(f"{path} is missing: a checkpoint is this file and its .safetensors or .json")
    return [CheckpointFile(path, read_info(path)) for path in paths]


def _from(origin: str, info: CheckpointInfo) -> CheckpointInfo:
    """Say where weights came from; of what their training started from, say nothing that is not known."""
    network = info.network if info.initial_weights else {**info.network, **without_pretrained(info.network)}
    return replace(info, network=network, origin=origin)
