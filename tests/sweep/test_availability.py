"""The network of a setup: the first of a list whose weights and images can be had."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hydra import compose

from misure.errors import AbsentError, MisureError
from misure.models.pretrained import TorchvisionWeights
from misure.sweep import availability as at_hand
from misure.sweep.availability import NetworkChoice
from misure.sweep.images import fitted
from misure.sweep.sweeps import networks_of

pytestmark = pytest.mark.usefixtures("hydra")


@pytest.fixture
def overrides(tmp_path, monkeypatch) -> list[str]:
    """An empty data root, and no server that answers."""
    monkeypatch.setattr(TorchvisionWeights, "is_at_hand", lambda _: False)
    return ["profile=quick", f"data_root={tmp_path / 'data'}", f"outputs={tmp_path / 'outputs'}"]


def with_photographs(overrides: list[str]) -> list[str]:
    """The same with something where COCO's annotations should be."""
    root = Path(next(o for o in overrides if o.startswith("data_root=")).partition("=")[2])
    (root / "coco" / "annotations").mkdir(parents=True)
    (root / "coco" / "annotations" / "instances_val2017.json").write_text("{}")
    return overrides


STAND_IN = [
    *("dataset=coco", "model=deeplabv3_stand_in"),
    *("++profile.coco.max_minutes=5", "++profile.coco.scale=0.2857", "++profile.coco.training.max_minutes=1.5"),
    *("++profile.coco.msr_iterations=30", "++profile.coco.n_samples.msr=4"),
    *("++profile.coco.n_samples.sufficient_region=8", "++profile.coco.n_samples.rise=3"),
    *("++profile.coco.n_samples.seg_grad_cam=8", "++profile.coco.n_samples.prediction=8"),
    "++profile.coco.n_samples.random_map=8",
]
"""The network for generated scenes, and what the quick profile has for it."""


def choose(overrides: list[str], dataset: str = "coco", *, stand_in: bool = True) -> list[str]:
    return NetworkChoice(overrides, stand_in)(dataset, networks_of(dataset, overrides)[0])


def test_phantoms_have_their_own_size_and_minutes_and_the_users_own_win(overrides):
    given = [*overrides, "stand_in=true", "dataset=synapse"]
    cfg = compose("run", given)
    assert cfg.dataset.size == 224
    changed = fitted(cfg, "run", given)
    assert (changed.dataset.size, changed.dataset.counts.max_minutes) == (64, 9)
    assert changed.training.max_minutes == 1.5
    mine = [*given, "profile.synapse.size=128"]
    assert fitted(compose("run", mine), "run", mine).dataset.size == 128


def test_slices_that_are_there_keep_the_papers_size(overrides, tmp_path):
    for part in ("train_npz", "test_vol_h5"):
        (tmp_path / "data" / "synapse" / part).mkdir(parents=True)
    given = [*overrides, "stand_in=true", "dataset=synapse"]
    cfg = compose("run", given)
    assert fitted(cfg, "run", given) is cfg


def test_a_stand_in_that_is_not_allowed_changes_nothing(overrides):
    given = [*overrides, "dataset=synapse"]
    cfg = compose("run", given)
    assert fitted(cfg, "run", given) is cfg


def test_a_dataset_with_one_network_has_no_choice(overrides):
    assert choose(overrides, "triangle") == ["dataset=triangle"]


def test_the_users_own_model_is_kept(overrides):
    assert choose([*overrides, "model=deeplabv3_mobilenetv2"]) == ["dataset=coco"]


def test_without_photographs_the_stand_in_is_taken_and_the_reasons_are_told(overrides, capsys):
    assert choose(overrides) == STAND_IN
    said = capsys.readouterr().out
    assert "network for coco: deeplabv3_stand_in" in said
    assert said.count("COCO-2017 was not found") == 2


def test_without_weights_the_stand_in_is_taken(overrides, capsys):
    assert choose(with_photographs(overrides)) == STAND_IN
    said = capsys.readouterr().out
    assert "not deeplabv3_resnet50: neither the file of torchvision COCO_WITH_VOC_LABELS_V1 nor its server" in said
    assert "not deeplabv3_mobilenetv2: neither" in said


def test_a_stand_in_that_is_not_allowed_is_an_error_with_every_reason(overrides):
    with pytest.raises(AbsentError, match=r"no network for dataset=coco:\ndeeplabv3_resnet50: (.|\n)*stand_in=true"):
        choose(with_photographs(overrides), stand_in=False)


@pytest.mark.parametrize(("dataset", "words"), [("coco", "misure prepare dataset=coco"), ("synapse", "syn3193805")])
def test_absent_data_that_nothing_may_replace_says_what_to_do(overrides, dataset, words):
    with pytest.raises(AbsentError, match=words):
        choose(overrides, dataset, stand_in=False)


def test_a_plan_fetches_nothing(overrides, monkeypatch):
    monkeypatch.setattr(TorchvisionWeights, "is_at_hand", lambda _: True)
    monkeypatch.setattr(at_hand, "import_network", lambda _: pytest.fail("it was fetched"))
    choice = NetworkChoice(with_photographs(overrides), stand_in=True, fetch=False)
    assert choice("coco", networks_of("coco", overrides)[0])[1] == "model=deeplabv3_resnet50"


def test_weights_that_can_be_had_come_first_and_are_fetched(overrides, monkeypatch, capsys):
    fetched = []
    monkeypatch.setattr(TorchvisionWeights, "is_at_hand", lambda _: True)
    monkeypatch.setattr(at_hand, "import_network", lambda cfg: fetched.append(cfg.model.name))
    choice = NetworkChoice(with_photographs(overrides), stand_in=True)
    assert choice("coco", networks_of("coco", overrides)[0]) == ["dataset=coco", "model=deeplabv3_resnet50"]
    assert fetched == ["deeplabv3_resnet50"]
    assert capsys.readouterr().out == "network for coco: deeplabv3_resnet50\n"


def test_a_download_that_fails_leads_to_the_next(overrides, monkeypatch, capsys):
    def fail(_):
        raise MisureError("the connection was cut")

    monkeypatch.setattr(TorchvisionWeights, "is_at_hand", lambda _: True)
    monkeypatch.setattr(at_hand, "import_network", fail)
    assert choose(with_photographs(overrides)) == STAND_IN
    assert "not deeplabv3_resnet50: the connection was cut" in capsys.readouterr().out


def test_real_photographs_and_the_mobile_network_are_taken(overrides, tmp_path):
    root = Path(os.environ.get("MISURE_DATA", "data"))
    if not (root / "deeplabv3_mobilenetv2_voc").is_dir() or not (root / "coco").is_dir():
        pytest.skip(f"{root} has no COCO images with the weights of deeplabv3_mobilenetv2")
    assert choose([*overrides, f"data_root={root}"]) == ["dataset=coco", "model=deeplabv3_mobilenetv2"]
    assert (tmp_path / "outputs" / "checkpoints" / "coco-deeplabv3_mobilenetv2-published.safetensors").is_file()
