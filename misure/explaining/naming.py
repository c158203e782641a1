"""Names of what is written: one for each image of a run, and a folder for each explanation that replaces no other."""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, islice, repeat
from pathlib import Path
from typing import Any

from misure.io.atomic import safe_name
from misure.io.finding import image_name

_LONGEST = 50
"""Bytes of a part of a folder's name: all of them and what is added stay below the 255 of a file system."""
_UNUSUAL = re.compile(r"[^\w.+-]+")
_DECIDING = ("method", "parameters", "class_id", "precision", "input", "network", "shape")


def image_names(paths: Sequence[Path]) -> list[str]:
    """Names without endings; images of one name get the ending or the folders in which they differ as well.

    Args:
        paths: Different files or folders.

    Returns:
        Names that differ in more than case or unusual characters.
    """
    levels = [0] * len(paths)
    while True:
        names = [next(islice(_candidates(path), level, None)) for path, level in zip(paths, levels, strict=True)]
        times = Counter(name.casefold() for name in names)
        alike = [index for index, name in enumerate(names) if times[name.casefold()] > 1]
        if not alike:
            return names
        for index in alike:
            levels[index] += 1


def _candidates(path: Path) -> Iterator[str]:
    """List names of an image, from the shortest to one that no other image has."""
    whole = path.absolute() if path.name not in {"", ".."} else path.resolve()
    stem = image_name(whole)
    folders = ["_".join(whole.parts[-count:-1]) for count in range(2, len(whole.parts))]
    longer = chain.from_iterable((f"{folder}_{stem}", f"{folder}_{whole.name}") for folder in folders)
    digest = hashlib.sha256(str(whole).encode(errors="surrogatepass")).hexdigest()[:8]
    yield from map(part_name, (stem, whole.name, *longer))
    yield from repeat(f"{part_name(stem)}-{digest}")


def part_name(text: str) -> str:
    """Return a text as a part of a folder's name: letters, digits and ``_.+-``, bounded, and no name of a device."""
    return safe_name(_UNUSUAL.sub("_", unicodedata.normalize("NFC", text)).strip("_.+-"), _LONGEST)


def place_of(folder: Path, manifest: Mapping[str, Any]) -> Path:
    """Return where an explanation goes: a folder, or one beside it if another explanation is there.

    Args:
        folder: The folder of its name.
        manifest: What decided the explanation: its manifest, or the entries of that name.

    Returns:
        The folder if it is new or holds an explanation of the same image, network, request and parameters.
    """
    own = _identity(manifest)
    try:
        there = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return folder  # there is none, or none that was finished
    return folder if isinstance(there, dict) and _identity(there) == own else folder.with_name(f"{folder.name}-{own}")


def _identity(manifest: Mapping[str, Any]) -> str:
    request = manifest.get("request")
    if isinstance(request, Mapping):
        request = {key: value for key, value in request.items() if key != "target"}  # which class it is decides
    deciding = {key: manifest.get(key) for key in _DECIDING} | {"request": request}
    return hashlib.sha256(json.dumps(deciding, sort_keys=True).encode()).hexdigest()[:8]
