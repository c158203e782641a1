"""Peak memory of a block."""

from __future__ import annotations

import pytest
import torch

from misure.bench.memory import peak_memory


def test_peak_memory_is_what_was_touched_above_the_start() -> None:
    kept = torch.ones(16 << 18)  # 16 MB that are there before
    with peak_memory(torch.device("cpu")) as peak:
        passing = torch.ones(64 << 18)  # 64 MB that are gone at the end
        del passing
    if peak.bytes is None:
        pytest.skip("this system has no high-water mark that can be reset")
    # pages of other allocations come and go: 4 MB
    assert abs(peak.bytes - (64 << 20)) < 4 << 20
    assert kept.sum() == kept.numel()
    with peak_memory(torch.device("cpu")) as nothing:
        pass
    assert nothing.bytes is not None
    assert nothing.bytes < 4 << 20


def test_peak_memory_is_unknown_where_the_system_cannot_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("misure.bench.memory.sys.platform", "darwin")
    with peak_memory(torch.device("cpu")) as peak:
        pass
    assert peak.bytes is None
