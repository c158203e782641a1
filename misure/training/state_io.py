"""Lightning's seam to the files of half-done trainings."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.plugins.io import TorchCheckpointIO

from misure.io.atomic import write_atomically
from misure.training.state import read_state, sync


class StateIO(TorchCheckpointIO):
    """Lightning's reading and writing of states: with a checksum, and on the disk when it says so."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write a state whole or not at all."""
        del storage_options
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)

        def write(partial: Path) -> None:
            with partial.open("wb") as stream:
                stream.write(hashlib.sha256(buffer.getbuffer()).digest())
                stream.write(buffer.getbuffer())

        sync(write_atomically(Path(path), write))

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = True) -> dict[str, Any]:
        """Read a state onto the CPU."""
        del map_location, weights_only
        return read_state(Path(path))
