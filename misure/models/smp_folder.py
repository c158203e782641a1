"""Folders of segmentation_models_pytorch: the network, and the normalisation that lies beside it where one does."""

from __future__ import annotations

import contextlib
import inspect
import io
import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from misure.errors import MisureError
from misure.io.reading import reading

_TRANSFORMS = "albumentations_config_eval.json"
"""Where albumentations' ``save_pretrained`` writes, beside smp's, the steps of evaluation."""

_SIZES = {"Resize", "PadIfNeeded", "CenterCrop", "LongestMaxSize", "SmallestMaxSize", "ToTensorV2", "NoOp"}
"""Steps that leave values as they are; size is the user's business here."""

_PROBABILITIES = ("sigmoid", "softmax", "softmax2d")


def smp_class(config: Mapping[str, Any]) -> str | None:
    """Return the name of the architecture that a config.json is for; None if smp did not write it."""
    name = config.get("_model_class")
    return name if isinstance(name, str) else None


def open_smp(folder: Path, config: Mapping[str, Any], *, told: bool) -> tuple[nn.Module, dict[str, Any]]:
    """Open a folder that ``save_pretrained`` of segmentation_models_pytorch wrote.

    Nothing else is fetched: weights of the encoder alone, from which the training began, are not.

    Args:
        folder: With config.json and model.safetensors.
        config: What its config.json says.
        told: Whether the user gives mean and std.

    Returns:
        The network and the arguments of :class:`misure.SegmentationModel` that the folder brings.

    Raises:
        MisureError: If it is incomplete or damaged, or smp has no such architecture.
    """
    import segmentation_models_pytorch as smp

    kind: Any = getattr(smp, str(smp_class(config)), None)
    is_network = inspect.isclass(kind) and issubclass(kind, smp.base.SegmentationModel)
    if not is_network:
        raise MisureError(f"{folder} is for {smp_class(config)}, which segmentation_models_pytorch does not have")
    if ":" in str(config.get("encoder_name")):  # of timm's "hf-hub:" and "local-dir:", which read other places
        raise MisureError(f"{folder} has an encoder from elsewhere, {config['encoder_name']}: build it in Python")
    with reading(folder, "it may be damaged, or incomplete"), contextlib.redirect_stdout(io.StringIO()):
        network = kind.from_pretrained(folder, encoder_weights=None, strict=True)
        description: dict[str, Any] = {"in_channels": int(config.get("in_channels", 3))}
        if config.get("activation") in _PROBABILITIES:
            description["output"] = "probabilities"
    return network.eval(), description | ({} if told else _normalisation(folder))


def _normalisation(folder: Path) -> dict[str, tuple[float, ...]]:
    """Return mean and std of images in [0, 1] by the steps beside the network; warn where they do not say it."""
    path = folder / _TRANSFORMS
    if path.is_file():
        with reading(path, "give mean and std"):
            steps = json.loads(path.read_text(encoding="utf-8"))["transform"]["transforms"]
            changing = [step for step in steps if _name(step) not in _SIZES]
            if not changing:
                return {"mean": (0.0,), "std": (1 / 255,)}
            if [_name(step) for step in changing] == ["Normalize"]:
                (step,) = changing
                if step.get("normalization", "standard") == "standard":
                    share = step.get("max_pixel_value", 255) / 255
                    return {key: tuple(share * float(value) for value in step[key]) for key in ("mean", "std")}
    warnings.warn(f"{folder.name} does not say how images are prepared: give mean and std", stacklevel=5)
    return {}


def _name(step: Mapping[str, Any]) -> str:
    return str(step["__class_fullname__"]).rpartition(".")[2]
