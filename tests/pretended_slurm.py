"""The programs of a SLURM cluster that is this machine, as far as jobs are sent, asked for and cancelled."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

PROGRAMS = ("sbatch", "srun", "sacct", "scancel", "scontrol", "job")


def install(folder: Path) -> Path:
    """Write the programs into a folder, where they keep their jobs too, and return it for the search path."""
    folder.mkdir()
    for name in PROGRAMS:
        (folder / name).write_text(f'#!/bin/sh\nexec {sys.executable} -IS {__file__} {folder} {name} "$@"\n')
        (folder / name).chmod(0o755)
    return folder


def main(folder: Path, program: str, arguments: list[str]) -> None:
    if program == "sbatch":
        _sbatch(folder, Path(arguments[-1]))
    elif program == "srun":
        command = arguments[arguments.index("--output") + 2 :]
        os.execvp(command[0], command)
    elif program == "job":
        _job(folder / f"{arguments[0]}.job", arguments[1])
    elif program == "sacct":
        known = {path.stem: path.read_text().split() for path in folder.glob("*.job")}
        asked = set(arguments[arguments.index("-j") + 1].split(","))
        lines = [f"{job}|{state}" for job, (_, state, *_) in known.items() if job.split("_")[0] in asked]
        print("JobID|State", *lines, sep="\n")
    elif program == "scontrol":
        print("MaxArraySize            = 1001")
    for job in arguments if program == "scancel" else ():
        path = folder / f"{job}.job"
        process = path.read_text().split()[0]
        path.write_text(f"{process} CANCELLED by 0")
        with suppress(ProcessLookupError):
            os.killpg(int(process), signal.SIGTERM)


def _sbatch(folder: Path, script: Path) -> None:
    options = dict(re.findall(r"^#SBATCH --([\w-]+)=(.*)$", script.read_text(), re.MULTILINE))
    if options.get("partition") == "nowhere":
        sys.exit("sbatch: error: invalid partition specified: nowhere")
    number = len([*folder.glob("*.sent")]) + 1
    (folder / f"{number}.sent").write_text(script.read_text())
    array = range(int(options["array"].split("%")[0].split("-")[1]) + 1) if "array" in options else [None]
    for index in array:
        job = str(number) if index is None else f"{number}_{index}"
        places = {"SLURM_JOB_ID": str(number), "SLURM_CPUS_PER_TASK": options["cpus-per-task"]}
        if index is not None:
            places |= {"SLURM_ARRAY_JOB_ID": str(number), "SLURM_ARRAY_TASK_ID": str(index)}
        out = options["output"].replace("%j", job).replace("%A_%a", job)
        with Path(out).open("w") as output:
            started = subprocess.Popen(
                [folder / "job", job, script.resolve()],
                env={**os.environ, **places},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        (folder / f"{job}.job").write_text(f"{started.pid} RUNNING")
    print(f"Submitted batch job {number}")


def _job(path: Path, script: str) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    code = subprocess.run(["bash", script], check=False, preexec_fn=_mortal).returncode
    process, state, *_ = path.read_text().split()
    if state == "RUNNING":
        path.write_text(f"{process} {'FAILED' if code else 'COMPLETED'}")


def _mortal() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3:])
