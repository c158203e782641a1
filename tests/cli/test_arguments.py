"""Arguments as people write them: what reaches the configuration."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from misure.cli.arguments import hydra_arguments
from misure.cli.quoting import quoted
from misure.errors import MisureError
from misure.io.installed import CONFIG_FOLDER

ODD_NAMES = [
    *(
        "photo (1).jpg",
        "my photo.jpg",
        "Schädel.png",
        unicodedata.normalize("NFD", "Schädel.png"),
        "肝臓.png",
        "🐕.png",
    ),
    *("epoch=1-step=2.png", "a,b.png", "scan [2].png", "[1].png", "{a: 1}.png", "{}", "$HOME.png", "a$b", "100%.png"),
    *("Ann's scan.png", "'quoted.png", '"both".png', 'it\'s "it".png', "#1.png", "a;b.png", "a&b.png", "~x.png", "~"),
    *("back\\slash.png", "end\\", "\\'x\\\\", "\\${outputs}", "${outputs}.png", "${now:}.png", "${", "tab\t.png"),
    *("line\nbreak.png", "2024", "007", "1e5", "0x1f", "null", "true", "???", "-dash.png", "--help.png", "+plus.png"),
    *("a:b.png", "*.png", "?", "choice(a)", "x" * 200 + ".png", os.fsdecode(b"latin\xe4.png"), "!important.png", "@a"),
]
MEANS_MORE = ("null", "[1].png", "${outputs}.png", "\\${outputs}", "${now:}.png")
"""What Hydra reads in another way, unless a file has the name."""
PATHS = ["image", "model_file", "region", "class_names", "checkpoint", "output", "outputs", "data_root"]


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def values(*argv: str, name: str = "explain") -> DictConfig:
    """What Hydra and OmegaConf read of a command's arguments."""
    given = [argument for argument in hydra_arguments(name, name, argv) if not argument.startswith("-")]
    cfg = OmegaConf.create({"outputs": "outputs"})
    for override in OverridesParser.create().parse_overrides(given):
        OmegaConf.update(cfg, override.key_or_group, override.value())
    return cfg


def same(name: str, value: str) -> bool:
    return os.path.normpath(value) == os.path.normpath(name)


@pytest.mark.parametrize("there", [True, False], ids=["there", "new"])
@pytest.mark.parametrize("name", ODD_NAMES)
def test_paths_are_taken_as_they_stand(name, there):
    if there or name in MEANS_MORE:
        Path(name).mkdir()
    cfg = values(*(f"{key}={name}" for key in PATHS if there or key not in {"class_names", "region"}))
    assert same(name, cfg.image)
    assert same(name, cfg.outputs)
    assert same(name, cfg.model_file)


@pytest.mark.parametrize("name", ODD_NAMES)
def test_plain_arguments_are_files(name):
    Path(name).mkdir()
    assert same(name, values("--", name).image)
    assert [os.path.normpath(file) for file in values("--output", "x", "--", name, "b").image] == [name, "b"]
    if not name.startswith(("--help", "+")):
        assert same(name, values(name).image)
    assert same(name, values(f"--model={name}").model_file)


@pytest.mark.parametrize("name", ["run", "train", "reproduce", "prepare_data"])
def test_the_scripts_take_paths_as_they_stand_too(name):
    given = hydra_arguments(name, name, ["data_root=/my data (1)", "outputs=Ergebnisse für mich, 2024"])
    with initialize_config_dir(CONFIG_FOLDER, version_base="1.3"):
        cfg = compose(name, given)
    assert (cfg.data_root, cfg.outputs) == ("/my data (1)", "Ergebnisse für mich, 2024")


def test_a_home_folder_is_meant_where_no_shell_has_read_it(monkeypatch):
    monkeypatch.setenv("HOME", "/home/of me")
    assert hydra_arguments("run", "run", ["outputs=~/new"]) == ["outputs='/home/of me/new'"]


@pytest.mark.parametrize(
    ("given", "key", "value"),
    [
        ("image='my photo.jpg'", "image", "my photo.jpg"),
        ('image="a, b.jpg"', "image", "a, b.jpg"),
        ("image=[a.png, b (1).png]", "image", ["a.png", "b (1).png"]),
        ("image=['a, b.png',c.png]", "image", ["a, b.png", "c.png"]),
        ("class_names=[Schädel,007,a b]", "class_names", ["Schädel", "007", "a b"]),
        ("region=null", "region", None),
        ("output=${outputs}/mine", "output", "outputs/mine"),
        ("output=${nothing}/mine", "output", "${nothing}/mine"),
        ("target=Leber (rechts)", "target", "Leber (rechts)"),
        ("target=2", "target", 2),
        ("target='2'", "target", "2"),
        ("target=1e5", "target", "1e5"),
        ("bottleneck=layers[0].conv", "bottleneck", "layers[0].conv"),
    ],
)
def test_what_is_written_for_hydra_stays(given, key, value):
    found = values(given)[key]
    assert (OmegaConf.to_container(found) if OmegaConf.is_config(found) else found) == value


