"""MONAI bundles: the network that a bundle's configuration describes with plain values, and what its metadata says.

A bundle's configuration is code: MONAI evaluates what begins with ``$`` and calls whatever ``_target_`` names. Here
nothing of it is run but one class of ``monai.networks.nets`` with plain values; steps before and after the network are
read as data.
"""

from __future__ import annotations

import inspect
import json
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from misure.errors import MisureError, some
from misure.io.reading import reading

Opened = tuple[Callable[[Tensor], Any], dict[str, Any]]

_CONFIGS = ("inference.json", "inference.yaml", "inference.yml", "train.json", "train.yaml", "train.yml")
_NETWORKS = ("network_def", "network", "net")
_ADVICE = "build it with monai.bundle yourself, if you trust it, and pass the network to misure.explain"
_NESTED = ("model", "state_dict", "network")
"""Under which a checkpoint may hold the network's weights among others."""

_CODE = "code"
"""Kind of a step that is an expression, or a reference to nothing."""

_NOT_FOLLOWED = (_CODE, "Compose", "Spacing", "Normalize", "ScaleIntensity", "Crop", "Pad")
"""Kinds of steps begin so that change images, of which a range of values alone is followed."""

_LONGEST_CHAIN = 9
"""References from one to the next."""


def is_bundle(folder: Path) -> bool:
    """Say whether a folder has a bundle's metadata."""
    return (folder / "configs" / "metadata.json").is_file()


def open_bundle(folder: Path, monai: Any, torchscript: Callable[[Path], Opened], *, told: bool) -> Opened:
    """Open a bundle without running code of it.

    Args:
        folder: With configs/metadata.json, a configuration of the inference or training, and models/model.pt; or
            models/model.ts (TorchScript), which is taken where there is no model.pt.
        monai: The package, with ``monai.bundle``.
        torchscript: Opens a TorchScript file.
        told: Whether the user gives mean and std.

    Returns:
        The network and the arguments of :class:`misure.SegmentationModel` that the bundle brings.

    Raises:
        MisureError: If it is incomplete or damaged, or its network is described by expressions or is none of MONAI's.
    """
    with reading(folder / "configs" / "metadata.json", "it may be damaged"):
        metadata = json.loads((folder / "configs" / "metadata.json").read_text(encoding="utf-8"))
        description, n_outputs = _described(metadata)
    config = _config(folder)
    weights, script = folder / "models" / "model.pt", folder / "models" / "model.ts"
    network: Callable[[Tensor], Any]
    if weights.is_file():
        network = _with_weights(_network(folder, config, monai), weights)
    elif script.is_file():
        network, _ = torchscript(script)
    else:
        raise MisureError(f"{folder} has no models/model.pt or model.ts: fetch it (monai.bundle download)")
    before, after = (list(_steps(config, name)) for name in ("preprocessing", "postprocessing"))
    if any(name.startswith("Activations") and step.get("sigmoid") is True for name, step in after):
        description["multi_label"] = n_outputs != 1
    if not told:
        description |= _normalisation(folder, metadata, dict(before))
    return network, description


def _described(metadata: Mapping[str, Any]) -> tuple[dict[str, Any], int | None]:
    """Return input channels and names of classes, and how many output channels there are."""
    image, output = (_format(metadata, key) for key in ("inputs", "outputs"))
    names = dict(output.get("channel_def") or {})
    n_outputs = output.get("num_channels", len(names) or None)
    if n_outputs == 1 and list(names) == ["0"]:  # a single sigmoid channel becomes two logits
        names = {"0": "background", "1": names["0"]}
    found = {"in_channels": image.get("num_channels"), "class_names": names or None}
    return {key: value for key, value in found.items() if value is not None}, n_outputs


