"""Every shipped configuration composes and builds what it says; wrong values get one line."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.utils import get_class
from omegaconf import DictConfig, OmegaConf
from pipeline import shipped_root

from misure.config import build, compute_of, sweep_grid
from misure.datasets.triangle import TriangleDataset
from misure.errors import MisureError
from misure.explainers import EXPLAINERS, MSR, Explainer
from misure.io.installed import CONFIG_FOLDER
from misure.models.checkpoint import without_pretrained
from misure.paper.extensions.readings import readings_of
from misure.sweep.experiment import Experiment
from misure.sweep.interventions import NOTHING
from misure.sweep.plan import merge
from misure.sweep.sweeps import Sweeps, chosen_sweeps
from misure.training.config import Recipe


def files(group: str) -> list[str]:
    return sorted(path.stem for path in Path(CONFIG_FOLDER, group).glob("*.yaml"))


COMPARED = {"msr", "rise", "seg_grad_cam", "prediction", "sufficient_region", "random_map"}
PROFILES, SWEEPS, DATASETS = files("profile"), files("sweep"), files("dataset")


pytestmark = pytest.mark.usefixtures("hydra")


def composed(*overrides: str, config: str = "run") -> DictConfig:
    return compose(config, list(overrides))


@pytest.mark.parametrize("config", files("."))
@pytest.mark.parametrize("profile", PROFILES)
def test_every_entry_point_composes_with_every_profile(config, profile):
    cfg = composed(f"profile={profile}", config=config)
    assert cfg.profile.name == profile
    assert isinstance(build(cfg.training), Recipe)
    sections = {name: section for name, section in cfg.profile.items() if isinstance(section, DictConfig)}
    assert set(sections) == {"default", *DATASETS}
    # those that the paper's tables compare; any other method explains as many as a sweep's cell has
    assert all(set(section.n_samples) == COMPARED for section in sections.values())


@pytest.mark.parametrize("name", files("explainer"))
@pytest.mark.parametrize("profile", PROFILES)
def test_every_explainer_builds(name, profile):
    cfg = composed(f"explainer={name}", f"profile={profile}")
    experiment = Experiment.of(cfg)
    assert isinstance(experiment.explainer, Explainer)
    method = name if name in EXPLAINERS else name.split("_")[0]  # a variant begins with its method
    assert experiment.explainer.name == method
    counts = cfg.profile.triangle
    assert experiment.n_samples == counts.n_samples.get(method, counts.sweep_samples)


def test_every_explainer_has_a_file():
    assert set(EXPLAINERS) <= set(files("explainer"))


@pytest.mark.parametrize("name", DATASETS)
def test_every_dataset_builds_and_names_itself(name, tmp_path):
    places = [f"data_root={shipped_root(tmp_path / 'data')}", f"outputs={tmp_path / 'outputs'}"]
    made = ["model=deeplabv3_stand_in"] if name == "coco" else []
    cfg = composed(f"dataset={name}", "profile=smoke", "stand_in=true", *made, *places)
    assert cfg.dataset.name == name
    for split in ("train", "val"):
        dataset = build(cfg.dataset[split])
        assert dataset[0]["image"].shape[0] == cfg.dataset.in_channels
        assert len(dataset) > 0
    assert len(cfg.dataset.class_names) == cfg.dataset.n_classes == cfg.model.network.classes


def test_triangle_is_as_in_the_paper(tmp_path):
    cfg = composed("profile=paper", f"data_root={shipped_root(tmp_path / 'data')}")
    train, val = build(cfg.dataset.train), build(cfg.dataset.val)
    assert isinstance(train, TriangleDataset)
    assert (len(train), len(val), train.layout.canvas, train.layout.distractors) == (1400, 600, 224, 5)
    assert (train.split, val.split) == ("train", "val")


@pytest.mark.parametrize("name", files("model"))
def test_every_model_has_its_bottleneck(name):
    home = "dataset=coco" if name.startswith("deeplabv3") else "dataset=triangle"
    cfg = composed(home, f"model={name}")
    assert cfg.model.name == name
    network = build(cfg.model.network, **without_pretrained(cfg.model.network))
    assert network.get_submodule(cfg.model.bottleneck) is not None


@pytest.mark.parametrize("name", files("logger"))
def test_every_logger_names_a_class_that_exists(name):
    if name == "wandb":
        pytest.importorskip("wandb")
    assert get_class(composed(f"logger={name}").logger._target_)


def test_the_csv_logger_builds(tmp_path):
    assert build(composed(f"outputs={tmp_path}").logger).save_dir == f"{tmp_path}/logs"


@pytest.mark.parametrize("name", files("runner"))
def test_every_runner_builds(name):
    assert compute_of(composed(f"runner={name}")).precision in {"32", "bf16", "auto"}


@pytest.mark.parametrize("name", DATASETS)
def test_a_dataset_chooses_its_model_and_the_command_line_overrides_it(name, tmp_path):
    folder = tmp_path / "more" / "model"
    folder.mkdir(parents=True)
    (folder / "another.yaml").write_text("name: another\nnetwork: {classes: 2}\n")
    search = f"hydra.searchpath=[file://{folder.parent}]"
    assert composed(f"dataset={name}", search).model.name in files("model")
    assert composed(f"dataset={name}", "model=another", search).model.name == "another"
    assert composed("model=another", f"dataset={name}", search).model.name == "another"


def test_a_network_chooses_its_recipe_and_the_command_line_overrides_it():
    published = build(composed("dataset=synapse", "model=transunet", "profile=paper").training)
    assert (published.optimiser, published.schedule, published.loss) == (
        "sgd",
        "polynomial",
        "half_cross_entropy_half_dice",
    )
    assert (published.peak_lr, published.batch_size, published.max_epochs) == (0.01, 24, 150)
    assert build(composed("dataset=synapse").training).optimiser == "adamw"
    assert build(composed("dataset=synapse", "model=transunet", "training=adamw").training).optimiser == "adamw"


def test_top_level_keys_reach_the_explainer():
    explainer = Experiment.of(
        composed("profile=paper", "lr=0.001", "lambda=0.3", "mask_size=56", "blanking=mean", "seed=5")
    ).explainer
    given = explainer.parameters
    assert [given[k] for k in ("lr", "lam", "mask_size", "blanking", "seed")] == [0.001, 0.3, 56, "mean", 5]


@pytest.mark.parametrize(
    "override",
    [
        "lambda=abc",
        "lambda=-1",
        "lambda=true",
        "lambda=null",
        "lambda=.nan",
        "lambda=.inf",
        "lambda=[1]",
        "lr=-0.1",
        "mask_size=0",
        "mask_size=56.5",
        "n_samples=0",
        "input_noise=-1",
        "blanking=pink",
        "seed=-1",
        "explainer.tau=2",
        "+explainer.lamda=1",
        "explainer=rise explainer.style=soft",
        "reading=best",
        "explainer=seg_grad_cam explainer.thresholds=0.5",
    ],
)
def test_a_wrong_value_is_one_line(override):
    with pytest.raises(MisureError) as caught:
        Experiment.of(composed(*override.split()))
    assert "\n" not in str(caught.value)
    assert override.split()[-1].lstrip("+").partition("=")[0].removeprefix("explainer.") in str(caught.value)


def test_a_parameter_that_does_not_exist_is_answered_with_close_names():
    with pytest.raises(MisureError, match="MSR has no parameter 'masksize'; close names: mask_size"):
        Experiment.of(composed("+explainer.masksize=8"))


@pytest.mark.parametrize("override", ["precision=foo", "runner.batch_size=0", "runner.batch_size=many"])
def test_wrong_resources_are_one_line(override):
    with pytest.raises(MisureError, match=override.replace("runner.", "")):
        compute_of(composed(override))


def test_an_impossible_layout_is_one_line():
    with pytest.raises(MisureError, match="would leave the 50 px canvas"):
        build(composed("dataset.layout.canvas=50").dataset.val)


def test_a_node_that_does_not_exist_is_one_line():
    with pytest.raises(MisureError, match=r"_target_=misure.nothing.here cannot be built") as caught:
        build({"_target_": "misure.nothing.here"})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("package", "extra"), [("h5py", "synapse"), ("in_no_extra", "all")])
def test_a_missing_package_is_named_with_the_extra_that_brings_it(monkeypatch, tmp_path, package, extra):
    (tmp_path / f"reads_by_{package}.py").write_text(f"import {package}")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MisureError, match=rf"cannot be built: it needs {package}: pip install 'misure\[{extra}\]'"):
        build({"_target_": f"reads_by_{package}.read"})


EXPECTED = {"table1": 7 * 4, "table6": 3 * 4, "stability": 15 * 4, "ambiguities": 18 * 4, "sanity": 20 * 4}
EXPECTED |= {"table2": 9, "table3": 9, "table4": 9, "table5": 9, "table7": 2, "table5_readings": 8}
EXPECTED |= {"ambiguities_black": 1, "ambiguities_rest": 3, "ambiguities_rise": 4 * 4}
OVERRIDES = ["profile=quick", "seed=3"]


def last_network(dataset: str, networks: Sequence[str]) -> list[str]:
    return [f"dataset={dataset}", *(f"model={network}" for network in networks[-1:])]


@pytest.fixture(scope="module")
def expanded() -> dict[str, list[Experiment]]:
    """Every sweep's experiments: composing takes a tenth of a second each."""
    with initialize_config_dir(CONFIG_FOLDER, version_base="1.3"):
        chosen = chosen_sweeps(compose("reproduce", OVERRIDES), OVERRIDES)
        sweeps = Sweeps(OVERRIDES, last_network)
        return {name: list(sweeps.expand(name, datasets)) for name, datasets in chosen.items()}


