"""Arguments as people write them, brought to Hydra's form: plain files, options with dashes, and Hydra's own."""

from __future__ import annotations

import os
import re
from collections import deque
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from hydra._internal.utils import get_args_parser
from omegaconf import OmegaConf

from misure.cli.quoting import ASSIGNMENT, PATHS, literal, quoted
from misure.errors import MisureError, did_you_mean
from misure.io.finding import ENDINGS
from misure.io.installed import CONFIG_FOLDER, config_groups
from misure.io.reading import user_path
from misure.models.hub import is_hub_id

_PLAIN = {"explain": "image", "layers": "model"}
"""Commands that take plain arguments and options, and what a plain argument is."""
_SHORTER = {"method": "explainer"}
_SHOWN = ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")
"""What Hydra's ``--info`` may be followed by."""
_ONLY_FILES_FOLLOW = "--"
_NUMBERS = re.compile(r"[-+.\deE]+(,[-+.\deE]+)+")


def hydra_arguments(name: str, config: str, given: Sequence[str]) -> list[str]:
    """Write the arguments of an entry point so that Hydra reads what is meant.

    Paths are taken as they stand (:func:`misure.cli.quoting.literal`). ``explain`` and ``layers`` take plain arguments
    and options as well: ``photo.jpg --model net.pt2 --target dog``.

    Args:
        name: The entry point, one of :data:`misure.cli.reads.READS`.
        config: ``configs/<config>.yaml``.
        given: The arguments after the program's name.

    Returns:
        Hydra's own options, then overrides.

    Raises:
        MisureError: If a path is empty, or an option is unknown or lacks its value.
    """
    if os.environ.get("MISURE_DATA") == "":
        raise MisureError("MISURE_DATA is empty: unset it, or let it name the folder of the data")
    arguments = _Arguments(name, _values(Path(CONFIG_FOLDER, f"{config}.yaml")), given)
    return arguments.rewritten() if name in _PLAIN else [arguments.override(token) for token in given]


