"""Overrides that change nothing are refused, with the key that does; all others are let through."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf import OmegaConf
from pipeline import PROJECT, TINY, run_script, shipped_root

from misure.cli.overrides import check_overrides, reaches
from misure.cli.reads import READS
from misure.errors import MisureError
from misure.io.installed import CONFIG_FOLDER, config_groups

CONFIGS = {"tables": "reproduce", "scaling": "bench", "operations": "run", "layers": "explain"}
"""Configurations of the entry points that have none of their own name."""


def check(command: str) -> None:
    name, *given = command.split()
    multirun = "-m" in given
    check_overrides(name, CONFIGS.get(name, name), [g for g in given if g != "-m"], multirun=multirun)


@pytest.mark.parametrize(
    ("command", "named"),
    [
        ("run sweep=table3", "-m"),
        ("run n_masks=10", "explainer.n_masks with explainer=rise"),
        ("run +n_masks=10", "explainer.n_masks with explainer=rise"),
        ("run explainer=rise n_masks=10", "reads explainer.n_masks"),
        ("run +tau=0.8", "explainer.tau"),
        ("run explainer=rise lr=0.5", "lr with explainer=msr"),
        ("run -m explainer=seg_grad_cam,rise lr=0.1,0.01", "lr with explainer=msr"),
        ("run resize=native", "resize with dataset=coco"),
        ("run profile.synapse.size=64", "dataset=synapse"),
        ("run lamda=1", "lambda"),
        ("run explainer.lamda=1", "explainer.lam"),
        ("run +dataset.foo=3", "dataset.foo"),
        ("train lr=0.5", "training.lr"),
        ("train explainer=rise", "train does not read explainer"),
        ("train dataset.sampling.class_id=0", "dataset.sampling.class_id"),
        ("reproduce only=[table7] explainer.n_masks=5", "explainer.n_masks with explainer=rise"),
        ("tables lr=3", "tables does not read lr"),
        ("methods explainer=rise", "methods.names"),
        ("explain image=x n_samples=3", "explainer.n_samples"),
        ("layers explainer=rise", "explainer"),
        ("prepare_data dataset=coco source=x", "source with dataset=synapse"),
        ("run dataset=coco model=deeplabv3_mobilenetv2 training.lr=1", "training.lr"),
    ],
)
def test_what_changes_nothing_is_refused_with_what_does(command, named):
    with pytest.raises(MisureError) as caught:
        check(command)
    assert named in str(caught.value)
    assert "+" not in str(caught.value).replace(command.split()[-1], "")  # adding a key is no way to set it
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "command",
    [
        "run lr=0.1",  # the default, but of a key that counts
        "run -m explainer=msr,rise lr=0.1,0.01",
        "run -m sweep=table3 n_samples=2",
        "run dataset=coco resize=native blanking=black",
        "run hydra.verbose=true explainer.tau=0.8",
        "run dataset=synapse model=transunet stand_in=true explainer=msr",
        "run profile=quick precision=32 runner.batch_size=2 profile.triangle.n_samples.msr=7 plan_only=true",
        "train profile=paper logger=wandb seed=3 runner.loaders=2",
        "reproduce profile.coco.rise_masks=3 profile.coco.scenes.size=64",
        "reproduce only=table1 lr=0.5 data_root=none",
        "tables profile=quick outputs=elsewhere",
        "methods dataset=coco model=deeplabv3_mobilenetv2 profile=quick dataset.size=224 methods.images=2",
        "bench bench.images=4 precision=32",
        "scaling profile=quick scaling.seconds_a_point=60 scaling.axes.batch_size=[1,2,4]",
        "rise_masks dataset=coco model=deeplabv3_mobilenetv2 rise_masks.images=2",
        "operations dataset=triangle explainer=msr n_samples=1",
        "explain image=photo.jpg model=deeplabv3_mobilenetv2 target=dog explainer=rise explainer.n_masks=50",
        "layers model_file=network.pt2",
        "prepare_data dataset=coco seed=3 dataset.prepare.server.threads=2",
        "prepare_data dataset=synapse source=folder labels=totalsegmentator",
    ],
)
def test_what_counts_is_let_through(command):
    check(command)


def test_what_hydra_cannot_choose_is_its_own_error():
    with pytest.raises(HydraException, match="mrs"):
        check("run explainer=mrs")


def test_every_entry_point_is_known():
    used = {path.stem for path in (PROJECT / "scripts").glob("*.py")} | {"layers"}
    assert set(READS) == used


def test_every_key_of_an_experiment_reaches_it():
    """By the method or dataset it is for; a key that no experiment reads would be dead."""
    with initialize_config_dir(CONFIG_FOLDER, version_base="1.3"):
        made = [compose("run", ["dataset=coco", f"explainer={method}"]) for method in ("msr", "rise")]
    left = {str(key) for key in made[0] if key not in config_groups()}
    for cfg in made:
        left = {key for key in left if not reaches(cfg, READS["run"].keys(cfg), key)}
    assert left == set()


TRACED = """
import json, runpy, sys
from omegaconf import DictConfig

read, get = set(), DictConfig._get_impl

def traced(self, key, *arguments, **options):
    frame = sys._getframe(1)
    while "omegaconf" in frame.f_code.co_filename:
        frame = frame.f_back
    if "/misure/" in frame.f_code.co_filename and not frame.f_code.co_filename.endswith(("overrides.py", "reads.py")):
        read.add(self._get_full_key(key))
    return get(self, key, *arguments, **options)

DictConfig._get_impl = traced
sys.argv[0] = {script!r}
runpy.run_path(sys.argv[0], run_name="__main__")
print(json.dumps(sorted(read)))
"""


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("run", ["explainer=msr"]),  # which trains as well
        ("reproduce", ["only=table6", "dataset=triangle", "explainer=random_map"]),
    ],
)
def test_all_that_an_entry_point_takes_from_its_configuration_is_known_as_read(tmp_path, name, given):
    """Otherwise an override that counts could be refused."""
    script = tmp_path / "traced.py"
    script.write_text(TRACED.format(script=str(PROJECT / "scripts" / f"{name}.py")))
    places = [f"data_root={shipped_root(tmp_path / 'data')}", "outputs=out"]
    ended = run_script(script, [*TINY, *given, *places], tmp_path)
    assert ended.code == 0, ended.err
    taken = {key.replace("profile.triangle", "dataset.counts") for key in json.loads(ended.out.splitlines()[-1])}
    whole = {key for key in taken if not any(other.startswith(f"{key}.") for other in taken)}
    with initialize_config_dir(CONFIG_FOLDER, version_base="1.3"):
        cfg = compose(name, TINY)
        unknown = {key for key in whole if not reaches(cfg, READS[name].keys(cfg), key)}
        present = {key for key in unknown if OmegaConf.select(cfg, key) is not None}
    assert not present, f"{name} takes these, misure/cli/reads.py does not say so"


def test_the_file_of_reads_names_files_that_exist():
    assert {CONFIGS.get(name, name) for name in READS} == {path.stem for path in Path(CONFIG_FOLDER).glob("*.yaml")}
