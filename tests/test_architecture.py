"""The house: imports run one way, in no circle, and few modules are loose."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import misure

HOUSE = Path(misure.__file__).parent

FLOORS = (
    ("errors", "randomness", "plotting"),
    ("progress", "validation"),
    ("regions",),
    ("io",),
    ("datasets",),
    ("models",),
    ("target", "config"),
    ("metrics",),
    ("explanation",),
    ("explainers",),
    ("api", "evaluation", "training"),
    ("reliability",),
    ("__init__",),
    ("sweep",),
    ("paper",),
    ("report",),
    ("bench",),
    ("explaining",),
    ("app",),
    ("cli",),
)
"""From the ground up: what stands on one floor may import its own package and what stands on floors below."""

MOST_LOOSE = 12


def modules() -> dict[str, Path]:
    return {".".join(file.relative_to(HOUSE).with_suffix("").parts): file for file in HOUSE.rglob("*.py")}


def of_name(package: str | None, name: str, known: set[str]) -> str:
    """The module that ``from package import name`` reads: the name, where it is a module, or the package."""
    return f"{package}.{name}" if f"{package}.{name}".removeprefix("misure.") in known else str(package)


def imported(file: Path, known: set[str]) -> Iterator[str]:
    """Modules of the package that a file imports anywhere, inside functions too."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: a relative import"
            names = [of_name(node.module, alias.name, known) for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        for name in (n.removeprefix("misure").removeprefix(".") for n in names if n.split(".")[0] == "misure"):
            yield from {name, f"{name}.__init__".removeprefix(".")} & known


@pytest.fixture(scope="module")
def graph() -> dict[str, set[str]]:
    files = modules()
    return {name: set(imported(file, set(files))) - {name} for name, file in files.items()}


def floor(module: str) -> int:
    room = module.split(".", maxsplit=1)[0]
    return next(rank for rank, rooms in enumerate(FLOORS) if room in rooms)


def test_every_room_has_its_floor():
    rooms = {module.split(".")[0] for module in modules()}
    assert rooms == {room for rooms in FLOORS for room in rooms}


def test_the_readme_shows_the_floors():
    rows = re.findall(r"^\| (`[^|]+) \|", (HOUSE / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    shown = [{name.removesuffix("/").removesuffix(".py") for name in re.findall(r"`([^`]+)`", row)} for row in rows]
    assert shown[: len(FLOORS)] == [set(rooms) for rooms in reversed(FLOORS)]


def test_no_import_runs_back(graph):
    back = {
        (module, other)
        for module, others in graph.items()
        for other in others
        if floor(other) >= floor(module) and module.split(".")[0] != other.split(".")[0]
    }
    assert not back


def test_no_circle(graph):
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_few_modules_are_loose():
    assert len(list(HOUSE.glob("*.py"))) <= MOST_LOOSE


def test_tests_stand_where_the_modules_stand():
    tests = Path(__file__).parent
    packages = {file.parent.relative_to(tests) for file in tests.rglob("test_*.py")}
    assert all((HOUSE / package).is_dir() for package in packages)


def test_the_graph_is_read_from_imports_wherever_they_stand(tmp_path):
    """The check sees imports of names, of modules, and within functions."""
    file = tmp_path / "room.py"
    file.write_text("import misure.api\n\ndef f():\n    from misure import errors\n    from misure.io import atomic\n")
    known = {"api", "errors", "io.__init__", "io.atomic", "__init__"}
    assert set(imported(file, known)) == {"api", "errors", "io.atomic"}
