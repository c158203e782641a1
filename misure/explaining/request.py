"""The values of ``configs/explain.yaml`` within their ranges, before a network is loaded."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, fields
from typing import Annotated, Any, Literal

from omegaconf import DictConfig, OmegaConf

from misure.errors import MisureError
from misure.io.pictures import MOST_PIXELS
from misure.models.logits import OutputKind
from misure.validation import Count, Whole, check_fields, path_of, shown

Index = Annotated[int, Whole(0)]
"""A place, counted from 0."""

_LONGEST = 255
"""Bytes of a name on a disk."""
_SINGLE = {"image": str, "class_names": str, "size": int, "mean": int | float, "std": int | float}
"""Keys that may have one value of a type instead of a list."""


@dataclass(frozen=True)
class Request:
    """Keys of ``misure explain`` and ``misure layers``; ``configs/explain.yaml`` says what each means."""

    image: tuple[str, ...] | None
    class_names: tuple[str, ...] | None
    at: tuple[Index, ...] | None
    border: Count | None
    region: str | None
    output: str
    model_file: str | None
    checkpoint: str | None
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    bottleneck: str | None
    multi_label: bool
    network_output: OutputKind
    in_channels: Count | None
    dimensions: Literal[2, 3] | None
    size: tuple[Count, ...] | None
    slice: Index | None
    window: tuple[float, ...] | None
    axes: Literal["radiological", "ras"]

    def __post_init__(self) -> None:
        check_fields(self)
        self._check_paths()
        if self.window is not None and not (len(self.window) == 2 and self.window[0] < self.window[1]):
            raise MisureError(f"window={list(self.window)} is not two rising values, such as [-125, 275]")
        if self.std is not None and not all(self.std):
            raise MisureError(f"std={list(self.std)} has a zero: images are divided by it")
        for key in ("mean", "std"):
            if getattr(self, key) is not None and not len(getattr(self, key)):
                raise MisureError(f"{key}=[] is empty: give a number, or one for each channel")
        if self.size is not None and math.prod(self.size) ** (2 if len(self.size) == 1 else 1) > MOST_PIXELS:
            raise MisureError(f"size={shown(list(self.size))} is more than {MOST_PIXELS / 1e6:.0f} million pixels")

    def _check_paths(self) -> None:
        for key in ("output", "model_file", "region", "checkpoint"):
            if getattr(self, key) is not None:
                parts = path_of(key, getattr(self, key)).parts
                if any(len(os.fsencode(part)) > _LONGEST for part in parts):
                    raise MisureError(f"{key}={shown(getattr(self, key))} has a name of more than {_LONGEST} bytes")
        for path in self.image or ():
            path_of("image", path)

    @classmethod
    def of(cls, cfg: DictConfig) -> Request:
        """Check the keys of a configuration.

        Raises:
            MisureError: On the first value that is not allowed.
        """
        values = {field.name: plain_value(cfg[field.name]) for field in fields(cls) if field.name != "image"}
        values["image"] = None if OmegaConf.is_missing(cfg, "image") else plain_value(cfg.image)
        for key, kind in _SINGLE.items():
            if isinstance(values[key], kind) and not isinstance(values[key], bool):
                values[key] = [values[key]]
        for key, value in values.items():
            if isinstance(value, dict):
                raise MisureError(f"{key}={shown(value)} has names in it: give a value or a list")
        if isinstance(values["class_names"], list):
            values["class_names"] = [str(name) if type(name) is int else name for name in values["class_names"]]
        return cls(**values)


def plain_value(value: Any) -> Any:
    """Return a node of a configuration as lists and dictionaries."""
    return OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
