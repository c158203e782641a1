"""The runner: rounds, resuming, samples without anything to explain, and a time budget."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pipeline import PROJECT
from sweep_runs import EMPTY, Images, experiment, make_runner, plain

from misure.explainers.base import Explainer
from misure.io.atomic import DAMAGED
from misure.paper.profiles import serving
from misure.sweep import runner as module
from misure.sweep.plan import images_per_step, outlooks_of, rounds
from misure.sweep.records import Outcome, RecordStore
from misure.sweep.runner import Runner
from misure.sweep.turns import Tally

pytestmark = pytest.mark.usefixtures("hydra")


def files(store: RecordStore) -> dict[str, tuple[int, bytes]]:
    return {p.name: (p.stat().st_mtime_ns, p.read_bytes()) for p in store.folder.rglob("*.jsonl")}


def counts(runner: Runner) -> tuple[int, int, int, int]:
    found = runner.counts
    return found.done, found.present, found.skipped, found.left


def test_a_second_run_does_nothing(tmp_path):
    planned = [experiment("explainer=prediction", "n_samples=8"), experiment("explainer=random_map", "n_samples=8")]
    first, second = make_runner(tmp_path), make_runner(tmp_path)
    first.run(planned)
    assert counts(first) == (14, 0, 2, 0)
    before = files(first.recorder.store)
    assert len(before) == 16
    second.explain = None
    second.run(planned)
    assert counts(second) == (0, 16, 0, 0)
    assert files(second.recorder.store) == before


def test_what_another_profile_made_serves_this_one_too(tmp_path):
    """The same weights, images, parameters and precision: nothing is made again, and the tables count it."""
    make_runner(tmp_path).run([experiment("explainer=prediction", "n_samples=3")])
    other = [experiment("explainer=prediction", "n_samples=4")]
    other[0].cfg.profile.name = "paper"
    for _ in range(2):
        runner = make_runner(tmp_path)
        runner.run(other)
    assert counts(runner)[1] == 4
    records = runner.recorder.store.load()
    own = records[records["profile"] == "paper"]
    assert len(own) == 1
    assert runner.recorder.store.serving("paper") == set(records["unit"]) - set(own["unit"])
    assert runner.recorder.store.serving("smoke") == set()
    assert len(serving(records, "paper", runner.recorder.store.serving("paper"))) == 4


def test_more_samples_add_to_what_is_there(tmp_path):
    make_runner(tmp_path).run([experiment("explainer=prediction", "n_samples=3")])
    runner = make_runner(tmp_path)
    runner.run([experiment("explainer=prediction", "n_samples=100")])
    assert counts(runner)[1] == 3
    assert set(runner.recorder.store.load()["sample"]) == set(range(8))


@pytest.mark.parametrize("change", ["weights", "parameters", "noise"])
def test_a_changed_identity_is_computed_anew(tmp_path, change):
    make_runner(tmp_path).run([experiment("explainer=random_map", "n_samples=2")])
    overrides = {"weights": [], "parameters": ["explainer.thresholds=[0.3]"], "noise": ["input_noise=1e-3"]}[change]
    runner = make_runner(tmp_path, weights=("b" if change == "weights" else "a") * 64)
    runner.run([experiment("explainer=random_map", "n_samples=2", *overrides)])
    assert runner.counts.present == 0
    assert runner.recorder.store.load()["unit"].nunique() == 4


def test_a_sample_without_the_class_is_counted_and_recorded(tmp_path):
    runner = make_runner(tmp_path)
    runner.run([experiment("explainer=prediction", "n_samples=8")])
    found = runner.recorder.store.load().set_index("sample")
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
    found = runner.recorder.store.load()
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
    first = runner.recorder.samples(planned)[:2]
    saved = {path.stem for path in runner.recorder.store.maps_folder.iterdir()}
    assert saved == {runner.recorder.unit(planned, sample).id for sample in first if sample.image != EMPTY}


def test_images_explained_together_give_the_same_records(tmp_path):
    alone, together = make_runner(tmp_path / "alone"), make_runner(tmp_path / "together")
    for runner, step in ((alone, 1), (together, 3)):
        runner.run([experiment("explainer=prediction", "n_samples=8", f"runner.images_per_step={step}")])
    columns = ["unit", "status", "dice_explained", "perturbation_ratio"]
    records = [runner.recorder.store.load() for runner in (alone, together)]
    tables = [frame[columns].sort_values("unit", ignore_index=True) for frame in records]
    assert tables[0].equals(tables[1])


def test_a_time_budget_leaves_work_for_the_next_run(tmp_path, monkeypatch):
    now = 0.0
    planned = [experiment("explainer=prediction", "n_samples=8")]
    first = make_runner(tmp_path, deadline=50)
    explain = first.explain

    def slowly(turns, deadline):
        nonlocal now
        now += 20
        return replace(explain(turns, math.inf), seconds=20.0)

    first.explain = slowly
    monkeypatch.setattr(module.time, "time", lambda: now)
    first.run(planned)
    monkeypatch.undo()
    # Explaining takes 20 s where 10 were estimated: after two it is 40 s, and a third does not end by 50.
    assert (first.counts.done + first.counts.skipped, first.counts.left) == (2, 6)
    second = make_runner(tmp_path)
    second.run(planned)
    assert second.counts.present == 2
    assert second.counts.done + second.counts.skipped == 6


# Rounds


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


def test_images_per_step_is_a_key():
    assert images_per_step([experiment("runner.images_per_step=5")]) == 5
    assert images_per_step([]) >= 1


def run_with_time(
    monkeypatch, costs: list[float], sizes: list[int], budget: float, first: int = 0
) -> tuple[list[int], int]:
    """Return how many samples of each experiment were explained, where each takes exactly what is estimated.

    The ``first`` experiments are a run of their own.
    """
    clock, done = [0.0], [0] * len(costs)
    planned = [plain(str(i), n) for i, n in enumerate(sizes)]
    pace = SimpleNamespace(explaining=lambda e: costs[int(e.explainer.name)])
    store = SimpleNamespace(outcomes=lambda asked: [Outcome()] * len(asked))
    recorder = SimpleNamespace(store=store, unit=lambda of, sample: SimpleNamespace(id=f"{of.explainer.name} {sample}"))
    recorder.samples = lambda experiment: list(range(experiment.n_samples))

    def explain(turns, deadline):
        ((planned, ranks),) = [(turn.experiment, turn.ranks) for turn in turns]
        index = int(planned.explainer.name)
        clock[0] += costs[index] * len(ranks)
        done[index] += len(ranks)
        return Tally(seconds=costs[index] * len(ranks))

    monkeypatch.setattr(module.time, "time", lambda: clock[0])
    monkeypatch.setattr(module, "images_per_step", lambda _: 1)
    monkeypatch.setattr(type(plain("0", 1)), "label", "toy")
    runner = Runner(recorder, pace, explain, deadline=budget)
    for part in (planned[:first], planned[first:]):
        runner.run(part)
    return done, runner.counts.left


def test_time_that_ends_in_the_first_round_leaves_holes_in_the_last_sweeps_alone(monkeypatch):
    costs = [1.0] * 20 + [50.0] + [0.1] * 19  # a slow one amid forty; the cheap ones come after it
    done, left = run_with_time(monkeypatch, costs, [1 + i % 7 for i in range(40)], budget=30)
    assert done == [1] * 20 + [0] * 20
    assert left == sum(1 + i % 7 for i in range(40)) - 20


def test_time_that_ends_in_what_comes_first_leaves_nothing_to_the_rest(monkeypatch):
    assert run_with_time(monkeypatch, [1.0, 50.0, 0.1], [2, 2, 3], budget=30, first=2) == ([1, 0, 0], 6)


def test_an_experiment_that_waits_begins_when_the_others_are_done():
    first, second = plain("0", 4), plain("1", 1)
    waiting = [replace(plain(name, n), after=place) for name, n, place in (("2", 1, 2), ("3", 2, 1), ("4", 1, 1))]
    order = [(e.explainer.name, ranks.start) for e, ranks in rounds([*waiting, first, second], 1)]
    assert order == [("0", 0), ("1", 0), ("0", 1), ("0", 2), ("0", 3), ("3", 0), ("4", 0), ("3", 1), ("2", 0)]


@given(sizes=st.lists(st.integers(1, 24), min_size=40, max_size=40), stop=st.integers(0, 500))
def test_forty_experiments_have_the_same_share_whenever_it_stops(sizes, stop):
    planned = [plain(str(i), n) for i, n in enumerate(sizes)]
    done = [0] * len(sizes)
    for due_now, ranks in rounds(planned, 1)[:stop]:
        done[int(due_now.explainer.name)] += len(ranks)
    started = [n > 0 for n in done]
    assert started == sorted(started, reverse=True)  # the first round goes through the sweeps in their order
    begun = [(n - 1) / of for n, of in zip(done, sizes, strict=True) if n]
    due = [n / of for n, of in zip(done, sizes, strict=True) if n < of]
    assert max(begun, default=0) <= min(due, default=1)  # nobody began a step while another was owed an earlier one


SHARING = """
import sys
from pathlib import Path
import torch
from hydra import initialize_config_dir
from misure.io.installed import CONFIG_FOLDER
from sweep_runs import experiment, runner_of, toy_setup

