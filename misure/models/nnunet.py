"""Results of nnU-Net v2: the plans, and the network of one fold with its full resolution as the only output.

What nnU-Net does around it is no part of it: :mod:`misure.explaining.patches` prepares a case as the plans say.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import nn

from misure.errors import MisureError
from misure.io.reading import reading

_FOLDS = ("fold_0", "fold_1", "fold_2", "fold_3", "fold_4", "fold_all")
_CHECKPOINTS = ("checkpoint_final.pth", "checkpoint_best.pth")
_OWN = ("dynamic_network_architectures.", "torch.nn.")
"""Packages of which plans may name layers and networks; whatever else they name would be called."""

_ADVICE = "it may be damaged, or no result of nnU-Net v2"


def is_result(folder: Path) -> bool:
    """Say whether a folder is ``<trainer>__<plans>__<configuration>`` of nnU-Net's results, or a fold in one."""
    return all((_whole(folder) / name).is_file() for name in ("plans.json", "dataset.json"))


def _whole(folder: Path) -> Path:
    return folder.resolve().parent if folder.resolve().name in _FOLDS else folder


def layer_class(name: str) -> type[nn.Module]:
    """Return the layer or network that plans name, as ``<module>.<class>``.

    Raises:
        MisureError: If it is none of PyTorch's or of nnU-Net's, or reached by way of what a module imports.
    """
    if name.startswith(_OWN):
        place, _, title = name.rpartition(".")
        kind = _member(place, title)
        is_layer = isinstance(kind, type) and issubclass(kind, nn.Module) and kind.__module__.startswith(_OWN)
        if is_layer and _member(kind.__module__, kind.__qualname__) is kind:
            return cast("type[nn.Module]", kind)
    raise MisureError(f"plans.json names a network of its own, {name}: build it and pass it to explain")


def _member(module: str, name: str) -> Any:
    try:
        return vars(importlib.import_module(module)).get(name)
    except ImportError:
        return None


def built(name: str, arguments: Mapping[str, Any], imported: Iterable[str], channels: int, heads: int) -> nn.Module:
    """Build a network from plans as nnU-Net does, with its full resolution as the only output.

    Args:
        name: Of its class.
        arguments: Of the class.
        imported: Which of the arguments are names of layers.
        channels: Of the images.
        heads: Channels of the output.

    Raises:
        MisureError: If a class is foreign.
    """
    layers = {key: layer_class(str(arguments[key])) for key in imported if arguments[key] is not None}
    own = {"input_channels": channels, "num_classes": heads, "deep_supervision": False}
    return layer_class(name)(**{**arguments, **layers, **own})


def scales(schemes: Iterable[str], intensities: Mapping[str, Mapping[str, float]]) -> dict[str, tuple[float, ...]]:
    """Mean and std of images in [0, 1], by channel, of the plans' schemes and foreground intensities.

    For CT, 0 and 1 are the plans' percentiles. Where a scan is normalised by its own mean and standard deviation,
    which no mean and std here can do, they are 5 of its deviations below and above its mean.
    """
    found = []
    for channel, scheme in enumerate(schemes):
        mean, std = (0.5, 0.1) if scheme == "ZScoreNormalization" else (0.0, 1.0)
        if scheme == "CTNormalization":
            known = intensities[str(channel)]
            low, high = known["percentile_00_5"], known["percentile_99_5"]
            mean, std = (known["mean"] - low) / (high - low), max(known["std"], 1e-8) / (high - low)
        found.append((mean, std))
    return {"mean": tuple(mean for mean, _ in found), "std": tuple(std for _, std in found)}


class Result:
    """A folder of nnU-Net's results.

    Args:
        folder: With plans.json, dataset.json and fold_0 (or another, of which the first is taken); or the fold.

    Raises:
        MisureError: If it is incomplete or damaged, or its network needs the prediction of another.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = _whole(folder)
        folds = [folder.resolve()] if folder != self.folder else [folder / name for name in _FOLDS]
        found = [fold / name for fold in folds for name in _CHECKPOINTS if (fold / name).is_file()]
        if not found:
            raise MisureError(f"{folder} has no {_FOLDS[0]}/{_CHECKPOINTS[0]}: copy the folder with its checkpoint")
        self.checkpoint = found[0]
        from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

        with reading(self.folder, _ADVICE):
            plans, self.dataset = (
                json.loads((self.folder / name).read_text(encoding="utf-8")) for name in ("plans.json", "dataset.json")
            )
            self.plans = PlansManager(plans)
            self.configuration = self.plans.get_configuration(self.folder.resolve().name.rpartition("__")[2])
            self.labels = self.plans.get_label_manager(self.dataset)
            self.patch_size = [int(side) for side in self.configuration.patch_size]
            self.channels = len(self.dataset.get("channel_names") or self.dataset["modality"])
        if self.configuration.previous_stage_name is not None:
            raise MisureError(f"{folder} is the second stage of a cascade: explain another configuration")

    @property
    def files(self) -> list[Path]:
        """What the network and the preparation of its images come from: the descriptions and one checkpoint."""
        return [self.folder / "plans.json", self.folder / "dataset.json", self.checkpoint]

    @cached_property
    def class_names(self) -> tuple[str, ...]:
        """By channel of the output: classes, or overlapping regions, which have no background."""
        named = {name: label for name, label in self.dataset["labels"].items() if name != "ignore"}
        if self.labels.has_regions:
            return tuple(name for name, label in named.items() if np.any(label))
        return tuple(sorted(named, key=lambda name: int(named[name])))

    @cached_property
    def normalisation(self) -> dict[str, tuple[float, ...]]:
        """Mean and std of images in [0, 1], by channel, see :func:`scales`."""
        intensities = self.plans.foreground_intensity_properties_per_channel
        return scales(self.configuration.normalization_schemes, intensities)

    def network(self) -> nn.Module:
        """Build the network of the plans with the weights of the fold, returning its full resolution alone.

        Raises:
            MisureError: If the plans name foreign classes, or the checkpoint is damaged, of another network or more
                than numbers and text.
        """
        plan = self.configuration
        with reading(self.checkpoint, f"{_ADVICE}, or its trainer builds another network than its plans say"):
            network = built(
                *(plan.network_arch_class_name, plan.network_arch_init_kwargs),
                *(plan.network_arch_init_kwargs_req_import, self.channels, self.labels.num_segmentation_heads),
            )
            with torch.serialization.safe_globals(_numbers_of_numpy()):
                state = torch.load(self.checkpoint, map_location="cpu", weights_only=True)
            network.load_state_dict(state["network_weights"])
        return network.eval()


def open_result(folder: Path) -> tuple[nn.Module, dict[str, Any]]:
    """Open a result of nnU-Net v2.

    Returns:
        The network and the arguments of :class:`misure.SegmentationModel` that the folder brings.

    Raises:
        MisureError: As :class:`Result` and :meth:`Result.network` do.
    """
    result = Result(folder)
    return result.network(), {
        "class_names": result.class_names,
        "in_channels": result.channels,
        "multi_label": result.labels.has_regions,
        **result.normalisation,
    }


def _numbers_of_numpy() -> list[Any]:
    """List what nnU-Net's checkpoints hold beside tensors, text and Python's numbers: numbers of its history."""
    scalar = np.float64(0).__reduce__()[0]
    old = (scalar, "numpy.core.multiarray.scalar")  # as NumPy 1 names it
    return [scalar, old, np.dtype, np.dtypes.Float64DType, np.dtypes.Float32DType]
