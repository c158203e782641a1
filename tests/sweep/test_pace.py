"""The pace of a network: measured, and kept with its precision for a run that goes on."""

from __future__ import annotations

import math

import hardware
import pytest
from hydra import compose
from oracles.toys import PerPixel
from pipeline import TINY
from sweep_runs import experiment

from misure.models.compute import Compute
from misure.models.wrapper import SegmentationModel
from misure.sweep.journal import Journal
from misure.sweep.pace import Pace, duration, measure_pace, settled_pace

pytestmark = pytest.mark.usefixtures("hydra")


def test_a_pace_estimates_every_method():
    pace = measure_pace(experiment().cfg, Compute("32"), SegmentationModel(PerPixel()))
    assert pace.forward > 0
    assert pace.gradient > 0
    known = Pace(forward=1.0, gradient=2.0, step=4.0)
    assert known.explaining(experiment("explainer=prediction")) == 2.0
    assert known.explaining(experiment("explainer=seg_grad_cam")) == 2.0 * 1 + 4 * 1.0
    # One epoch of eight images, and four validation images every second epoch.
    assert known.training(experiment().cfg) == 8 * 4.0 + 0.5 * 4 * 1.0


def test_durations_for_people():
    assert [duration(s) for s in (0, 89, 90, 600, 5400)] == ["0 s", "89 s", "2 min", "10 min", "1.5 h"]


@pytest.mark.parametrize("plan_only", [False, True])
def test_a_kept_choice_is_not_taken_to_hardware_without_fast_bfloat16(monkeypatch, tmp_path, plan_only):
    cfg = compose("run", [*TINY, "precision=auto", f"outputs={tmp_path}", f"plan_only={plan_only}"])
    taken = []
    for kind in ("fast", "slow", "fast"):
        monkeypatch.setattr(hardware.compute, "is_fast_at_bfloat16", lambda device, kind=kind: kind == "fast")
        monkeypatch.setattr(hardware.compute, "_WORTH_ROUNDING", math.inf if not taken else 0.0)  # measured once
        taken.append(settled_pace(cfg).choice.precision)
    assert taken == ["bf16", "32", "32" if plan_only else "bf16"]
    assert len(Journal(tmp_path).read("precision")) == (0 if plan_only else 1)
