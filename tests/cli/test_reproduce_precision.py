"""One result on every machine: precision is measured, kept and part of a record; lower instruction sets agree."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import method_numbers
import pytest
import torch
from oracles.toys import Convolutional
from pipeline import TINY, environment, records_of, run_script, shipped_root

import misure
from misure.models import wrapper as module
from misure.models.compute import Compute
from misure.models.wrapper import SegmentationModel, frozen
from misure.sweep.journal import Journal

CPU = torch.device("cpu")
IMAGES = torch.randn(2, 1, 13, 17, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("bfloat16", ["fast"], indirect=True)
def test_a_pass_each_way_is_timed_once_for_a_size(bfloat16, monkeypatch):
    timed = []

    def seconds_of(work, device):
        timed.append(work().shape)
        return 1.0

    monkeypatch.setattr(module, "seconds_of", seconds_of)
    model = SegmentationModel(Convolutional())
    for images in (IMAGES, IMAGES, IMAGES[..., :8, :8], IMAGES):
        with frozen(model, Compute(), CPU) as network:
            assert network.precision is None
            network(images)
            assert network.precision == "bf16"
    sizes = [(1, 3, 13, 17)] * 2 + [(1, 3, 8, 8)] * 2
    assert [tuple(shape) for shape in timed] == sizes


@pytest.mark.parametrize("bfloat16", ["slow", "fast"], indirect=True)
@pytest.mark.parametrize("method", sorted(misure.EXPLAINERS))
def test_every_method_explains_in_the_precision_of_the_hardware(bfloat16, method):
    few = {"n_iterations": 3, "n_masks": 6, "n_samples": 2, "n_steps": 3}
    parameters = {k: v for k, v in few.items() if k in misure.EXPLAINERS[method].parameter_names()}
    model = SegmentationModel(Convolutional(), bottleneck="bottleneck")
    target = int(model(IMAGES[:1]).argmax(1).flatten().mode().values) or 1
    explanation = misure.explain(model, IMAGES[0], target, method, **parameters)
    assert explanation.precision == {"slow": "32", "fast": "bf16"}[bfloat16]
    assert explanation.saliency.dtype == torch.float32
    assert bool(explanation.saliency.isfinite().all())
    assert 0 <= explanation.dice_explained <= 1


# Experiments


def run_prediction(folder: Path, *overrides: str) -> str:
    arguments = [*TINY, "precision=auto", "explainer=prediction", "n_samples=2", f"data_root={folder / 'data'}"]
    ended = run_script("run.py", [*arguments, *overrides], folder)
    assert ended.code == 0, ended.err
    return ended.out


@pytest.mark.parametrize("bfloat16", ["fast"], indirect=True)
def test_precision_identifies_records_and_is_kept_for_a_run_that_goes_on(bfloat16, tmp_path):
    shipped_root(tmp_path / "data")
    run_prediction(tmp_path)
    first = records_of(tmp_path)
    assert set(first["precision"]) == {"bf16"}
    assert first["precision_reason"].str.startswith("measured: bf16").all()
    (kept,) = Journal(tmp_path / "outputs").read("precision")
    assert kept["choice"]["precision"] == "bf16"
    description = json.loads(next((tmp_path / "outputs" / "checkpoints").glob("*.json")).read_text())
    assert description["training"]["precision"] == "bf16"
    assert (description["initial_weights"], description["network"]["pretrained"]) == ("random", None)

    run_prediction(tmp_path, "n_samples=3")
    more = records_of(tmp_path)
    assert len(more) == len(first) + 1
    assert set(more["precision_reason"]) == set(first["precision_reason"])  # measured once

    run_prediction(tmp_path, "precision=32")
    both = records_of(tmp_path)
    assert both.groupby("precision").size().to_dict() == {"32": 2, "bf16": 3}
    assert both["unit"].is_unique


@pytest.mark.parametrize("precision", ["32", "bf16"])
@pytest.mark.parametrize("bfloat16", ["slow", "fast"], indirect=True)
def test_training_ends_well_in_a_given_precision(bfloat16, precision, tmp_path):
    arguments = [*TINY, f"precision={precision}", f"data_root={shipped_root(tmp_path / 'data')}"]
    ended = run_script("train.py", arguments, tmp_path)
    assert ended.code == 0, ended.err
    assert f"training in precision {precision}\n" in ended.out


# Instruction sets

ORDER = ("DEFAULT", "AVX2", "AVX512")


@pytest.mark.skipif(not torch.backends.cpu.get_cpu_capability().startswith("AVX"), reason="this is no x86 processor")
@pytest.mark.parametrize(("capability", "onednn"), [("default", "SSE41"), ("avx2", "AVX2")])
def test_lower_instruction_sets_agree(capability, onednn):
    given = environment() | {"ATEN_CPU_CAPABILITY": capability, "ONEDNN_MAX_CPU_ISA": onednn}
    command = [sys.executable, method_numbers.__file__]
    done = subprocess.run(command, env=given, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    used, lowered = json.loads(done.stdout)
    assert used == min(capability.upper(), torch.backends.cpu.get_cpu_capability(), key=ORDER.index)
    for method, expected in method_numbers.numbers().items():
        # float32 sums of some hundred terms in another order: relative errors of about 1e-5
        assert lowered[method] == pytest.approx(expected, abs=1e-4), method
