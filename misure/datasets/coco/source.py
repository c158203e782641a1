"""Where COCO's images come from: the official layout, or generated scenes in the same layout."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from misure.datasets.available import Available
from misure.datasets.synthetic.scenes import SceneSpec, generated, home
from misure.errors import AbsentError, MisureError

STAND_IN = "stand-in: generated scenes"
_JPEG, _JPEG_PIXEL = 1800, 0.3  # bytes of a scene with its annotations, and of a pixel more, measured


@dataclass(frozen=True)
class CocoFiles:
    """A folder in COCO's layout.

    Attributes:
        annotations: The JSON file.
        images: The folder with the images of the split.
        source: What they are, to be put after their number.
        stand_in: Whether they are generated.
    """

    annotations: Path
    images: Path
    source: str
    stand_in: bool


def available(data_root: Path | str, scenes: SceneSpec | None = None, stand_in: Path | str = "") -> Available:
    """Say what :func:`locate` will find for the validation images; nothing is generated.

    Args:
        data_root: The user's data folder (``MISURE_DATA``).
        scenes: What scenes look like; None means photographs.
        stand_in: Where scenes are kept.
    """
    if scenes is not None:
        there = home(Path(stand_in), scenes).is_dir()
        count = 0 if there else scenes.train_images + scenes.val_images
        size = round(count * (_JPEG + _JPEG_PIXEL * scenes.size**2))
        return Available("stand-in", _scenes_name(scenes), {} if there else None, to_write=size)
    try:
        return Available("real", locate(data_root, "val").source, {})
    except AbsentError as error:
        return Available("absent", str(error))


def locate(
    data_root: Path | str, split: str, scenes: SceneSpec | None = None, stand_in: Path | None = None
) -> CocoFiles:
    """Find ``<data_root>/coco``, or generate scenes.

    Args:
        data_root: The user's data folder (``MISURE_DATA``).
        split: ``"train"`` or ``"val"``.
        scenes: What scenes look like; None means photographs.
        stand_in: Where scenes are kept.

    Raises:
        MisureError: If there is no data.
    """
    if scenes is not None:
        if stand_in is None:
            raise MisureError("generated scenes need a folder: set dataset.stand_in_folder")
        folder = generated(stand_in, scenes)
        return _location(folder, split, _scenes_name(scenes), stand_in=True)
    files = _location(Path(data_root) / "coco", split, f"COCO {split}2017 images", stand_in=False)
    if not files.annotations.is_file():
        raise AbsentError(
            f"COCO-2017 was not found: {files.annotations} does not exist.\n"
            "misure prepare dataset=coco downloads what is needed; without network put "
            f"annotations/instances_{split}2017.json and {split}2017/*.jpg into {Path(data_root) / 'coco'}.\n"
            f"Without it, model=deeplabv3_stand_in uses generated scenes, marked '{STAND_IN}'."
        )
    return files


def _scenes_name(scenes: SceneSpec) -> str:
    colours = ", classes by colour" if scenes.typical_colours else ""
    return f"{STAND_IN} ({scenes.size} x {scenes.size}, seed {scenes.seed}{colours})"


def _location(folder: Path, split: str, source: str, *, stand_in: bool) -> CocoFiles:
    return CocoFiles(folder / "annotations" / f"instances_{split}2017.json", folder / f"{split}2017", source, stand_in)
