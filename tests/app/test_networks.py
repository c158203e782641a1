"""The networks that ``misure app`` offers."""

from __future__ import annotations

from pathlib import Path

import pytest

from misure.app.networks import offers_at_hand
from misure.errors import MisureError


@pytest.mark.parametrize(
    ("files", "names"),
    [
        (["a/net.pt2", "b/net.pt2"], ["a/net.pt2", "b/net.pt2"]),
        (["a/net.pt2", "./a/net.pt2", "b/other.pt2"], ["net.pt2", "other.pt2"]),
        (["epoch=1-step (2).pt2", "Schädel.pt2", "~x.pt2"], ["epoch=1-step (2).pt2", "Schädel.pt2", "~x.pt2"]),
        (["-net.pt2", "2024", "???"], ["-net.pt2", "2024", "???"]),
    ],
)
def test_every_network_that_is_named_is_offered(tmp_path, monkeypatch, files, names):
    monkeypatch.chdir(tmp_path)
    for file in files:
        Path(file).parent.mkdir(exist_ok=True)
        Path(file).touch()
    offered = [offer.name for offer in offers_at_hand(files, tmp_path / "data", tmp_path / "outputs")]
    assert offered[: len(names)] == names


@pytest.mark.parametrize("model", ["", "nowhere.pt2", "x" * 300])
def test_what_is_no_network_is_one_line(tmp_path, model):
    with pytest.raises(MisureError, match="neither a file nor a published network"):
        offers_at_hand([model], tmp_path, tmp_path)
