"""The seam to Hydra: composing, checking and instantiating configurations happens here alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import is_dataclass
from functools import partial
from inspect import Parameter, signature
from pathlib import Path
from typing import Any

from hydra import compose
from hydra._internal.utils import _locate
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from misure.errors import MisureError, did_you_mean
from misure.io.installed import CONFIG_FOLDER, extra_with
from misure.models.compute import Compute
from misure.validation import check_arguments


def build(node: DictConfig | Mapping[str, Any], **extra: Any) -> Any:
    """Instantiate a config node after a check of its values; a MisureError inside it comes out as itself.

    Raises:
        MisureError: If the node cannot be resolved, or what it builds has no such parameter or refuses its value.
    """
    try:
        check_node({**plain(node), **extra}, str)
        return instantiate(node, _convert_="all", **extra)
    except (HydraException, OmegaConfBaseException, TypeError) as error:
        if isinstance(error.__cause__, MisureError):
            raise error.__cause__ from None
        raise MisureError(f"configuration error: {' '.join(str(error).split())}") from error


def check_node(node: Mapping[str, Any], called: Callable[[str], str], prefix: str = "") -> None:
    """Check what a node builds from, and the nodes in it, against the signature of what is built.

    Args:
        node: Its values, resolved.
        called: What an error calls a key.
        prefix: Of its keys.

    Raises:
        MisureError: On the first key that is no parameter, or whose value its type hint does not allow.
    """
    if "_target_" in node:
        try:
            target = _locate(str(node["_target_"]))
            parameters = signature(target).parameters
        except Exception as error:  # whatever the import of a module raises
            reason = _why_not_imported(error)
            raise MisureError(f"{called(prefix + '_target_')}={node['_target_']} cannot be built: {reason}") from error
        takes_any = any(parameter.kind is Parameter.VAR_KEYWORD for parameter in parameters.values())
        is_plain_class = isinstance(target, type) and not is_dataclass(target)
        hinted: Any = vars(target).get("__init__") if is_plain_class else target
        for key, value in ((k, v) for k, v in node.items() if not k.startswith("_")):
            if key not in parameters and not takes_any:
                raise MisureError(f"{target.__name__} has no parameter {key!r}{did_you_mean(key, parameters)}")
            is_built = isinstance(value, Mapping) and "_target_" in value
            if str(target.__module__).startswith("misure.") and not is_built:
                check_argument(hinted, key, value, partial(called, prefix + key))
    for key, value in node.items():
        if isinstance(value, Mapping):
            check_node(value, called, f"{prefix}{key}.")


def _why_not_imported(error: Exception) -> str:
    missing = error.__cause__
    if isinstance(missing, ModuleNotFoundError) and missing.name and missing.name.split(".")[0] != "misure":
        return f"it needs {missing.name}: pip install 'misure[{extra_with(missing.name)}]'"
    return " ".join(str(error).split())


def check_argument(function: Callable[..., Any], key: str, value: Any, called: Callable[[], str]) -> None:
    """Check one argument against its type hint.

    Args:
        function: What takes it.
        key: The parameter.
        value: Its value.
        called: What an error calls it.

    Raises:
        MisureError: If the hint does not allow the value.
    """
    try:
        check_arguments(function, {key: value})
    except MisureError as error:
        raise MisureError(called() + str(error).removeprefix(key)) from None


def plain(node: Any) -> Any:
    """Return a node of a configuration as dictionaries, lists and values, with what it interpolates."""
    return OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node


def setup_name(cfg: DictConfig) -> str:
    """Name a configuration's setup, ``dataset-model``."""
    return f"{cfg.dataset.name}-{cfg.model.name}"


def scale_of(cfg: DictConfig) -> float:
    """Return the side of a configuration's images as a share of the paper's."""
    return float(cfg.dataset.counts.get("scale", 1))


def compute_of(cfg: DictConfig) -> Compute:
    """Build the compute settings of a configuration."""
    compute = build(cfg.runner.compute)
    if not isinstance(compute, Compute):
        raise MisureError("runner.compute does not describe a Compute")
    return compute


def overridden(overrides: Sequence[str]) -> set[str]:
    """Name the keys and groups that overrides set, however they are written (``lr=1``, ``++lr=1``)."""
    return {str(o.key_or_group) for o in OverridesParser.create().parse_overrides(list(overrides))}


def sweep_grid(name: str, overrides: Sequence[str] = ()) -> dict[str, list[str]]:
    """Return the values by key that ``configs/sweep/<name>.yaml`` combines; needs an initialised Hydra.

    Args:
        name: The table or figure.
        overrides: Command-line style overrides, such as where else configurations lie.

    Raises:
        MisureError: If there is no such sweep.
    """
    path = Path(CONFIG_FOLDER, "sweep", f"{name}.yaml")
    try:
        own = path.is_file()  # reading it alone takes a hundredth of the time of composing it with everything
        node = OmegaConf.load(path) if own else compose("run", [f"sweep={name}", *overrides], return_hydra_config=True)
    except HydraException as error:
        raise MisureError(f"sweep {name}: {' '.join(str(error).split())}") from error
    params = OmegaConf.select(node, "hydra.sweeper.params") or {}
    return {str(key): split_values(str(values)) for key, values in params.items()}


def composed(config: str, variants: Iterable[Sequence[str]], overrides: Sequence[str]) -> Iterator[DictConfig]:
    """Compose variants of an entry point's configuration; needs an initialised Hydra.

    Args:
        config: ``configs/<config>.yaml``.
        variants: Overrides of each; what the user overrides wins.
        overrides: The user's overrides.

    Raises:
        MisureError: If a configuration does not compose.
    """
    for variant in variants:
        try:
            yield compose(config, [*variant, *overrides])
        except HydraException as error:
            raise MisureError(f"{' '.join(variant)}: {' '.join(str(error).split())}") from error


def leaves(node: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """List the values of a tree with their dotted keys, without resolving any."""
    tree = OmegaConf.to_container(node) if OmegaConf.is_config(node) else node
    if isinstance(tree, dict):
        for name, child in tree.items():
            yield from leaves(child, f"{prefix}.{name!s}" if prefix else str(name))
    else:
        yield prefix, tree


def split_values(values: str) -> list[str]:
    """Split a sweep's values the way Hydra's sweeper would."""
    override = OverridesParser.create().parse_override(f"key={values}")
    return list(override.sweep_string_iterator()) if override.is_sweep_override() else [values]
