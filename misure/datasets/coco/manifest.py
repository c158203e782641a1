"""What was downloaded: ``downloads.json`` in COCO's folder, one entry for each file that passed its check."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from misure.errors import MisureError
from misure.io.atomic import write_atomically
from misure.io.download import file_digest


@dataclass(frozen=True)
class FileRecord:
    """A file that passed its check.

    Attributes:
        url: Where it came from; None if it was put there by hand.
        bytes: Its size.
        sha256: Its hash.
    """

    url: str | None
    bytes: int
    sha256: str

    @classmethod
    def of(cls, path: Path, url: str | None) -> FileRecord:
        """Describe a file."""
        return cls(url, path.stat().st_size, file_digest(path))


class DownloadManifest:
    """Records by path below COCO's folder.

    Args:
        path: The JSON file; it need not exist.

    Raises:
        MisureError: If it is damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            entries = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
            self.files = {str(name): FileRecord(**entry) for name, entry in entries.items()}
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise MisureError(f"{path} is damaged ({error}): delete it, and what is there is checked anew") from error
        self._saved = dict(self.files)

    def save(self) -> None:
        """Write it if anything is new.

        Raises:
            MisureError: If the folder cannot be written.
        """
        if self.files == self._saved:
            return
        entries = {name: asdict(self.files[name]) for name in sorted(self.files)}
        text = json.dumps(entries, indent=1) + "\n"
        write_atomically(self.path, lambda partial: partial.write_text(text, encoding="utf-8"))
        self._saved = dict(self.files)