def test_every_sweep_expands_as_its_table_needs(expanded):
    assert {name: len(experiments) for name, experiments in expanded.items()} == EXPECTED


@pytest.mark.parametrize("sweep", ["ambiguities", "ambiguities_rise", "table5_readings"])
def test_readings_are_run_as_tables_compare_them(sweep, expanded):
    compared = [reading for reading in readings_of(sweep) if reading.swept]
    names = sorted({name for reading in compared for name, _ in reading.parameters})
    usual = EXPLAINERS[compared[0].explainer]().parameters
    settings = {tuple((usual | dict(reading.parameters))[name] for name in names) for reading in compared}
    assert {tuple(e.explainer.parameters[name] for name in names) for e in expanded[sweep]} == settings


@pytest.mark.parametrize("name", SWEEPS)
def test_overrides_hold_for_a_whole_sweep(name, expanded):
    for experiment in expanded[name]:
        assert experiment.cfg.seed == 3
        assert experiment.cfg.profile.name == "quick"
        assert experiment.explainer.seed == 3


def test_cells_that_tables_share_are_one_experiment(expanded):
    everything = [e for name in SWEEPS for e in expanded[name]]
    merged = merge(everything)
    # For each network, Table 1's MSR is also the cell (0.1, 0.01) of a table and mask size 224 of table 6. In this
    # profile Table 7 takes no more samples than Table 1, so it is that MSR too, twice. Of the readings of stage 2's
    # start, the literal one is two cells of Table 5.
    of_the_paper = 4 * 2 + 2 + 2
    # Stability compares with four methods of Table 1, the ambiguities with two; three of COCO's are in table5_readings.
    beyond = 4 * (4 + 2) + 3
    assert len(everything) - len(merged) == of_the_paper + beyond
    shared = [
        e
        for e in merged
        if e.explainer.name == "msr"
        and not e.input_noise
        and e.intervention == NOTHING
        and e.explainer == MSR(seed=3).at_scale(e.scale)
    ]
    assert sorted(e.n_samples for e in shared) == [8, 16, 40, 40]


def test_an_unknown_sweep_is_one_line():
    with pytest.raises(MisureError, match="sweep table99") as caught:
        list(Sweeps([], last_network).expand("table99", ["triangle"]))
    assert "\n" not in str(caught.value)
    assert not HydraConfig.initialized()


@pytest.mark.parametrize("name", SWEEPS)
def test_values_that_are_set_give_what_composing_gives(name, expanded):
    grid = sweep_grid(name)
    values = [f"{key}={of[-1]}" for key, of in grid.items()]
    made = expanded[name][-1].cfg
    setup = [f"dataset={made.dataset.name}", f"model={made.model.name}"]
    whole = composed(f"sweep={name}", *values, *setup, *OVERRIDES)
    assert OmegaConf.to_container(made, resolve=True) == OmegaConf.to_container(whole, resolve=True)


def test_only_the_paper_s_own_profile_takes_no_generated_data_unasked():
    allowed = {profile: composed(f"profile={profile}", config="reproduce").stand_in for profile in PROFILES}
    assert allowed == {"paper": False, "quick": True, "reference": True, "smoke": True}
    assert composed("profile=paper", "stand_in=true", config="reproduce").stand_in
