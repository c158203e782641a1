"""The values of ``misure explain``: whatever is given, it ends in an explanation or one line."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from image_files import Bright, bright_square, write_png
from omegaconf import OmegaConf
from omegaconf.errors import InterpolationToMissingValueError, MissingMandatoryValue

from misure.errors import MisureError
from misure.explaining.request import Request
from misure.explaining.work import explain_files
from misure.io.installed import CONFIG_FOLDER
from misure.models.wrapper import SegmentationModel

KEYS = [key for key in OmegaConf.load(Path(CONFIG_FOLDER, "explain.yaml")) if key not in {"defaults", "hydra"}]
FURTHER = ["seed", "outputs", "checkpoint", "runner.batch_size", "explainer.tau", "explainer.blanking"]
ODD = [
    *("text", "", "\0", "x" * 300, "???", -1, 0, 3, 0.5, 10**30, 1e308, math.nan, math.inf, True, None),
    *([], [None], ["a", "b"], [1, -2], [math.nan], [0.5] * 4, [10**30], {}),
]


@pytest.fixture
def cfg(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("misure.models.loading.load_model", lambda *_, **__: SegmentationModel(Bright()))
    write_png(Path("photo.png"), bright_square())
    Path("net.pt").touch()
    given = ["image=photo.png", "model_file=net.pt", "explainer=sufficient_region", "precision=32"]
    with initialize_config_dir(CONFIG_FOLDER, version_base="1.3"):
        return compose("explain", given)


@pytest.mark.parametrize("key", [*KEYS, *FURTHER])
def test_every_value_ends_in_success_or_one_line(cfg, key):
    for value in ODD:
        own = cfg.copy()
        OmegaConf.update(own, key, value, merge=False, force_add=True)
        said = outcome(own)
        assert "\n" not in said
        assert len(said) < 600, (key, value)
        assert not re.match(r"\w+(Error|Exception|Warning): ", said), f"{key}={value}: {said}"  # it was not foreseen


def outcome(cfg) -> str:
    try:
        explain_files(cfg)
    except MisureError as error:
        return str(error)
    except (MissingMandatoryValue, InterpolationToMissingValueError):  # which the entry points tell
        pass
    return ""


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("mean", [math.nan], "mean"),
        ("mean", math.inf, "mean"),
        ("mean", [], "mean"),
        ("std", [0.2, 0], "std"),
        ("std", [math.nan], "std"),
        ("window", [-math.inf, math.inf], "window"),
        ("window", [100, 100], "window"),
        ("window", [275, -125], "window"),
        ("window", [1, 2, 3], "window"),
        ("size", 100_000, "million pixels"),
        ("size", [0, 5], "size"),
        ("slice", -1, "slice"),
        ("dimensions", 4, "dimensions"),
        ("axes", "lps", "axes"),
        ("multi_label", "yes", "multi_label"),
        ("border", 0, "border"),
        ("at", [1.5, 2], "at"),
    ],
)
def test_a_value_out_of_range_names_its_key(cfg, key, value, words):
    cfg[key] = value
    with pytest.raises(MisureError, match=words):
        Request.of(cfg)