def test_options_are_keys_with_dashes_and_parameters_of_the_method():
    Path("net.pt2").touch()
    cfg = values(
        *("a.png", "--model", "net.pt2", "b.png", "--target", "dog", "--method=rise", "--n-masks", "5", "size=64"),
        *(
            "--multi-label",
            "--mean",
            "0.5,0.4,0.3",
            "--window=-10,20",
            "--at=[1,2]",
            "--lambda",
            "0.1",
            "--in-channels",
            "3",
        ),
        *("--runner.batch-size", "4", "--class-names", "names of classes.txt", "--slice", "7"),
    )
    assert list(cfg.image) == ["a.png", "b.png"]
    assert (cfg.model_file, cfg.target, cfg.explainer.n_masks, cfg.size) == ("net.pt2", "dog", 5, 64)
    assert (cfg.multi_label, list(cfg.mean), list(cfg.window), list(cfg.at)) == (
        True,
        [0.5, 0.4, 0.3],
        [-10, 20],
        [1, 2],
    )
    assert (cfg["lambda"], cfg.in_channels, cfg.runner.batch_size, cfg.slice) == (0.1, 3, 4, 7)
    assert cfg.class_names == "names of classes.txt"
    assert values("--multi-label", "false", "a.png").multi_label is False
    assert values("a.png", "--model", "unet_vgg16").model == "unet_vgg16"
    assert values("a.png", "model=net.pt2").model_file == "net.pt2"


def test_hydra_s_own_options_stay():
    given = [
        "--cfg",
        "job",
        "--config-dir=own files",
        "-m",
        "a.png",
        "--info",
        "config",
        "image.png",
        "--target",
        "1,2",
    ]
    assert hydra_arguments("explain", "explain", given) == [
        *(
            "--cfg",
            "job",
            "--config-dir=own files",
            "-m",
            "--info",
            "config",
            "target=1,2",
            "image=['a.png','image.png']",
        )
    ]
    assert hydra_arguments("explain", "explain", ["-m", "image=a.png,b (1).png"]) == ["-m", "image='a.png','b (1).png'"]
    assert hydra_arguments("run", "run", ["-m", "lr=0.1,1", "+new=1", "~logger"]) == [
        "-m",
        "lr=0.1,1",
        "+new=1",
        "~logger",
    ]


def test_a_file_is_meant_where_no_key_has_the_name():
    for name in ("epoch=1-step=2.png", "target=1.png"):
        Path(name).touch()
    assert values("epoch=1-step=2.png").image == "epoch=1-step=2.png"
    assert values("epoch=7.png").image == "epoch=7.png"  # absent, and said to be
    assert values("folder=1/a.png").image == "folder=1/a.png"
    assert values("./target=1.png").image == "./target=1.png"
    assert values("target=1.png").target == "1.png"


def test_layers_takes_a_network():
    Path("net (1).pt2").touch()
    assert hydra_arguments("layers", "explain", ["net (1).pt2"]) == ["model_file='net (1).pt2'"]
    assert hydra_arguments("layers", "explain", ["unet_vgg16"]) == ["model=unet_vgg16"]


@pytest.mark.parametrize(
    ("name", "given", "words"),
    [
        ("explain", ["--taget", "dog"], ["--taget", "close names: target"]),
        ("explain", ["--method", "rise", "--n-mask=5"], ["--n-mask", "close names: n-masks"]),
        ("explain", ["--target"], ["--target needs a value"]),
        ("explain", ["--target", "--method", "rise"], ["--target needs a value"]),
        ("explain", ["-x"], ["no option -x"]),
        ("explain", ["a.png", "image=b.png"], ["a.png is a plain argument beside image="]),
        ("explain", [""], ["empty"]),
        ("explain", ["--model", "unet_vgg61"], ["unet_vgg61", "close names: unet_vgg16"]),
        ("layers", ["unet_vgg16", "transunet"], ["one network"]),
        *(("run", [f"{key}={empty}"], [f"{key}="]) for key in ("outputs", "data_root") for empty in ("", " ", "''")),
        *(("explain", [f"--{key}", ""], [f"{key}="]) for key in ("output", "outputs", "image", "region")),
        ("tables", ["outputs="], ["outputs="]),
    ],
)
def test_what_cannot_be_meant_is_one_line(name, given, words):
    with pytest.raises(MisureError) as error:
        hydra_arguments(name, "run" if name == "tables" else name.replace("layers", "explain"), given)
    assert "\n" not in str(error.value)
    assert all(word in str(error.value) for word in words), str(error.value)


def test_an_empty_data_folder_of_the_environment_is_told(monkeypatch):
    monkeypatch.setenv("MISURE_DATA", "")
    with pytest.raises(MisureError, match="MISURE_DATA is empty"):
        hydra_arguments("run", "run", [])


def test_quoting_survives_hydra_and_its_interpolation():
    for text in ["\\", "\\\\'", "'", "${a}", "\\${a}", "\\\\${a}'\\", "a\\\n", "$", "{}"]:
        override = OverridesParser.create().parse_override(f"image={quoted(text)}")
        assert OmegaConf.create({"image": override.value()}).image == text
