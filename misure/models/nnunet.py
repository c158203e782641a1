"""Results of nnU-Net v2: the plans, and the network of one fold with its full resolution as the only output.

What nnU-Net does around it is no part of it: :mod:`misure.explaining.patches` prepares a case as the plans say.
"""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from misure.errors import MisureError
from misure.io.reading import reading

_FOLDS = ("fold_0", "fold_1", "fold_2", "fold_3", "fold_4", "fold_all")
_CHECKPOINTS = ("checkpoint_final.pth", "checkpoint_best.pth")
_OWN = ("dynamic_network_architectures.", "torch.nn.")
"""Packages of which plans may name classes; whatever else they name would be called."""

_ADVICE = "it may be damaged, or no result of nnU-Net v2"


def is_result(folder: Path) -> bool:
    """Say whether a folder is ``<trainer>__<plans>__<configuration>`` of nnU-Net's results, or a fold in one."""
    return all((_whole(folder) / name).is_file() for name in ("plans.json", "dataset.json"))


def _whole(folder: Path) -> Path:
    return folder.resolve().parent if folder.resolve().name in _FOLDS else folder


class Result:
    """A folder of nnU-Net's results.

    Args:
        folder: With plans.json, dataset.json and fold_0 (or another, of which the first is taken); or the fold.

    Raises:
        MisureError: If it is incomplete or damaged, or its network needs the prediction of another.
    """

    def __init__(self, folder: Path) -> None:
        from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

        self.folder = _whole(folder)
        folds = [folder] if folder != self.folder else [folder / name for name in _FOLDS]
        found = [fold / name for fold in folds for name in _CHECKPOINTS if (fold / name).is_file()]
        if not found:
            raise MisureError(f"{folder} has no {_FOLDS[0]}/{_CHECKPOINTS[0]}: copy the folder with its checkpoint")
        self.checkpoint = found[0]
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

    @cached_property
    def class_names(self) -> tuple[str, ...]:
        """By channel of the output: classes, or overlapping regions, which have no background."""
        named = {name: label for name, label in self.dataset["labels"].items() if name != "ignore"}
        if self.labels.has_regions:
            return tuple(name for name, label in named.items() if np.any(label))
        return tuple(sorted(named, key=lambda name: int(named[name])))

    @cached_property
    def normalisation(self) -> dict[str, tuple[float, ...]]:
        """Mean and std of images in [0, 1], by channel.

        For CT, 0 and 1 are the plans' percentiles. Where a scan is normalised by its own mean and standard deviation,
        which no mean and std here can do, they are 5 of its deviations below and above its mean.
        """
        scales = [(0.0, 1.0)] * self.channels
        for channel, scheme in enumerate(self.configuration.normalization_schemes):
            if scheme == "CTNormalization":
                known = self.plans.foreground_intensity_properties_per_channel[str(channel)]
                low, high = known["percentile_00_5"], known["percentile_99_5"]
                scales[channel] = ((known["mean"] - low) / (high - low), max(known["std"], 1e-8) / (high - low))
            elif scheme == "ZScoreNormalization":
                scales[channel] = (0.5, 0.1)
        return {"mean": tuple(mean for mean, _ in scales), "std": tuple(std for _, std in scales)}

    def network(self) -> nn.Module:
        """Build the network of the plans with the weights of the fold, returning its full resolution alone.

        Raises:
            MisureError: If the plans name foreign classes, or the checkpoint is damaged, of another network or more
                than numbers and text.
        """
        from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

        kind, arguments = self.configuration.network_arch_class_name, self.configuration.network_arch_init_kwargs
        imported = self.configuration.network_arch_init_kwargs_req_import
        for name in (kind, *(arguments[key] for key in imported)):
            if name is not None and not str(name).startswith(_OWN):
                raise MisureError(f"{self.folder} has a network of its own, {name}: build it and pass it to explain")
        with reading(self.checkpoint, f"{_ADVICE}, or its trainer builds another network than its plans say"):
            network: nn.Module = get_network_from_plans(
                *(kind, arguments, imported, self.channels, self.labels.num_segmentation_heads),
                allow_init=False,
                deep_supervision=False,
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