class _Arguments:
    """The arguments of one entry point.

    Args:
        name: The entry point.
        known: Its keys with their values, as configured.
        given: The arguments.
    """

    def __init__(self, name: str, known: Mapping[str, Any], given: Sequence[str]) -> None:
        self.name, self.known = name, known
        self.given, self.rest = {token.partition("=")[0] for token in given}, deque(given)
        self.hydra_s = get_args_parser()._option_string_actions  # noqa: SLF001 - the parser has no public list of them
        self.multirun = bool({"-m", "--multirun"} & self.given)

    def rewritten(self) -> list[str]:
        """Sort plain arguments, options and overrides, and write all of them for Hydra."""
        flags: list[str] = []
        files: list[str] = []
        overrides: list[str] = []
        options: list[tuple[str, str]] = []
        while self.rest:
            token = self.rest.popleft()
            if token == _ONLY_FILES_FOLLOW:
                files += self.rest
                self.rest.clear()
            elif self._is_hydra_s(token):
                flags += [token, *self._value_of_hydra_s(token)]
            elif token.startswith("-") and not os.path.lexists(token):
                options.append(self._option(token))
            elif self._is_override(token):
                overrides.append(self.override(token))
            else:
                files.append(token)
        given = dict([o.lstrip("+").partition("=")[::2] for o in overrides] + options)
        parameters = _values(Path(CONFIG_FOLDER, "explainer", f"{given.get('explainer', 'msr').split(',')[0]}.yaml"))
        named = [self.override(f"{self._key(key, parameters)}={value}") for key, value in options]
        return [*flags, *overrides, *named, *self._plain(files, given)]

    def override(self, token: str) -> str:
        """Write ``key=value`` for Hydra; ``model=`` may name a file where plain arguments are taken."""
        key, _, value = token.partition("=")
        if key == "model" and self.name in _PLAIN:
            return self._model(value)
        return literal(token, self.known, multirun=self.multirun)

    def _model(self, value: str) -> str:
        names = [path.stem for path in Path(CONFIG_FOLDER, "model").glob("*.yaml")]
        if set(value.split(",") if self.multirun else [value]) <= {*names} or {"-cd", "--config-dir"} & self.given:
            return f"model={value}"
        if value and (user_path(value).exists() or is_hub_id(value)):
            return f"model_file={quoted(value)}"
        raise MisureError(
            f"model={value} is no file, folder, id of the Hub or name in configs/model{did_you_mean(value, names)}"
        )

    def _is_hydra_s(self, token: str) -> bool:
        return token.startswith("-") and token.partition("=")[0] in self.hydra_s

    def _value_of_hydra_s(self, token: str) -> list[str]:
        option, given, _ = token.partition("=")
        takes = self.hydra_s[option].nargs
        one = not given and (takes is None or (takes == "?" and self.rest and self.rest[0] in _SHOWN))
        return [self.rest.popleft()] if one and self.rest else []

    def _is_override(self, token: str) -> bool:
        """Say whether ``key=value`` is meant, or a file of such a name."""
        found = ASSIGNMENT.fullmatch(token) or re.fullmatch(r"(?P<sign>~)(?P<key>[A-Za-z_][\w.@/]*)", token)
        if found is None:
            return False
        if re.split(r"[./@]", found["key"])[0] in {*self.known, *config_groups(), "hydra"}:
            return True
        a_file = user_path(token).exists() or "/" in found["key"] or token.lower().endswith(ENDINGS)
        return found["sign"] != "~" and not a_file

    def _option(self, token: str) -> tuple[str, str]:
        name, given, value = token.lstrip("-").partition("=")
        key = _SHORTER.get(name, name.replace("-", "_"))
        if not token.startswith("--"):
            raise MisureError(f"there is no option {token}, and no file of that name; see misure {self.name} --help")
        if not given and isinstance(self.known.get(key), bool):
            value = self.rest.popleft() if self.rest and self.rest[0].lower() in ("true", "false") else "true"
        elif not given:
            if not self.rest or self.rest[0].startswith("--"):
                raise MisureError(f"{token} needs a value: {token} <value>, or {token}=<value>")
            value = self.rest.popleft()
        if _NUMBERS.fullmatch(value) and key not in PATHS and not self.multirun:
            value = f"[{value}]"
        return key, value

    def _key(self, key: str, parameters: Mapping[str, Any]) -> str:
        """Name the key of an option: one of the configuration, or a parameter of the method."""
        if key.partition(".")[0] in {*self.known, *config_groups()}:
            return key
        if key in parameters:
            return f"explainer.{key}"
        options = [n.replace("_", "-") for n in (*self.known, *parameters, "model", "method") if not n.startswith("_")]
        raise MisureError(f"{self.name} has no option --{key.replace('_', '-')}{did_you_mean(key, options)}")

    def _plain(self, files: list[str], given: dict[str, str]) -> list[str]:
        """Write what the plain arguments name."""
        key = _PLAIN[self.name]
        if not files:
            return []
        if key in given or f"{key}_file" in given:
            raise MisureError(f"{files[0]} is a plain argument beside {key}=...: give one of them")
        if not all(files):
            raise MisureError("an argument is empty, as an unset variable of the shell leaves it")
        if key == "image":
            return [f"image=[{','.join(map(quoted, files))}]" if len(files) > 1 else f"image={quoted(files[0])}"]
        if len(files) > 1:
            raise MisureError(f"{self.name} takes one network, not {', '.join(files)}; an image: --image <file>")
        return [self.override(f"model={files[0]}")]


@cache
def _values(path: Path) -> Mapping[str, Any]:
    """Return the values of a configuration's own keys and of those that it stands on in the same folder."""
    tree: dict[str, Any] = OmegaConf.to_container(OmegaConf.load(path)) if path.is_file() else {}  # type: ignore[assignment]
    below = [name for name in tree.pop("defaults", []) if isinstance(name, str) and name != "_self_"]
    return {key: value for name in below for key, value in _values(path.with_name(f"{name}.yaml")).items()} | tree
