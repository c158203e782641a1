"""What ``configs/README.md`` says of every key: its default, and the comment or docstring that explains it."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import yaml
from hydra.utils import get_object

from misure.io.installed import CONFIG_FOLDER
from misure.paper.table import markdown_table

FOLDER = Path(CONFIG_FOLDER)
PROFILES = ("smoke", "quick", "reference", "paper")
_NOT_SHOWN = {"defaults", "hydra", "_target_", "<<"}
_OF_PROFILES = {
    "training": "misure.training.config.Recipe",
    "layout": "misure.datasets.triangle.TriangleLayout",
    "phantom": "misure.datasets.synthetic.phantom.PhantomSpec",
    "scenes": "misure.datasets.synthetic.scenes.SceneSpec",
}
"""What sections of a profile are handed to."""

_ENTRY = re.compile(r"^ {4}(\w+)(?: \([^)]*\))?: (.*(?:\n {8,}.*)*)", re.MULTILINE)
_ROLE = re.compile(r":\w+:`~?(?:[\w.]+\.)?([^`]+)`")
_ADDS = re.compile(r"(?:or|of|the authors|unless)\b|\w+$")
"""A comment that adds to what the docstring says, and does not take its place."""


@dataclass(frozen=True)
class Key:
    """A key of a YAML file: its dotted path, its value as written, its comment, and what it is handed to."""

    path: str
    value: str
    comment: str
    target: str

    @property
    def name(self) -> str:
        return self.path.rpartition(".")[2]


@cache
def keys(file: Path) -> tuple[Key, ...]:
    """Read a file's keys in order; a mapping has a line of its own where a comment explains it."""
    text = file.read_text(encoding="utf-8")
    node = yaml.compose(text, Loader=yaml.SafeLoader)
    return tuple(_keys(node, text, "", _target(node) or next((_target_of(base) for base in _bases(file)), "")))


def _keys(node: yaml.MappingNode, text: str, prefix: str, target: str) -> Iterator[Key]:
    lines = text.splitlines()
    for name, value in node.value:
        if name.value in _NOT_SHOWN:
            continue
        path = f"{prefix}{name.value}"
        block = isinstance(value, yaml.CollectionNode) and not value.flow_style
        end = name.end_mark if block else value.end_mark
        comment = "; ".join(filter(None, [" ".join(_above(lines, name.start_mark)), *_beside(lines, end)]))
        if not isinstance(value, yaml.MappingNode) or value.flow_style:
            yield Key(path, _written(value, text), comment, target)
        else:
            if comment:
                yield Key(path, "", comment, target)
            yield from _keys(value, text, f"{path}.", _target(value))


def _written(node: yaml.Node, text: str) -> str:
    """Return a value as it is written, in one line and without comments."""
    if isinstance(node, yaml.SequenceNode) and not node.flow_style:
        return f"[{', '.join(_written(item, text) for item in node.value)}]"
    return " ".join(re.sub(r" #.*", "", text[node.start_mark.index : node.end_mark.index]).split())


def _target(node: yaml.MappingNode) -> str:
    return next((value.value for name, value in node.value if name.value == "_target_"), "")


def _target_of(file: Path) -> str:
    return _target(yaml.compose(file.read_text(encoding="utf-8"), Loader=yaml.SafeLoader))


def _bases(file: Path) -> list[Path]:
    """Return the files of the same folder that a file stands on."""
    listed = (yaml.safe_load(file.read_text(encoding="utf-8")) or {}).get("defaults", [])
    return [file.with_name(f"{name}.yaml") for name in listed if isinstance(name, str) and name != "_self_"]


def _beside(lines: list[str], end: yaml.Mark) -> list[str]:
    found = re.search(r"(?:^|\s)#\s*(.*)$", lines[end.line][end.column :]) if end.line < len(lines) else None
    return [found[1]] if found else []


def _above(lines: list[str], start: yaml.Mark) -> list[str]:
    """Return the comment lines right above a key of the same depth, but for the file's header."""
    first = start.line
    while first > 0 and lines[first - 1].startswith(" " * start.column + "# "):
        first -= 1
    return [line.strip().removeprefix("# ") for line in lines[first : start.line]] if first else []


@cache
def documented(target: str) -> Mapping[str, str]:
    """Return the first sentence that a class or function, or one that it stands on, says of each argument."""
    if not target.startswith("misure."):
        return {}  # other packages' words change with their versions
    made = get_object(target)
    owners = inspect.getmro(made) if inspect.isclass(made) else [made]
    found: dict[str, str] = {}
    for text in (inspect.cleandoc(doc) for owner in owners for doc in (owner.__doc__, owner.__init__.__doc__) if doc):
        for section in re.split(r"^(?:Args|Attributes):$", text, flags=re.MULTILINE)[1:]:
            for name, said in _ENTRY.findall(re.split(r"\n(?=\S)", section)[0]):
                found.setdefault(name, _sentence(said))
    return found


def _sentence(said: str) -> str:
    line = _ROLE.sub(r"`\1`", " ".join(said.split())).replace("``", "`")
    return re.split(r"(?<=[^.]\w[\w)`\]])\.(?= |$)", line)[0].removesuffix(".")


