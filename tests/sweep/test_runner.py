"""The runner: rounds, resuming, samples without anything to explain, and a time budget."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from hydra import compose, initialize_config_dir
from hypothesis import given
from hypothesis import strategies as st
from oracles.toys import PerPixel
from pipeline import TINY

from misure.cli import reproduce
from misure.config import CONFIG_FOLDER
from misure.models.checkpoint import CheckpointInfo
from misure.models.wrapper import SegmentationModel
from misure.paper.profiles import serving
from misure.sweep import runner as module
from misure.sweep.experiment import Experiment
from misure.sweep.plan import Pace, duration, measure_pace, merge, rounds
from misure.sweep.records import RecordStore
from misure.sweep.runner import Runner, images_per_step
from misure.sweep.sampling import EveryImage, PredictedObjects
from misure.sweep.setup import Subject

NAME = "triangle-unet_vgg16"
EMPTY = 4  # the sample in which nothing is predicted
PACE = Pace(forward=5.0, gradient=5.0, step=5.0)


@pytest.fixture(autouse=True)
def _hydra() -> Iterator[None]:
    with initialize_config_dir(CONFIG_FOLDER, version_base="1.3"):
        yield


class Images:
    """Eight images with a bright square, one of them black."""

    source = "drawn by hand"
    fingerprint = "0123456789abcdef"
    stand_in = False

    def group(self, index: int) -> str:
        return f"image {index}"

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int):
        image = torch.zeros(1, 24, 24)
        if index != EMPTY:
            image[0, 3 : 6 + index, 4:12] = 0.9
        return {"image": image, "mask": (image[0] > 0).long(), "index": torch.tensor(index)}


def subject(weights: str = "a" * 64) -> Subject:
    info = CheckpointInfo("toy", {}, None, ("background", "triangle"), 1, {}, {"val_dice": 0.75}, {}, {}, weights)
    images = Images()
    return Subject(NAME, images, SegmentationModel(PerPixel()), info)


def experiment(*overrides: str) -> Experiment:
    return Experiment.of(compose("run", [*TINY, "precision='32'", *overrides]))


def make_runner(tmp_path, deadline: float = math.inf, **extra) -> Runner:
    return Runner(RecordStore(tmp_path / "records"), {NAME: subject(**extra)}, {NAME: PACE}, deadline)


def files(store: RecordStore) -> dict[str, tuple[int, bytes]]:
    return {p.name: (p.stat().st_mtime_ns, p.read_bytes()) for p in store.folder.rglob("*.jsonl")}


def counts(runner: Runner) -> tuple[int, int, int, int]:
    tally = runner.tally
    return tally.done, tally.present, tally.skipped, tally.left


def test_a_second_run_does_nothing(tmp_path, monkeypatch):
    planned = [experiment("explainer=prediction", "n_samples=8"), experiment("explainer=random_map", "n_samples=8")]
    first, second = make_runner(tmp_path), make_runner(tmp_path)
    first.run(planned)
    assert counts(first) == (14, 0, 2, 0)
    before = files(first.store)
    assert len(before) == 16
    monkeypatch.setattr(second, "_explain", None)
    second.run(planned)
    assert counts(second) == (0, 16, 0, 0)
    assert files(second.store) == before


def test_what_another_profile_made_serves_this_one_too(tmp_path):
    """The same weights, images, parameters and precision: nothing is made again, and the tables count it."""
    make_runner(tmp_path).run([experiment("explainer=prediction", "n_samples=3")])
    other = [experiment("explainer=prediction", "n_samples=4")]
    other[0].cfg.profile.name = "paper"
    for _ in range(2):
        runner = make_runner(tmp_path)
        runner.run(other)
    assert counts(runner)[1] == 4
    records = runner.store.load()
    own = records[records["profile"] == "paper"]
    assert len(own) == 1
    assert runner.store.serving("paper") == set(records["unit"]) - set(own["unit"])
    assert runner.store.serving("smoke") == set()
    assert len(serving(records, "paper", runner.store.serving("paper"))) == 4


def test_more_samples_add_to_what_is_there(tmp_path):
    make_runner(tmp_path).run([experiment("explainer=prediction", "n_samples=3")])
    runner = make_runner(tmp_path)
    runner.run([experiment("explainer=prediction", "n_samples=100")])
    assert counts(runner)[1] == 3
    assert set(runner.store.load()["sample"]) == set(range(8))


@pytest.mark.parametrize("change", ["weights", "parameters", "noise"])
def test_a_changed_identity_is_computed_anew(tmp_path, change):
    make_runner(tmp_path).run([experiment("explainer=random_map", "n_samples=2")])
    overrides = {"weights": [], "parameters": ["explainer.thresholds=[0.3]"], "noise": ["input_noise=1e-3"]}[change]
    runner = make_runner(tmp_path, weights=("b" if change == "weights" else "a") * 64)
    runner.run([experiment("explainer=random_map", "n_samples=2", *overrides)])
    assert runner.tally.present == 0
    assert runner.store.load()["unit"].nunique() == 4


def test_a_sample_without_the_class_is_counted_and_recorded(tmp_path):
    runner = make_runner(tmp_path)
    runner.run([experiment("explainer=prediction", "n_samples=8")])
    found = runner.store.load().set_index("sample")
    assert found.loc[EMPTY, "status"] == "skipped"
    assert "class 1 was not predicted" in found.loc[EMPTY, "reason"]
    assert (found.drop(EMPTY)["status"] == "done").all()


IDENTITY = {"unit", "dataset", "dataset_fingerprint", "model", "weights", "explainer", "sample", "class_id"}
RESULT = {"threshold", "dice_explained", "perturbation_ratio", "region_ratio", "binary_dice_explained", "truth_dice"}
CIRCUMSTANCES = {"status", "reason", "seconds", "precision", "batch_size", "created", "profile", "dataset_source"}
CIRCUMSTANCES |= {"stand_in", "val_dice", "device", "code_version", "input_noise"}
CIRCUMSTANCES |= {"class_name", "group", "draw", "confidence"}


def test_records_have_every_column(tmp_path):
    runner = make_runner(tmp_path)
    planned = experiment("explainer=msr", "mask_size=12", "explainer.n_iterations=2", "n_samples=2")
    runner.run([planned])
    found = runner.store.load()
    parameters = {f"param_{name}" for name in planned.explainer.parameters}
    assert set(found) >= IDENTITY | RESULT | CIRCUMSTANCES | parameters | {"n_dilations"}
    row = found.iloc[0]
    assert (row["dataset"], row["model"], row["explainer"], row["class_id"]) == ("triangle", "unet_vgg16", "msr", 1)
    assert (row["weights"], row["dataset_fingerprint"]) == ("a" * 16, Images.fingerprint)
    assert (row["val_dice"], row["truth_dice"], row["precision"], row["profile"]) == (0.75, 1.0, "32", "smoke")
    assert row["param_mask_size"] == 12


def test_maps_are_kept_for_the_first_samples_alone(tmp_path):
    runner = make_runner(tmp_path)
    runner.run([experiment("explainer=prediction", "n_samples=3", "profile.triangle.saved_maps=2")])
    planned = experiment("explainer=prediction")
    first = runner.samples(planned, range(2))
    saved = {path.stem for path in runner.store.maps_folder.iterdir()}
    assert saved == {runner.unit(planned, sample).id for sample in first if sample.image != EMPTY}


def test_images_explained_together_give_the_same_records(tmp_path):
    alone, together = make_runner(tmp_path / "alone"), make_runner(tmp_path / "together")
    for runner, step in ((alone, 1), (together, 3)):
        runner.run([experiment("explainer=prediction", "n_samples=8", f"runner.images_per_step={step}")])
    columns = ["unit", "status", "dice_explained", "perturbation_ratio"]
    tables = [runner.store.load()[columns].sort_values("unit", ignore_index=True) for runner in (alone, together)]
    assert tables[0].equals(tables[1])


def test_a_time_budget_leaves_work_for_the_next_run(tmp_path, monkeypatch):
    now = 0.0

    def tick() -> float:
        nonlocal now
        now += 10
        return now

    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=tick))
    planned = [experiment("explainer=prediction", "n_samples=8")]
    first = make_runner(tmp_path, deadline=70)
    first.run(planned)
    # Explaining takes 20 s where 10 were estimated: after two it is 60 s, and a third does not end by 70.
    assert (first.tally.done + first.tally.skipped, first.tally.left) == (2, 6)
    second = make_runner(tmp_path)
    second.run(planned)
    assert second.tally.present == 2
    assert second.tally.done + second.tally.skipped == 6


# Planning


def plain(name: str, n: int, noise: float = 0.0, **parameters) -> Experiment:
    explainer = SimpleNamespace(name=name, parameters=parameters)
    cfg = SimpleNamespace(dataset=SimpleNamespace(name="d"), model=SimpleNamespace(name="m"))
    return Experiment(cfg, explainer, n, EveryImage(), noise)


plans = st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 9), st.sampled_from([0.0, 1e-6])), max_size=6)


@given(plan=plans)
def test_merging_keeps_each_identity_once_with_most_samples(plan):
    merged = merge([plain(name, n, noise) for name, n, noise in plan])
    expected: dict[tuple[str, float], int] = {}
    for name, n, noise in plan:
        expected[name, noise] = max(n, expected.get((name, noise), 0))
    assert {(e.explainer.name, e.input_noise): e.n_samples for e in merged} == expected
    assert [(e.explainer.name, e.input_noise) for e in merged] == list(expected)


def test_parameters_keep_experiments_apart():
    assert len(merge([plain("msr", 1, lr=0.1), plain("msr", 1, lr=0.01), plain("msr", 2, lr=0.1)])) == 2


def test_another_draw_is_another_experiment():
    wide = replace(plain("msr", 4), sampling=PredictedObjects(per_class=600))
    narrow = replace(plain("msr", 2), sampling=PredictedObjects(per_class=50))
    assert len(merge([wide, narrow, wide])) == 2


# Sharing the time


def shared(monkeypatch, minutes: dict[str, float], plan: list[tuple[str, str]], took: float) -> list[float]:
    """Return how long each network may run, in minutes, when each really takes ``took`` minutes."""
    clock = [1000.0]
    monkeypatch.setattr(reproduce.time, "monotonic", lambda: clock[0])
    experiments = []
    for dataset, network in plan:
        cfg = SimpleNamespace(
            dataset=SimpleNamespace(name=dataset, counts=SimpleNamespace(max_minutes=minutes[dataset])),
            model=SimpleNamespace(name=network),
        )
        experiments.append(Experiment(cfg, SimpleNamespace(name="x", parameters={}), 1, EveryImage(), 0.0))
    allowed = []
    for _, deadline in reproduce.shares(experiments, clock[0]):
        allowed.append((deadline - clock[0]) / 60)
        clock[0] += 60 * took
    return allowed


def test_networks_of_a_dataset_share_its_minutes(monkeypatch):
    plan = [("a", "x"), ("b", "y"), ("b", "z"), ("b", "y")]
    assert shared(monkeypatch, {"a": 26, "b": 30}, plan, took=0) == pytest.approx([26, 28, 56])
    # 26 minutes taken by a; y has half of b's 30 and takes 10 minutes more, which are missing for z.
    assert shared(monkeypatch, {"a": 26, "b": 30}, plan, took=25) == pytest.approx([26, 15.5, 6])


@given(sizes=st.lists(st.integers(1, 9), max_size=4), step=st.integers(1, 5))
def test_rounds_cover_everything_once_and_keep_shares_abreast(sizes, step):
    planned = [plain(str(i), n) for i, n in enumerate(sizes)]
    seen: dict[str, list[int]] = {e.explainer.name: [] for e in planned}
    shares = []
    for due, ranks in rounds(planned, step):
        assert 1 <= len(ranks) <= step
        seen[due.explainer.name] += ranks
        shares.append(ranks.start / due.n_samples)
    assert seen == {e.explainer.name: list(range(e.n_samples)) for e in planned}
    assert shares == sorted(shares)


def test_a_pace_estimates_every_method():
    pace = measure_pace(experiment().cfg, SegmentationModel(PerPixel()))
    assert pace.forward > 0
    assert pace.gradient > 0
    known = Pace(forward=1.0, gradient=2.0, step=4.0)
    assert known.explaining(experiment("explainer=prediction")) == 2.0
    assert known.explaining(experiment("explainer=seg_grad_cam")) == 2.0 * 1 + 4 * 1.0
    # One epoch of eight images, and four validation images every second epoch.
    assert known.training(experiment().cfg) == 8 * 4.0 + 0.5 * 4 * 1.0


def test_durations_for_people():
    assert [duration(s) for s in (0, 89, 90, 600, 5400)] == ["0 s", "89 s", "2 min", "10 min", "1.5 h"]


def test_images_per_step_is_a_key():
    assert images_per_step([experiment("runner.images_per_step=5")]) == 5
    assert images_per_step([]) >= 1
