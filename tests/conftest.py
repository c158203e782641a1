"""Shared fixtures. One thread: the tests are small, and it makes sums repeat exactly."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import hardware
import matplotlib as mpl
import pytest
import torch
from hydra import initialize_config_dir
from hypothesis import settings
from oracles.toys import random_images
from torch import Tensor

from misure.io.installed import CONFIG_FOLDER

mpl.use("Agg")
settings.register_profile("tests", deadline=None, max_examples=40, derandomize=True)
settings.load_profile("tests")


COMMANDS = ("test_reproduce", "test_readme", "test_entry", "test_overrides", "test_write", "test_on_")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--bfloat16", choices=hardware.KINDS, default="slow", help="how fast processors are at bfloat16")


def pytest_configure(config: pytest.Config) -> None:
    hardware.pretend(config.getoption("--bfloat16"))


@pytest.fixture
def bfloat16(request: pytest.FixtureRequest) -> Iterator[str]:
    """How fast the processor is at bfloat16: ``"slow"``, or ``"fast"``, where ``precision=auto`` takes it."""
    before = hardware.kind
    hardware.pretend(request.param)
    yield request.param
    hardware.pretend(before)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what runs whole commands, so that at the end no worker waits for another that has long tests left."""
    items.sort(key=lambda item: not item.path.stem.startswith(COMMANDS))


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what needs a GPU where there is none."""
    if item.get_closest_marker("cuda") and not torch.cuda.is_available():
        pytest.skip("needs a GPU that PyTorch can use")


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)
    torch.ones(1, requires_grad=True).sum().backward()  # before devices are pretended: else no fork


@pytest.fixture
def make_images() -> Callable[..., Tensor]:
    """Random images in float64: ``make_images(n, channels, height, width, seed=0)``."""
    return random_images


@pytest.fixture
def block() -> Tensor:
    """A 17 x 23 map with a 3 x 4 object."""
    region = torch.zeros(17, 23, dtype=torch.bool)
    region[7:10, 5:9] = True
    return region


@pytest.fixture
def hydra() -> Iterator[None]:
    """Configurations can be composed."""
    with initialize_config_dir(CONFIG_FOLDER, version_base="1.3"):
        yield
