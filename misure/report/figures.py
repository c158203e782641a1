"""The figures of a run, embedded: as they are while there is room, else smaller."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from misure.io.reading import reading
from misure.plotting import JPEG_QUALITY, data_uri
from misure.report.choice import FIGURE_BYTES
from misure.report.markdown import as_html

_ANEW = "make the figures anew (misure tables)"

_THUMBNAIL = (480, 320)

_CAPTIONS = {
    "1": "Triangle: image, prediction, dilated region and the maps of the three methods.",
    "2": "Synapse: image, prediction, dilated region and the maps of the three methods, by organ.",
    "3": "COCO-2017: image, prediction, dilated region and the maps of the three methods, by class.",
    "4": "Synapse, U-Net: dilations, perturbation ratio and pixels kept against the size of the prediction.",
    "5": "Synapse, TransUNet: dilations, perturbation ratio and pixels kept against the size of the prediction.",
    "6": "Triangle: dilations, perturbation ratio and pixels kept against the size of the prediction.",
    "7": "COCO-2017: dilations, perturbation ratio and pixels kept against the size of the prediction.",
    "8": "Synapse: ROC curves of predicting reliability from MSR's features.",
    "9": "Synapse: predictions with their maps and probabilities of being reliable: of each kind the one of which the "
    "classifier is the surest and right (the paper does not say how it chose), and last its surest mistake.",
}

_BEYOND = {
    "sanity": "How alike maps stay when weights are drawn anew from the output on, or the target changes.",
    "like_for_like": "Dice explained against perturbation ratio over all thresholds.",
    "insertion_deletion": "Dice with the reference while the most salient pixels are inserted, or deleted.",
}
"""Captions of the other figures, by the beginning of their name."""


def embedded(paths: Sequence[Path], most: int = FIGURE_BYTES) -> list[dict[str, Any]]:
    """Return what the page shows of each figure.

    Room is shared evenly; small figures leave what they do not need to larger ones, which are reduced if they must.

    Args:
        paths: PNG files; ``<name>_credits.md`` beside one is shown below it.
        most: Characters of all pictures together.

    Raises:
        MisureError: If a file cannot be read.
    """
    figures = [_figure(path) for path in paths]
    by_size = sorted(figures, key=lambda figure: len(figure["uri"]))
    for n_left, figure in zip(range(len(figures), 0, -1), by_size, strict=True):
        figure["reduced"] = len(figure["uri"]) > most // n_left
        if figure["reduced"]:
            figure["uri"] = _reduced(figure["uri"], most // n_left)
        most -= len(figure["uri"])
    return figures


def thumbnail(path: Path) -> str:
    """Return the upper part of a figure as a small JPEG.

    Raises:
        MisureError: If the file cannot be read.
    """
    with reading(path, _ANEW), Image.open(path) as image:
        picture = image.convert("RGB")
    width, height = _THUMBNAIL
    upper = picture.crop((0, 0, picture.width, min(picture.height, round(picture.width * height / width))))
    upper.thumbnail(_THUMBNAIL, Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    upper.save(stream, "jpeg", quality=JPEG_QUALITY, optimize=True)
    return data_uri(stream.getvalue(), "image/jpeg")


def _figure(path: Path) -> dict[str, Any]:
    with reading(path, _ANEW):
        content = path.read_bytes()
        with Image.open(io.BytesIO(content)) as image:
            width, height = image.size
    number, _, model = path.stem.removeprefix("figure").partition("_")
    credits_file = path.with_name(f"{path.stem}_credits.md")
    words = path.stem.replace("_", " ")
    return {
        "name": path.stem,
        "title": f"Figure {number}" + (f" ({model.replace('_', ' ')})" if model else "")
        if number in _CAPTIONS
        else words[:1].upper() + words[1:],
        "caption": _CAPTIONS.get(number)
        or next((text for start, text in _BEYOND.items() if path.stem.startswith(start)), ""),
        "uri": data_uri(content, "image/png"),
        "width": width,
        "height": height,
        "credits": as_html(credits_file.read_text(encoding="utf-8")) if credits_file.exists() else "",
    }


def _reduced(uri: str, most: int) -> str:
    """Return a picture as JPEG of at most so many characters, smaller if that alone does not do."""
    with Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))) as image:
        picture = image.convert("RGB")
    scale = 1.0
    while True:
        size = [max(1, round(scale * side)) for side in picture.size]
        stream = io.BytesIO()
        picture.resize((size[0], size[1])).save(stream, "jpeg", quality=JPEG_QUALITY, optimize=True)
        uri = data_uri(stream.getvalue(), "image/jpeg")
        if len(uri) <= most or max(size) == 1:
            return uri
        scale *= 0.95 * math.sqrt(most / len(uri))