from misure.sweep.recorder import Recorder
from misure.sweep.records import RecordStore

torch.set_num_threads(1)
folder = Path(sys.argv[1])


class Counting(Recorder):
    def explain(self, of, samples):
        for sample in samples:
            with (folder / "explained").open("a") as stream:
                stream.write(self.unit(of, sample).id + "\\n")
        if samples and len(sys.argv) > 2:
            print("takes", flush=True)
            sys.stdin.read()
        super().explain(of, samples)


with initialize_config_dir(CONFIG_FOLDER, version_base="1.3"):
    planned = [experiment(f"explainer={name}", "n_samples=8") for name in ("prediction", "random_map")]
    runner = runner_of(Counting(RecordStore(folder / "records"), toy_setup()))
    runner.run(planned)
counts = runner.counts
print(counts.done + counts.skipped, counts.present, counts.left)
"""


def sharing(folder, *more: str) -> subprocess.Popen:
    """Start a process that explains 16 samples in a folder; with more arguments it waits before the first of them."""
    command = [sys.executable, "-c", SHARING, str(folder), *more]
    environment = os.environ | {"PYTHONPATH": str(PROJECT / "tests")}
    return subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_two_processes_share_the_work(tmp_path):
    with sharing(tmp_path) as first, sharing(tmp_path) as second:
        told = [[int(n) for n in process.communicate(timeout=300)[0].split()] for process in (first, second)]
    explained = (tmp_path / "explained").read_text().split()
    assert len(explained) == len(set(explained)) == 16
    assert [made + present for made, present, _ in told] == [16, 16]
    assert sum(made for made, _, _ in told) == 16
    assert [left for _, _, left in told] == [0, 0]
    store = RecordStore(tmp_path / "records")
    assert set(store.load()["unit"]) == set(explained)
    assert not [path for path in store.folder.rglob("*") if path.is_file() and path.suffix not in {".jsonl", ".npz"}]


def test_what_a_killed_process_had_taken_is_explained_by_the_other(tmp_path):
    with sharing(tmp_path, "waits") as killed:
        assert killed.stdout.readline() == "takes\n"
        with sharing(tmp_path) as other:
            while len((tmp_path / "explained").read_text().split()) < 16:
                assert other.poll() is None  # it does all the others and waits for the one that is taken
                time.sleep(0.05)
            killed.kill()
            assert other.communicate(timeout=300)[0].split() == ["16", "0", "0"]
    explained = (tmp_path / "explained").read_text().split()
    assert (len(explained), len(set(explained))) == (17, 16)


@pytest.mark.parametrize("damage", ["lost", "cut", "served"])
def test_a_lost_map_is_made_anew_by_every_profile_that_saves_it(tmp_path, damage):
    planned = [experiment("explainer=prediction", "n_samples=4")]
    make_runner(tmp_path).run(planned)
    store = RecordStore(tmp_path / "records")
    path, *others = sorted(store.maps_folder.iterdir())
    whole = path.read_bytes()
    path.write_bytes(whole[:-9]) if damage == "cut" else path.unlink()
    if damage == "served":
        planned[0].cfg.profile.name = "paper"
    again = make_runner(tmp_path)
    (outlook,) = outlooks_of(planned, again.recorder.setup, store)
    again.run(planned)
    assert (outlook.to_do, again.counts.done) == (1, 1)
    assert len(path.read_bytes()) == len(whole)
    assert all(other.exists() for other in others)


def test_numbers_stay_where_making_their_maps_anew_fails(tmp_path, monkeypatch):
    planned = [experiment("explainer=prediction", "n_samples=1")]
    make_runner(tmp_path).run(planned)
    store = RecordStore(tmp_path / "records")
    (path,) = store.maps_folder.iterdir()
    path.unlink()
    before = store.load()

    def fail(*_args, **_keys):
        raise RuntimeError("out of memory")

    again = make_runner(tmp_path)
    monkeypatch.setattr(Explainer, "explain", fail)
    again.run(planned)
    assert sum(again.counts.reasons.values()) == 1
    assert RecordStore(tmp_path / "records").load().equals(before)


def test_maps_that_were_put_aside_go_when_they_are_made_anew(tmp_path):
    planned = [experiment("explainer=prediction", "n_samples=1")]
    make_runner(tmp_path).run(planned)
    (path,) = RecordStore(tmp_path / "records").maps_folder.iterdir()
    path.rename(f"{path}{DAMAGED}")
    make_runner(tmp_path).run(planned)
    assert [*path.parent.iterdir()] == [path]
