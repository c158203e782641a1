"""The console script ``misure``."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from pipeline import PROJECT, environment

import misure
from misure.cli.console import main


@pytest.mark.parametrize(("argv", "words"), [([], "usage: misure"), (["explian"], "close names: explain")])
def test_the_console_script_helps(argv, words):
    with pytest.raises(SystemExit, match=words):
        main(argv)


def test_the_console_script_lists_its_commands(capsys):
    main(["--help"])
    listed = {line.split()[0] for line in capsys.readouterr().out.splitlines() if line.startswith("  ")}
    scripts = {path.stem.removesuffix("_data") for path in (PROJECT / "scripts").glob("*.py")}
    assert listed == scripts | {"layers", "app", "plan"}
    main(["--version"])
    assert capsys.readouterr().out == f"misure {misure.__version__}\n"


def test_help_names_the_keys_and_the_choices_of_a_command(capsys):
    for command, own in (("run", "n_samples"), ("bench", "images_per_round"), ("explain", "multi_label")):
        main([command, "--help"])
        out = capsys.readouterr().out
        assert all(f"  {key}:" in out for key in ("explainer", "outputs", own)), command
        assert ".py" not in out.partition("Keys,")[0]


HEAVY = ("pytorch_lightning", "segmentation_models_pytorch", "torchvision", "matplotlib", "pandas", "scipy", "sklearn")


@pytest.mark.parametrize(
    ("code", "never"),
    [
        ("from misure.cli.console import main; main(['--help']); main(['run', '--help'])", ("torch", *HEAVY)),
        ("import misure.sweep.turns", ("ray", "submitit", *HEAVY)),
    ],
    ids=["help", "a worker"],
)
def test_what_is_not_needed_is_not_imported(code, never):
    told = f"import sys; {code}; print('loaded:', [name for name in {never!r} if name in sys.modules])"
    ended = subprocess.run([sys.executable, "-c", told], env=environment(), capture_output=True, text=True, check=True)
    assert ended.stdout.splitlines()[-1] == "loaded: []"


def test_a_command_leaves_the_process_as_it_was(monkeypatch):
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    monkeypatch.setattr(sys, "argv", ["theirs"])
    with pytest.raises(SystemExit, match="no image is given"):
        main(["explain"])
    assert sys.argv == ["theirs"]
    assert "HYDRA_FULL_ERROR" not in os.environ