def meaning(key: Key, file: Path) -> str:
    """Return what a key means.

    That is its comment, or what the docstring of what it is handed to says, or the comment of the key of the same name
    in a file that this one stands on or another one of the group, or of the key that it repeats.
    """
    said = documented(key.target).get(key.name, "") if key.target else ""
    if key.comment:
        return f"{said}; {key.comment}" if said and _ADDS.match(key.comment) else key.comment
    repeated = re.fullmatch(r"\$\{(?:(\w+)\.)?(\w+)\}", key.value)
    return (
        said
        or _comment(key.path, [*_bases(file), *_group(file.parent.name)])
        or (_comment(repeated[2], _group(repeated[1] or "")) if repeated else "")
    )


def _group(name: str) -> list[Path]:
    """Return a group's files; those of the commands are of no group, and stand on that of one experiment."""
    folder = FOLDER / name
    return sorted(folder.glob("*.yaml")) if name and folder.is_dir() and folder != FOLDER else [FOLDER / "run.yaml"]


def _comment(path: str, files: list[Path]) -> str:
    return next((key.comment for file in files for key in keys(file) if key.path == path and key.comment), "")


def _plain(text: str) -> str:
    """Return text in which no placeholder is taken for an element of HTML."""
    parts = text.split("`")  # every second one is code
    return "`".join(part if number % 2 else re.sub(r"<(?=\w)", "&lt;", part) for number, part in enumerate(parts))


def _code(value: str) -> str:
    return f"`{value}`" if value else ""


def command_keys(name: str) -> str:
    """Show the keys of one command, ``configs/<name>.yaml``."""
    file = FOLDER / f"{name}.yaml"
    rows = [[_code(key.path), _code(key.value), _plain(meaning(key, file))] for key in keys(file)]
    return markdown_table(("key", "default", "meaning"), rows)


def group_keys(group: str) -> str:
    """Show the keys of all files of a group; a file that stands on another has those that differ alone."""
    rows = []
    for file in sorted((FOLDER / group).glob("*.yaml")):
        shown = [[_code(key.path), _code(key.value), _plain(meaning(key, file))] for key in keys(file)]
        rows += [[f"`{file.stem}`" if not number else "", *row] for number, row in enumerate(shown)]
    return markdown_table((group, "key", "default", "meaning"), rows)


def sweeps() -> str:
    """Show what each sweep is for, and over what it goes."""
    rows = []
    for file in sorted((FOLDER / "sweep").glob("*.yaml")):
        text = file.read_text(encoding="utf-8")
        header = " ".join(line.removeprefix("# ") for line in re.findall(r"^#.*$", text, re.MULTILINE)[1:])
        axes = yaml.safe_load(text)["hydra"]["sweeper"]["params"]
        over = ", ".join(f"`{name}={''.join(str(values).split())}`" for name, values in axes.items())
        rows.append([f"`{file.stem}`", header.split(" command:")[0].strip(), over])
    return markdown_table(("sweep", "what it is", "runs"), rows)


def readings() -> str:
    """Show the readings of each sweep, and what they change of the literal one."""
    rows = []
    for file in sorted((FOLDER / "sweep").glob("*.yaml")):
        for name, reading in (yaml.safe_load(file.read_text(encoding="utf-8")).get("readings") or {}).items():
            changed = ", ".join(f"`{key}={value}`" for key, value in reading.items() if key != "title")
            rows.append([f"`{file.stem}`", f"`{name}`", reading["title"], changed])
    return markdown_table(("sweep", "reading", "in tables", "changes"), rows)


def profile_keys() -> str:
    """Show every profile's number beside the others'; what a dataset's section does not have is its default."""
    read = {name: {key.path: key for key in keys(FOLDER / "profile" / f"{name}.yaml")} for name in PROFILES}
    sections = ("", "default", "triangle", "synapse", "coco")
    paths = dict.fromkeys(path for name in reversed(PROFILES) for path in read[name])
    rows = []
    for path in sorted(paths, key=lambda path: sections.index(path.split(".")[0] if "." in path else "")):
        comments = [read[name][path].comment if path in read[name] else "" for name in reversed(PROFILES)]
        said = comments[0] or _of_section(path) or "".join(comments)
        if any(path in read[name] and read[name][path].value for name in PROFILES):
            rows.append(
                [_code(path), *(_code(read[n][path].value) if path in read[n] else "" for n in PROFILES), _plain(said)]
            )
    return markdown_table(("key", *PROFILES, "meaning"), rows)


def _of_section(path: str) -> str:
    """Return what a profile's key means by what its section is handed to, or by that of ``default``."""
    *above, name = path.split(".")
    target = next((_OF_PROFILES[part] for part in above if part in _OF_PROFILES), "")
    said = documented(target).get(name, "") if target else ""
    default = ".".join(["default", *(part for part in above[1:] if part != "stand_in"), name])
    return said or next((key.comment for key in keys(FOLDER / "profile" / "paper.yaml") if key.path == default), "")
