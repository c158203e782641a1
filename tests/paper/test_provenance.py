"""Head notes: what tables say they were made from."""

from __future__ import annotations

import pandas as pd
import pytest
from paper_records import ORGANS, PHANTOM, frame, organ, photo, unit

from misure.paper.provenance import head_note
from misure.paper.published import PAIRS
from misure.paper.query import latest_run

TRIANGLE, UNET, *_ = PAIRS
COCO = next(pair for pair in PAIRS if pair.model == "deeplabv3_mobilenetv2")


@pytest.fixture
def run() -> pd.DataFrame:
    """Three MSR samples and a skipped one, and RISE in another precision."""
    return latest_run(
        frame(
            *(unit("msr", sample) for sample in range(3)),
            unit("msr", 3, status="skipped", reason="class 1 was not predicted"),
            unit("rise", 0, precision="bf16"),
        ),
        "quick",
    )


def test_head_note_says_what_the_numbers_come_from(run: pd.DataFrame) -> None:
    note = head_note(run, "quick")
    for part in (
        "Profile: `quick`",
        "3 samples explained, 1 skipped (class 1 was not predicted)",
        "shipped Fashion-MNIST subset",
        "`0123456789abcdef`",
        "device: toy device",
        "precision: 32, bf16",
        "150 samples",
    ):
        assert part in note
    assert "stand-in" not in note
    why = "measured: bf16 0.1 s, 32 0.3 s a pass"
    note = head_note(run.assign(precision_reason=why, initial_weights="random"), "quick")
    assert f"precision: 32, bf16 ({why})" in note
    assert "trained from random weights" in note


def test_head_note_counts_every_organ() -> None:
    run = latest_run(frame(organ("msr", 0, "Aorta"), organ("rise", 0, "Aorta"), organ("msr", 1, "Liver")), "quick")
    note = head_note(run, "quick", [UNET])
    absent = [label for label in ORGANS if label not in {"Aorta", "Liver"}]
    assert f"2 samples explained (1 Aorta, 1 Liver; not in the records: {', '.join(absent)}), 0 skipped" in note
    assert f"data: **{PHANTOM}**" in note
    assert note.count("stand-in") == 1
    assert "400 samples (50 of each organ)" in note


def test_the_head_note_counts_pairs_beside_the_papers() -> None:
    run = latest_run(frame(photo("msr", 0, "bus"), photo("msr", 0, "car"), photo("msr", 3, "bus")), "quick")
    note = head_note(run, "quick", [COCO])
    assert "3 samples explained (2 Bus, 1 Car; not in the records: Cat, " in note
    assert "(the paper has 181), 0 skipped" in note
    assert "for COCO-2017: 181 samples (pairs of an image and a class);" in note
    known = latest_run(frame(photo("msr", 0, "bus", drawn=137)).assign(drawn=137), "quick")
    assert "(of 137 pairs of an image and a class that these images give, the paper has 181)" in head_note(
        known, "quick", [COCO]
    )