def _format(metadata: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """What the metadata says of the first of the network's inputs or outputs."""
    formats: Mapping[str, Mapping[str, Any]] = metadata.get("network_data_format", {}).get(key, {})
    return next(iter(formats.values()), {})


def _config(folder: Path) -> dict[str, Any]:
    """Read the configuration of the inference, or else of the training, as plain data."""
    from monai.bundle.config_parser import ConfigParser

    for path in (folder / "configs" / name for name in _CONFIGS):
        if path.is_file():
            with reading(path, "it may be damaged"):
                return dict(ConfigParser.load_config_file(path))
    return {}


def _network(folder: Path, config: Mapping[str, Any], monai: Any) -> nn.Module:
    """Build the network of a configuration whose parts are plain values.

    Raises:
        MisureError: Naming what is none.
    """
    from monai.bundle.config_parser import ConfigParser
    from monai.networks import nets

    key = next((key for key in _NETWORKS if isinstance(config.get(key), Mapping)), None)
    if key is None:
        raise MisureError(f"{folder} describes no network ({some(list(_NETWORKS))}) in its configs: {_ADVICE}")
    needed = _needed(folder, config, key)
    target = str(needed[key].get("_target_")).rpartition(".")
    kind = getattr(nets, target[2], None)
    own = target[0] in ("", "nets") or f"{target[0]}.".startswith("monai.networks.nets.")
    if not (own and inspect.isclass(kind) and issubclass(kind, nn.Module)):
        raise MisureError(f"{folder} has a network of its own, {''.join(target)}: {_ADVICE}")
    needed[key] |= {"_target_": f"monai.networks.nets.{target[2]}"}
    if "pretrained" in {*needed[key], *inspect.signature(kind).parameters}:
        needed[key]["pretrained"] = False  # the bundle's weights replace them
    with reading(folder, f"MONAI {monai.__version__} does not build its network: {_ADVICE}"):
        network: nn.Module = ConfigParser(needed).get_parsed_content(key)
    return network


def _needed(folder: Path, config: Mapping[str, Any], key: str) -> dict[str, Any]:
    """Return the entries of a configuration that one of them refers to, of which none can be code."""
    found: dict[str, Any] = {}
    waiting = [key]
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        if name not in config:
            raise MisureError(f"{folder} refers to {name!r} in its network, which its configuration does not have")
        found[name] = dict(config[name]) if isinstance(config[name], Mapping) else config[name]
        for parts, value in _leaves(found[name], ()):
            called = parts[-1:] == ("_target_",) and (name, parts) != (key, ("_target_",))
            if called or parts[-1:] == ("_mode_",) or (isinstance(value, str) and value[:1] in {"$", "%"}):
                place = "::".join((name, *map(str, parts)))
                raise MisureError(f"{folder} describes its network by code ({place} is {value!r}): {_ADVICE}")
            if value and (name, parts) != (key, ("pretrained",)) and any(map(_is_elsewhere, parts)):
                raise MisureError(f"{folder} has weights from elsewhere ({'::'.join(map(str, parts))}): {_ADVICE}")
            if isinstance(value, str) and value.startswith("@"):
                waiting.append(re.split("::|#", value[1:])[0])
    return found


def _is_elsewhere(part: Any) -> bool:
    """Say whether an argument names a file or address of weights."""
    return str(part).startswith("pretrained") or "url" in str(part).lower()


def _leaves(value: Any, parts: tuple[Any, ...]) -> Iterator[tuple[tuple[Any, ...], Any]]:
    if isinstance(value, Mapping | list):
        for part, inner in value.items() if isinstance(value, Mapping) else enumerate(value):
            yield from _leaves(inner, (*parts, part))
    else:
        yield parts, value


def _with_weights(network: nn.Module, path: Path) -> nn.Module:
    with reading(path, "it may be damaged, not of this network, or a pickle of more than weights, which is not opened"):
        state = torch.load(path, map_location="cpu", weights_only=True)
        nested = next((state[name] for name in _NESTED if isinstance(state.get(name), Mapping)), state)
        network.load_state_dict(nested)
    return network.eval()


def _steps(config: Mapping[str, Any], name: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """What is done before or after the network, in the inference or the validation: kinds and arguments of steps.

    A step that is no plain value is one of :data:`_CODE`.
    """
    composed = _followed(config, config.get(name, f"@validate::{name}"))
    steps = composed.get("transforms") if isinstance(composed, Mapping) else composed
    found = _followed(config, steps)
    for given in found if isinstance(found, list) else [] if steps is None else [_CODE]:
        step = _followed(config, given)
        plain = isinstance(step, Mapping) and isinstance(step.get("_target_"), str)
        kind = step["_target_"].rpartition(".")[2] if plain else _CODE
        yield kind, {key: _followed(config, value) for key, value in step.items()} if plain else {}


def _followed(config: Mapping[str, Any], value: Any) -> Any:
    """Follow references to entries of the configuration as data; None where one leads nowhere."""
    for _ in range(_LONGEST_CHAIN):
        if not (isinstance(value, str) and value[:1] in {"@", "%"}):
            return value
        found: Any = config
        for part in re.split("::|#", value[1:]):
            entries = dict(enumerate(found)) if isinstance(found, list) else found
            known = entries if isinstance(entries, Mapping) else {}
            found = known.get(int(part) if isinstance(found, list) and part.isdecimal() else part)
        value = found
    return None


def _normalisation(
    folder: Path, metadata: Mapping[str, Any], steps: Mapping[str, Mapping[str, Any]]
) -> dict[str, tuple[float, ...]]:
    """Return mean and std of images in [0, 1] by the steps, or else the metadata, and tell what else was done."""
    advice = []
    low_high = _format(metadata, "inputs").get("value_range")
    scaled, oriented = steps.get("ScaleIntensityRanged"), steps.get("Orientationd")
    if scaled and all(isinstance(scaled.get(key), int | float) for key in ("a_min", "a_max", "b_min", "b_max")):
        low_high = [scaled["b_min"], scaled["b_max"]]
        advice.append(f"window=[{scaled['a_min']},{scaled['a_max']}]")
    if oriented and str(oriented.get("axcodes")).upper() == "RAS":
        advice.append("axes=ras")
    told = ""
    if {*steps} <= {_CODE}:
        told = "does not say in plain values how its images are prepared: do it as its training did, give mean and std"
    elif others := [name for name in steps if name.startswith(_NOT_FOLLOWED)]:
        hint = f"; give {', '.join(advice)}" if advice else ""
        told = (
            f"prepares its images by {', '.join(others)}, of which only a range of values is followed: resample and "
            f"normalise images as it does{hint}"
        )
    if told:
        warnings.warn(f"{folder.name} {told}", stacklevel=5)
    try:
        low, high = map(float, low_high or ())
        return {"mean": (0.0 - low / (high - low),), "std": (1 / (high - low),)}
    except (TypeError, ValueError, ZeroDivisionError):
        return {}
