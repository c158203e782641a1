"""Hugging Face folders: the network, its classes, and how its own image processor prepares images."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from misure.errors import MisureError
from misure.io.reading import reading
from misure.models.normalisation import normalised

_DESCRIPTIONS = ("preprocessor_config.json", "processor_config.json")
_SIZES = ("do_resize", "do_center_crop", "do_pad")
"""Steps that change an image's size, which is the user's business here."""

_FOLLOWED = {*_SIZES, "do_flip_channel_order", "do_rescale", "do_normalize", "do_convert_rgb", "do_reduce_labels"}
"""Steps that are followed, or concern reference labels alone (``do_reduce_labels``)."""

_ADVICE = "prepare images yourself and give mean and std, or pass the network to misure.explain"

_LOCAL = {"local_files_only": True, "trust_remote_code": False}

_Normalisation = dict[str, tuple[float, ...]]

_CLOSE = 1e-4
"""By how much, relative to their spread, prepared pixels may differ from the processor's own."""


def open_folder(folder: Path, transformers: Any, *, told: bool) -> tuple[nn.Module, dict[str, Any]]:
    """Open a folder that ``save_pretrained`` wrote.

    Args:
        folder: With config.json, safetensors and, from the image processor, preprocessor_config.json.
        transformers: The package.
        told: Whether the user gives mean and std; then it does not matter whether the folder's own are understood.

    Returns:
        The network, whose channels are exchanged in front of it where it takes BGR, and the arguments of
        :class:`misure.SegmentationModel` that the folder brings.

    Raises:
        MisureError: If it is incomplete, damaged, no network that gives logits for every pixel, or if images are
            prepared in a way that a mean and a standard deviation do not reproduce.
    """
    with reading(folder, "it may be damaged, or no Hugging Face model for semantic segmentation"):
        config = transformers.AutoConfig.from_pretrained(folder, **_LOCAL)
        if type(config) not in transformers.MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING:
            raise MisureError(f"{folder} holds a network of type {config.model_type}, which gives no logits by pixel")
        network, report = transformers.AutoModelForSemanticSegmentation.from_pretrained(
            folder, config=config, use_safetensors=True, output_loading_info=True, **_LOCAL
        )
    if absent := sorted(report["missing_keys"]):
        raise MisureError(f"{folder} lacks {len(absent)} weights of its network, such as {absent[0]}: it is incomplete")
    names = [str(config.id2label.get(i, f"class_{i}")) for i in range(config.num_labels)]
    channels = _channels(config)
    normalisation, bgr = _normalisation(folder, transformers, channels or 3, told=told)
    if bgr:
        network.register_forward_pre_hook(_exchange_channels)
    return network.eval(), {
        "class_names": ["background", *names] if len(names) == 1 else names,  # a sigmoid head becomes two logits
        "in_channels": channels,
        **normalisation,
    }


def _channels(config: Any) -> int | None:
    backbone = getattr(config, "backbone_config", None)
    found = getattr(config, "num_channels", getattr(backbone, "num_channels", None))
    return found if isinstance(found, int) else None


def _exchange_channels(_: nn.Module, arguments: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    images, *others = arguments
    return images.flip(1), *others


def _normalisation(folder: Path, transformers: Any, channels: int, *, told: bool) -> tuple[_Normalisation, bool]:
    """Return mean and std of images in [0, 1] as the folder's processor has them, and whether it makes them BGR."""
    if not any((folder / name).is_file() for name in _DESCRIPTIONS):
        if not told:
            warnings.warn(f"{folder.name} does not say how images are prepared: give mean and std", stacklevel=5)
        return {}, False
    try:
        with reading(folder, _ADVICE):
            processor = transformers.AutoImageProcessor.from_pretrained(folder, **_LOCAL)
            return _reproduced(folder, processor, processor.to_dict(), channels)
    except MisureError:
        if told:
            return {}, False
        raise


def _reproduced(folder: Path, processor: Any, steps: Mapping[str, Any], channels: int) -> tuple[_Normalisation, bool]:
    """Find mean and std, and the order of channels, that make of pixels what a processor makes of them."""
    used = [name for name, value in steps.items() if name.startswith("do_") and value]
    if unknown := [name for name in used if name not in _FOLLOWED]:
        raise MisureError(f"{folder} prepares images with {', '.join(unknown)}, which is not understood: {_ADVICE}")
    own_size = {name: False for name in _SIZES if name in steps}

    def prepared(pixels: np.ndarray) -> Tensor:
        given = processor(pixels, input_data_format="channels_last", return_tensors="pt", **own_size)
        return torch.as_tensor(given["pixel_values"][0]).float()

    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, channels), dtype=np.uint8)
    right, fractions = prepared(pixels), torch.from_numpy(pixels).permute(2, 0, 1) / 255
    if right.shape != fractions.shape:
        raise MisureError(f"{folder} makes {tuple(right.shape)} of an image ({', '.join(used)}): {_ADVICE}")
    low, high = (prepared(np.full_like(pixels, value)).mean((1, 2)) for value in (51, 204))
    std = 0.6 / (high - low)
    measured = {"mean": tuple((0.2 - low * std).tolist()), "std": tuple(std.tolist())}
    for found in (_described(steps), measured, {name: values[::-1] for name, values in measured.items()}):
        ours = normalised(fractions, **found)
        for bgr, image in ((False, ours), (True, ours.flip(0))):
            if torch.allclose(image, right, rtol=0, atol=_CLOSE * float(right.std())):
                return found, bgr
    raise MisureError(f"{folder} prepares images ({', '.join(used)}) as no mean and std can: {_ADVICE}")


def _described(steps: Mapping[str, Any]) -> _Normalisation:
    if not steps.get("do_normalize"):
        return {"mean": (0.0,), "std": (1.0,)}
    return {key: tuple(np.atleast_1d(steps[f"image_{key}"]).tolist()) for key in ("mean", "std")}
