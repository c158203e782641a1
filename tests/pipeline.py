"""Small pieces the tests of the pipeline share, and a server that runs entry points in forked processes.

Importing torch takes seconds; ``python tests/pipeline.py`` imports it once and forks for every command.
"""

from __future__ import annotations

import atexit
import functools
import json
import os
import runpy
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hardware
import pandas as pd

PROJECT = Path(__file__).resolve().parents[1]

TINY_LAYOUT = {"canvas": 64, "item": 8, "side": 28, "anchor_low": 8, "anchor_high": 20, "distractors": 2}
"""A Triangle small enough to train on in a second."""

TINY = [
    "profile=smoke",
    *(f"dataset.layout.{key}={value}" for key, value in TINY_LAYOUT.items()),
    "model.network.encoder=mobilenet_v2",
    "model.network.pretrained=null",
    "model.bottleneck=encoder",
    "profile.triangle.training.max_epochs=1",
    "profile.triangle.training.samples_per_epoch=8",
    "profile.triangle.training.validation_samples=4",
]
"""Overrides that make a whole run, training included, a matter of seconds."""


def shipped_root(folder: Path) -> Path:
    """Make a data root that holds the shipped subset: the same items on any machine."""
    from misure.datasets.fashion_mnist import SHIPPED_FOLDER

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "fashion-mnist").symlink_to(SHIPPED_FOLDER, target_is_directory=True)
    return folder


@dataclass(frozen=True)
class Finished:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def message(self) -> str:
        """What a user is told on stderr, without progress bars and warnings."""
        lines = [line for raw in self.err.splitlines() for line in raw.split("\r") if line.strip()]
        return "\n".join(line for line in lines if "Warning: " not in line and "% |" not in line and "%|" not in line)


class _Server:
    """The process that imports torch once and forks for every command."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment()
        )
        atexit.register(self.close)

    def ask(self, request: dict[str, Any]) -> int:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    def close(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()


_server = functools.cache(_Server)


def run_script(
    script: str | Path, arguments: Sequence[str], folder: Path, *, drawn: bool = False, **extra_environment: str
) -> Finished:
    """Run a Python file in a folder as a process of its own.

    Args:
        script: Its path, or a name such as ``"run.py"`` for one of the project's entry points.
        arguments: Its command line.
        folder: Where it runs.
        drawn: Whether figures are laid out and written, which is most of what tables and figures of a tiny run take.
        **extra_environment: Further variables.
    """
    with tempfile.TemporaryDirectory() as captured:
        request = {
            "script": str(PROJECT / "scripts" / script),
            "arguments": list(arguments),
            "cwd": str(folder),
            "captured": captured,
            "environment": extra_environment,
            "bfloat16": hardware.kind,
            "drawn": drawn,
        }
        code = _server().ask(request)
        return Finished(code, *(Path(captured, name).read_text(encoding="utf-8") for name in ("out", "err")))


def leave_figures_undrawn() -> None:
    """Make figures in this process, and write none."""
    from misure.paper import write

    write._write_figure = lambda *_: []


def records_of(folder: Path) -> pd.DataFrame:
    """Read all records of the runs in a folder."""
    found = (folder / "outputs" / "records").rglob("*.json*[lz]")
    return pd.concat([pd.read_json(path, lines=True, dtype=False) for path in found], ignore_index=True)


def environment() -> dict[str, str]:
    """Return this process's environment with one thread and as little from outside as possible."""
    hidden = ("HYDRA_FULL_ERROR", "MISURE_DATA", "WANDB_MODE")
    kept = {key: value for key, value in os.environ.items() if key not in hidden}
    return {**kept, "OMP_NUM_THREADS": "1", "COLUMNS": "120"}


def _serve() -> None:
    """Answer every request line with the exit code of a forked process."""
    import matplotlib.backends.backend_pdf  # noqa: F401
    from hydra.core.plugins import Plugins

    import misure.cli.remake
    import misure.cli.reproduce
    import misure.models.unet
    import misure.training.module  # noqa: F401

    Plugins.instance()

    for line in sys.stdin:
        request = json.loads(line)
        process = os.fork()
        if process == 0:
            _become(request)
        print(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), flush=True)


def _become(request: dict[str, Any]) -> None:
    """Be the script, as if Python had been started with it."""
    code = 1
    try:
        for name, stream in (("out", 1), ("err", 2)):
            file = os.open(Path(request["captured"], name), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(file, stream)
        os.chdir(request["cwd"])
        os.environ.update(request["environment"])
        hardware.pretend(request["bfloat16"])
        if not request["drawn"]:
            leave_figures_undrawn()
        sys.argv = [request["script"], *request["arguments"]]
        runpy.run_path(request["script"], run_name="__main__")
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException:  # noqa: BLE001 - what Python itself would do with it
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    _serve()
