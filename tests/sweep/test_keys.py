"""Every key of a configuration refuses what it cannot hold, in one line that names it, before anything is done."""

from __future__ import annotations

import math
import re

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from misure.cli.overrides import check_overrides
from misure.cli.reads import READS
from misure.config import leaves
from misure.errors import MisureError
from misure.io.installed import CONFIG_FOLDER
from misure.sweep.keys import called, check_configuration

NOT_A_NUMBER = {"text": "abc", "nan": math.nan, "list": [], "dict": {}, "null": None, "true": True}
NUMBERS = {"negative": -1, "zero": 0, "half": 0.5, "huge": 10**30, "infinite": math.inf}
REFUSED = {
    bool: {"text", "nan", "list", "dict", "null", "negative", "half", "huge", "infinite"},
    int: {"text", "nan", "list", "dict", "null", "true", "negative", "half", "huge", "infinite"},
    float: {"text", "nan", "list", "dict", "null", "true", "negative"},
    str: {"nan", "list", "dict", "true", "negative", "zero", "half", "huge", "infinite"},
    list: {"text", "nan", "dict", "null", "true", "negative", "zero", "half", "huge", "infinite"},
}
"""What a key refuses at least, by the type of the value that it usually has."""

MAY = {
    ("n_samples", "null"),
    ("runner.batch_size", "text"),
    ("runner.workers", "null"),
    ("model.network.pretrained", "null"),
    ("model.bottleneck", "null"),
    ("dataset.networks", "null"),
}
ELSEWHERE = re.compile(
    r"dataset\.(counts|layout|size|available|prepares?|title|phantom|bike|classes|images_per_class)\b.*"
    r"|.*(data_root|stand_in|_target_|folder)|logger\..*|blanking|sweeps\..*|shows\..*|intervention"
    r"|profile\.(triangle\.layout|synapse\.(phantom|augment|transunet)|coco\.scenes)\b.*|dataset\.curriculum"
)
"""Keys whose value is read through others here, in a configuration without interpolations, or as text of any kind."""


def set_value(cfg: DictConfig, key: str, value: object) -> None:
    parent, _, name = key.rpartition(".")
    node = OmegaConf.select(cfg, parent) if parent else cfg
    node.pop(name)
    node[name] = value


def accepted(entry: str, *overrides: str, but: set[str] = frozenset()) -> tuple[set[str], list[tuple[str, str]], list]:
    """Try wrong values at every leaf: return the leaves, the pairs of key and value accepted, and what else came."""
    with initialize_config_dir(CONFIG_FOLDER, version_base="1.3"):
        cfg = compose(entry, ["profile=smoke", *overrides])
        reads = list(READS[entry].keys(cfg))
    cfg = OmegaConf.create(OmegaConf.to_container(cfg, resolve=True))
    check_configuration(cfg, reads)
    kept, other = list[tuple[str, str]](), list[tuple[str, str]]()
    keys = {key for key, _ in leaves(cfg) if any(f"{key}.".startswith(f"{read}.") for read in reads)} - but
    for key in sorted(keys):
        usual = OmegaConf.select(cfg, key)
        usual = OmegaConf.to_container(usual) if OmegaConf.is_config(usual) else usual
        for kind, value in (NOT_A_NUMBER | NUMBERS).items() if not ELSEWHERE.fullmatch(key) else ():
            set_value(cfg, key, value)
            try:
                check_configuration(cfg, reads)
                kept += [(key, kind)] if kind in REFUSED.get(type(usual), ()) and (key, kind) not in MAY else []
            except MisureError as error:
                group = str(error).partition(": ")[0]  # where values do not fit each other
                if "\n" in str(error) or not (key.rpartition(".")[2] in str(error) or key.startswith(group)):
                    other.append((key, kind, str(error)))
            except Exception as error:  # noqa: BLE001 - that is what must not come
                other.append((key, kind, repr(error)))
        set_value(cfg, key, usual)
    return keys, kept, other


