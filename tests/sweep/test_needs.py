"""What is fetched before work is handed out: workers may have no internet."""

from __future__ import annotations

import inspect
import time
from concurrent.futures import Future
from types import SimpleNamespace

import pytest
from hydra import compose
from pipeline import TINY, shipped_root
from sweep_runs import experiment

from misure.cli import commands, reproduce
from misure.datasets import fashion_mnist
from misure.datasets.available import Available
from misure.errors import MisureError
from misure.sweep import needs
from misure.sweep.executors import Crew
from misure.sweep.needs import fetch_ahead
from misure.sweep.turns import make_ready, portable

pytestmark = pytest.mark.usefixtures("hydra")


@pytest.fixture
def asked(monkeypatch) -> list[str]:
    """What the Hub was asked for; it does not answer."""
    asked: list[str] = []
    monkeypatch.setattr("misure.models.unet.is_cached", lambda *_: False)
    monkeypatch.setattr("misure.models.unet.built_from_hub", lambda _, repository, *__, **___: asked.append(repository))
    return asked


def composed(tmp_path, *more: str):
    given = [*TINY, f"data_root={shipped_root(tmp_path / 'root')}", f"outputs={tmp_path / 'out'}"]
    return compose("run", [*given, "model.network.pretrained=imagenet", *more])


def test_weights_that_a_training_begins_with_are_fetched_ahead(tmp_path, asked):
    cfg = composed(tmp_path)
    fetch_ahead(cfg)
    assert asked == ["smp-hub/mobilenet_v2.imagenet"]
    checkpoints = tmp_path / "out" / "checkpoints"
    checkpoints.mkdir(parents=True)
    (checkpoints / "triangle-unet_vgg16-smoke.json").touch()  # it is trained
    fetch_ahead(cfg)
    assert len(asked) == 1


@pytest.mark.parametrize("download", ["a file", ""])
def test_weights_from_elsewhere_are_fetched_ahead_where_they_are_not_here(tmp_path, monkeypatch, asked, download):
    imported = []
    monkeypatch.setattr(needs, "elsewhere", lambda _: SimpleNamespace(download=download))
    monkeypatch.setattr(needs, "import_network", imported.append)
    cfg = composed(tmp_path)
    fetch_ahead(cfg)
    assert (imported, asked) == ([cfg] if download else [], [])


def test_what_cannot_be_fetched_is_told_by_whoever_needs_it(tmp_path, monkeypatch, recwarn):
    def refuse(_cfg):
        raise MisureError("no disk")

    monkeypatch.setattr(needs, "available", refuse)
    fetch_ahead(composed(tmp_path))
    assert not recwarn


def test_all_is_fetched_before_the_first_work_is_handed_out(monkeypatch):
    done: list[object] = []
    executor = SimpleNamespace(submit=lambda _, part: done.append(part) or Future())
    monkeypatch.setattr(reproduce, "fetch_ahead", lambda cfg: done.append(f"fetched {cfg}"))
    monkeypatch.setattr(reproduce, "_to_prepare", lambda part: [part.cfg])
    parts = [SimpleNamespace(cfg=name) for name in "ab"]
    plan = SimpleNamespace(setups=parts, in_order=parts, turns=lambda _: [(part, time.time()) for part in parts])
    assert [part.cfg for part, *_ in reproduce._prepared_ahead(plan, Crew(executor))] == ["a", "b"]
    assert done == ["fetched a", "fetched b", "a", "b"]


@pytest.mark.filterwarnings("ignore:The number of training batches")
def test_workers_download_no_images(tmp_path, monkeypatch):
    monkeypatch.setattr(fashion_mnist, "SYSTEM_FOLDER", tmp_path / "none")
    monkeypatch.setattr(fashion_mnist, "_download", lambda _: pytest.fail("a worker downloads"))
    planned = experiment(f"data_root={tmp_path / 'data'}", f"outputs={tmp_path / 'out'}", "n_samples=1")
    ready = make_ready(portable(planned.cfg), planned)
    assert "subset shipped" in ready.described().dataset.source


@pytest.mark.parametrize(
    ("fetches", "plan_only", "said"),
    [
        (True, False, "the whole"),
        (True, True, "what is not there is made: 3 files"),
        (False, False, "needs no preparation: the whole"),
    ],
)
def test_prepare_fetches_what_has_no_step_of_its_own(monkeypatch, capsys, fetches, plan_only, said):
    done: list[str] = []
    fetch = (lambda: done.append("fetched")) if fetches else None
    answers = iter([Available("real", "a part" if fetches else "the whole", {}, "3 files" * fetches, fetch=fetch)])
    monkeypatch.setattr("misure.sweep.images.available", lambda _: next(answers, Available("real", "the whole", {})))
    cfg = compose("prepare_data", ["dataset=triangle", f"plan_only={plan_only}"])
    inspect.unwrap(commands.prepare_data)(cfg)
    assert said in capsys.readouterr().out
    assert done == ["fetched"] * (fetches and not plan_only)
