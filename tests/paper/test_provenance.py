"""Head notes: what tables say they were made from."""

from __future__ import annotations

import pandas as pd
import pytest
from paper_records import ORGANS, PHANTOM, UNET, organ, run_of, unit

from misure.paper.provenance import head_note


@pytest.fixture
def run() -> pd.DataFrame:
    """Three MSR samples and a skipped one, and RISE in another precision."""
    return run_of(
        *(unit("msr", sample) for sample in range(3)),
        unit("msr", 3, status="skipped", reason="class 1 was not predicted"),
        unit("rise", 0, precision="bf16"),
    )


def test_head_note_says_what_the_numbers_come_from(run: pd.DataFrame) -> None:
    note = head_note(run, "quick")
    stated = ("`quick`", "3 samples explained, 1 skipped", "shipped Fashion-MNIST subset", "`0123456789abcdef`")
    for part in (*stated, "toy device", "32, bf16", "150 samples"):
        assert part in note
    assert "stand-in" not in note
    why = "measured: bf16 0.1 s, 32 0.3 s a pass"
    note = head_note(run.assign(precision_reason=why, initial_weights="random"), "quick")
    assert f"precision: 32, bf16 ({why})" in note
    assert "trained from random weights" in note


def test_head_note_counts_every_organ() -> None:
    run = run_of(organ("msr", 0, "Aorta"), organ("rise", 0, "Aorta"), organ("msr", 1, "Liver"))
    note = head_note(run, "quick", [UNET])
    absent = [label for label in ORGANS if label not in {"Aorta", "Liver"}]
    assert f"2 samples explained (1 Aorta, 1 Liver; not in the records: {', '.join(absent)}), 0 skipped" in note
    assert f"data: **{PHANTOM}**" in note
    assert note.count("stand-in") == 1
    assert "400 samples (50 of each organ)" in note


@pytest.mark.parametrize(("used", "said"), [(100, False), (7, True)])
def test_head_note_says_the_iterations_of_msr_alone(used: int, said: bool) -> None:
    msr = unit("msr", 0, {"n_iterations": used})
    note = head_note(run_of(unit("msr_fast", 1, {"n_iterations": 33}), msr), "quick")
    assert "MSR with 33 iterations" not in note
    assert (f"MSR with {used} iterations" in note) == said