@pytest.mark.slow
def test_every_key_refuses_what_it_cannot_hold_in_one_line():
    tried: set[str] = set()
    for entry, *overrides in [("run",), ("reproduce",), ("train", "dataset=coco", "model=deeplabv3_stand_in")]:
        keys, kept, other = accepted(entry, *overrides, but=tried)
        assert (kept, other) == ([], []), entry
        tried |= keys
    assert len(tried) > 150


@pytest.mark.parametrize(
    "override",
    [
        "training.batch_size=0",
        "training.lr=-1",
        "training.max_epochs=0",
        "training.warmup=1",
        "profile.name=[]",
        "profile.triangle.training.batch_size=0",
        "profile.triangle.training.max_minutes=inf minutes",
        "profile.synapse.stand_in.max_minutes=soon",
        "profile.triangle.n_samples.msr=few",
        "profile.triangle=5",
        "profile.triangle.layout.canvas=0",
        "seed=one",
        "seed=-1",
        "seed=99999999999999999999999",
        "precision=half",
        "lambda=[0.1]",
        "runner.images_per_step=0",
        "runner.loaders=-1",
        "runner.compute.batch_size=foo",
        "blanking=pink",
        "explainer.tau=2",
        "dataset.train.size=0",
        "dataset.train=5",
        "model.network.classes=-3",
        "data_root=null",
        "n_samples=0.5",
        "checkpoint=[a]",
        "outputs=",
        "outputs=/",
        "outputs=' '",
        "outputs=//..",
    ],
)
def test_a_wrong_override_is_told_by_the_key_that_was_given(override):
    with pytest.raises(MisureError) as caught:
        check_overrides("run", "run", ["profile=quick", override], multirun=False)
    key = override.partition("=")[0]
    group, _, name = key.rpartition(".")
    assert str(caught.value).startswith((f"{key}=", f"{group}: {name}="))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("entry", ["train", "reproduce", "tables", "bench", "explain", "layers", "prepare_data"])
def test_no_entry_point_takes_an_empty_name_or_a_file_for_its_outputs(entry, tmp_path):
    config = {"layers": "explain"}.get(entry, entry)
    file = tmp_path / "file"
    file.write_text("")
    for given in ("", "/", str(file), str(file / "inside")):
        if entry == "tables":
            config = "reproduce"
        with pytest.raises(MisureError, match=r"^outputs=.* is not a folder to write into"):
            check_overrides(entry, config, [f"outputs={given}"], multirun=False)


def test_several_batches_belong_to_an_epoch():
    few = ["training.samples_per_epoch=3", "training.batch_size=4"]
    with pytest.raises(MisureError, match=r"samples_per_epoch=3 is less than one batch \(training.batch_size=4\)"):
        check_overrides("train", "train", few, multirun=False)


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("training.batch_size", "profile.triangle.training.batch_size"),
        ("explainer.lam", "lambda"),
        ("dataset.train.layout.canvas", "profile.triangle.layout.canvas"),
        ("dataset.val.seed", "seed"),
        ("training.loss", "training.loss"),
        ("runner.compute.precision", "profile.precision"),
    ],
)
@pytest.mark.usefixtures("hydra")
def test_a_key_is_called_by_the_one_that_decides_it(key, name):
    assert called(compose("run"), key) == name


@pytest.mark.usefixtures("hydra")
def test_a_dataset_may_set_the_precision_of_a_profile():
    triangle, coco = (compose("run", ["profile=reference", f"dataset={name}"]) for name in ("triangle", "coco"))
    assert (triangle.runner.compute.precision, triangle.training.precision, coco.precision) == ("bf16", "bf16", 32)
    assert called(triangle, "precision") == "profile.triangle.precision"
    assert compose("run", ["profile=reference", "precision=32"]).runner.compute.precision == 32
