"""Packaging: what several files say of versions, Python and dependencies is the same."""

from __future__ import annotations

import re
import tomllib
from itertools import chain

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from pipeline import PROJECT

METADATA = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
CONSTRAINTS = (PROJECT / "constraints.txt").read_text()
DOCKERFILE = (PROJECT / "Dockerfile").read_text()
PINS = {
    name: (version, set(via.split(", ")))
    for name, version, via in re.findall(r"(?m)^(.+)==(.+)  # via (.+)$", CONSTRAINTS)
}


def minor_versions(text: str) -> set[str]:
    return set(re.findall(r"\b3\.\d+\b", text))


def test_one_version():
    citation = yaml.safe_load((PROJECT / "CITATION.cff").read_text())
    changed = re.search(r"(?m)^## \[(.+?)\]", (PROJECT / "CHANGELOG.md").read_text())
    assert {str(citation["version"]), changed[1]} == {METADATA["version"]}
    assert citation["license"] == METADATA["license"]
    assert [author["name"] for author in citation["authors"]] == [author["name"] for author in METADATA["authors"]]
    assert citation["references"][0]["url"] == METADATA["urls"]["Paper"]


def test_the_same_pythons_everywhere():
    supported = set(SpecifierSet(METADATA["requires-python"]).filter(f"3.{minor}" for minor in range(30)))
    assert minor_versions(" ".join(METADATA["classifiers"])) == supported
    job = yaml.safe_load((PROJECT / ".github" / "workflows" / "ci.yml").read_text())["jobs"]["ci"]
    assert set(job["strategy"]["matrix"]["python"]) == supported
    assert [step["run"] for step in job["steps"] if "run" in step] == ["bash .ci/run"]
    assert minor_versions(re.search(r"(?m)^ARG PYTHON=(.+)", DOCKERFILE)[1]) <= supported
    low, high = re.search(
        r"not \(3, (\d+)\) <= sys.version_info < \(3, (\d+)\)", (PROJECT / "Makefile").read_text()
    ).groups()
    assert {f"3.{minor}" for minor in range(int(low), int(high))} == supported


@pytest.fixture(scope="module")
def reference_extras() -> list[str]:
    """The extras that the reference run needs."""
    return re.search(r"'\.\[(.+)\]'", CONSTRAINTS)[1].split(",")


def test_the_container_and_the_pins_have_the_same_extras(reference_extras):
    assert set(re.findall(r"(?m)^ARG EXTRAS=(.+)", DOCKERFILE)) == {",".join(reference_extras)}
    assert re.findall(r"--extra (\w+)", CONSTRAINTS) == reference_extras


def test_pins_are_those_of_what_misure_needs(reference_extras):
    optional = METADATA["optional-dependencies"]
    needed = [
        Requirement(text) for text in chain(METADATA["dependencies"], *(optional[name] for name in reference_extras))
    ]
    assert {name for name, (_, via) in PINS.items() if "misure" in via} == {canonicalize_name(r.name) for r in needed}
    assert [str(r) for r in needed if not r.specifier.contains(PINS[canonicalize_name(r.name)][0])] == []
    assert len(PINS) == sum(not line.startswith("#") for line in CONSTRAINTS.splitlines())
    reached, found = set(), {"misure"}
    while found:
        reached |= found
        found = {name for name, (_, via) in PINS.items() if via & found} - reached
    assert reached == {"misure", *PINS}
    assert set(chain.from_iterable(via for _, via in PINS.values())) <= reached
    assert not [version for version, _ in PINS.values() if "+" in version]  # such builds are in no plain index
