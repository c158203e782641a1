"""Networks of the Hugging Face Hub by id: fetched into its cache as the folder that other readers open."""

from __future__ import annotations

import os
import re
from pathlib import Path

from misure.errors import MisureError, brief

_ID = re.compile(r"(?P<repository>[\w.-]+/[\w.-]+)(@(?P<revision>[\w./-]+))?", re.ASCII)

_ENDINGS = (".safetensors", ".pt", ".pth", ".ts", ".pt2", ".onnx", ".pkl", ".h5", ".ckpt")

FILES = (
    "config.json",
    "*.safetensors",
    "*.safetensors.index.json",
    "preprocessor_config.json",
    "processor_config.json",
    "albumentations_config_eval.json",
)
"""What is fetched: descriptions, and weights that are no pickle; no Python file, and nothing else."""


def is_hub_id(source: str | Path) -> bool:
    """Say whether a source has the form ``owner/name`` or ``owner/name@revision``, and is no path or name of a file.

    What begins with a dot or with the name of a folder here is a path, there or not.
    """
    name = str(source)
    is_path = name.startswith(".") or os.path.lexists(name.partition("/")[0]) or name.lower().endswith(_ENDINGS)
    return bool(_ID.fullmatch(name)) and not is_path


def fetched(source: str | Path) -> Path:
    """Fetch a network from the Hub, or find it in the Hub's cache when it was fetched before and nothing answers.

    The server is the one of ``HF_ENDPOINT``, the cache that of ``HF_HOME``, and what is known of a login is
    huggingface_hub's business; ``HF_HUB_OFFLINE=1`` asks no server.

    Args:
        source: ``owner/name``, with ``@`` and a branch, tag or commit where it is not the main branch.

    Returns:
        A folder with files of :data:`FILES`.

    Raises:
        MisureError: If it cannot be had.
    """
    import huggingface_hub

    found = _ID.fullmatch(str(source))
    if found is None:
        raise MisureError(f"{source} is no id of the Hugging Face Hub: owner/name, or owner/name@revision")
    try:
        folder = huggingface_hub.snapshot_download(
            found["repository"],
            revision=found["revision"],
            allow_patterns=list(FILES),
            endpoint=os.environ.get("HF_ENDPOINT"),
        )
    except Exception as error:
        raise MisureError(
            f"{source} is no path here, and as an id it cannot be had from the Hugging Face Hub ({brief(error)}): "
            "check the name and the connection, or give the folder of a copy"
        ) from error
    return Path(folder)
