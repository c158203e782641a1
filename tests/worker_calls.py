"""What tests have workers of other processes do, so in a module that these can import."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from sweep_runs import Images, toy_setup
from tqdm import tqdm

from misure.explainers.baselines import PredictionMap
from misure.sweep.journal import CannotWriteError
from misure.sweep.recorder import Recorder
from misure.sweep.records import RecordStore
from misure.sweep.turns import Tally, Turn, explain_turns

GUILTY = 2


def share_of_the_machine() -> tuple[int, int, str | None]:
    return os.getpid(), torch.get_num_threads(), os.environ.get("CUDA_VISIBLE_DEVICES")


def count_with_a_bar() -> int:
    return sum(tqdm(range(3)))


def end() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def refuse() -> None:
    raise CannotWriteError("cannot write here")


@dataclass(frozen=True, kw_only=True)
class Deadly(PredictionMap):
    """Ends its process at one sample, and counts how often; or raises there, where it has no file for that."""

    tried: str = ""

    def saliency_maps(self, network, images, targets):
        if (images == Images()[GUILTY]["image"]).flatten(1).all(1).any():
            if not self.tried:
                raise ZeroDivisionError
            with Path(self.tried).open("a") as file:
                file.write(f"{len(images)}\n")
            end()
        return super().saliency_maps(network, images, targets)


def explain(folder: Path, turns: Sequence[Turn], deadline: float) -> Tally:
    """Explain turns of the toy setup, in any process."""
    torch.set_num_threads(1)
    recorder = Recorder(RecordStore(folder / "records"), toy_setup())
    return explain_turns(None, turns, deadline, lambda _: recorder)
