"""From volumes to tables: generated ones, and real CT where it is at hand."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from pipeline import records_of, run_script

SMALL = [
    "profile=smoke",
    "precision='32'",
    "model.network.pretrained=null",
    "profile.synapse.training.max_epochs=2",
    "profile.synapse.training.max_minutes=inf",
]
_DATA = os.environ.get("MISURE_DATA")
_CT = Path(_DATA or "nowhere", "abdominal_ct")
needs_ct = pytest.mark.skipif(not _CT.is_dir(), reason="no abdominal_ct folder under MISURE_DATA: real CT is absent")


def test_phantoms_go_all_the_way_and_are_marked(tmp_path):
    """The stand-in through preparation, training, drawing, explaining and every table, with one network."""
    sweeps = ["only=[table1,table7]", "dataset=synapse", "stand_in=true"]
    ended = run_script("reproduce.py", [*SMALL, *sweeps, "model=unet_resnet34", "data_root=none"], tmp_path, drawn=True)
    assert ended.code == 0, ended.err
    found = records_of(tmp_path)
    assert found["stand_in"].all()
    assert found["dataset_source"].str.startswith("stand-in: phantom CT").all()
    assert found["group"].str.fullmatch(r"case\d{4}").all()
    outputs = tmp_path / "outputs"
    for number in (1, 3, 6, 7):
        text = (outputs / "tables" / f"table{number}.md").read_text(encoding="utf-8")
        assert "stand-in: phantom CT" in text
    for name in ("figure2", "figure4", "figure8_unet_resnet34", "figure9_unet_resnet34"):
        assert (outputs / "figures" / f"{name}.png").stat().st_size > 0
    assert "stand-in" in (outputs / "tables" / "volumes.md").read_text(encoding="utf-8")


@needs_ct
def test_real_ct_is_prepared_learned_and_explained(tmp_path):
    """Both real series, in both splits: it exercises the code, the labels are a model's and measure nothing."""
    series = {
        "a": ("example_ct.nii.gz", "example_seg_fast_force_split.nii.gz"),
        "b": ("example_ct_dicom", "example_seg_dicom.nii.gz"),
    }
    for name, (image, label) in series.items():
        for copy in (name, f"{name}2"):
            for part, file in (("images", image), ("labels", label)):
                place = tmp_path / "own" / part / f"{copy}{'.nii.gz' if file.endswith('.gz') else ''}"
                place.parent.mkdir(parents=True, exist_ok=True)
                place.symlink_to((_CT / file).resolve())
    own = ["dataset=synapse", "data_root=data", "source=own", "labels=totalsegmentator"]
    prepared = run_script("prepare_data.py", own, tmp_path)
    assert prepared.code == 0, prepared.err
    assert "244 training and 20 validation" in prepared.out
    wanted = [*SMALL, "dataset=synapse", "data_root=data", "profile.synapse.training.max_epochs=4"]
    ended = run_script("run.py", [*wanted, "explainer=msr", "mask_size=64", "n_samples=2"], tmp_path)
    assert ended.code == 0, ended.err
    found = records_of(tmp_path)
    assert not found["stand_in"].any()
    assert set(found["dataset_source"]) == {"4 own CT volumes"}
    done = found[found["status"] == "done"]
    assert len(done) == 2
    assert np.isfinite(done[["dice_explained", "perturbation_ratio", "truth_dice", "confidence"]].to_numpy()).all()
    assert (done["n_dilations"] >= 0).all()
