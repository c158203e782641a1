"""Packing: runs of several machines in one folder, which is read and never written, and the way back."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from paper_curves import curves, save
from paper_records import organ, photo, save_map, unit
from pipeline import run_script

from misure.errors import MisureError
from misure.paper import packing, reference
from misure.paper.maps import load_maps, saved_arrays
from misure.paper.packing import pack, unpack
from misure.paper.reference import PROFILE, RECORDS, reference_material
from misure.sweep.journal import Journal
from misure.sweep.records import RecordStore, Unit

SAMPLES = 3


def keep(outputs: Path, *units: list[dict[str, Any]]) -> list[str]:
    """Keep records as a run does, in files of their own, and return the units."""
    names = []
    for rows in units:
        dataset, model, explainer, sample = (rows[0][name] for name in ("dataset", "model", "explainer", "sample"))
        name = hashlib.sha256(f"{dataset}{explainer}{sample}".encode()).hexdigest()
        path = outputs / "records" / f"{dataset}-{model}" / explainer / f"{name[:20]}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        kept = [{k: v for k, v in row.items() if v == v} | {"unit": name[:20]} for row in rows]  # noqa: PLR0124 - NaN
        path.write_text("".join(json.dumps(row) + "\n" for row in kept))
        names.append(name[:20])
    return names


def made(explainer: str, sample: int, **columns: Any) -> list[dict[str, Any]]:
    return unit(explainer, sample, profile=PROFILE, draw=sample, **columns)


@pytest.fixture
def packed(tmp_path, monkeypatch) -> Path:
    """Two machines' runs in one folder that cannot be written."""
    first, second, into = tmp_path / "first", tmp_path / "second", tmp_path / "data" / "reference"
    names = keep(first, *(made("msr", n, dice_explained=0.5) for n in range(SAMPLES)))
    keep(first, made("msr", 7, status="failed", reason="no memory"))
    keep(second, *(made("msr", n, dice_explained=0.75, device="another") for n in (2, 3, 7)))
    keep(second, unit("msr", 9))  # of another profile
    photos = keep(second, photo("msr", 5, "dog", profile=PROFILE))
    keep(second, organ("msr", 5, "Liver", profile=PROFILE))
    for name in names:
        save_map(first / "records" / "maps", name, np.eye(4))
    save(second / "records" / "maps", photos[0], curves([0.0, 0.5, 1.0]))
    about = pack({first: "make reproduce PROFILE=reference", second: "the same on a GPU"}, into)
    assert [entry["command"] for entry in about["made_by"]] == ["make reproduce PROFILE=reference", "the same on a GPU"]
    assert about["n"] == {"coco-deeplabv3_mobilenetv2": {"msr": 1}, "synapse-unet_resnet34": {"msr": 1}} | {
        "triangle-unet_vgg16": {"msr": 5}
    }
    assert about == json.loads((into / "about.json").read_text())
    monkeypatch.setattr(reference, "FOLDER", into)
    for path in (into, *into.rglob("*")):
        path.chmod(path.stat().st_mode & ~0o222)
    return into


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_the_folder_is_a_store_of_records_and_each_unit_counts_once(packed):
    stored = RecordStore(packed).load()
    assert not stored["unit"].duplicated().any()
    msr = stored[stored["dataset"].eq("triangle")].set_index("sample").sort_index()
    assert msr["dice_explained"].to_dict() == {0: 0.5, 1: 0.5, 2: 0.5, 3: 0.75, 7: 0.75}
    material = reference_material()
    assert material is not None
    assert len(material.run) == len(stored)


def test_a_process_without_data_remakes_every_output_from_what_ships(packed, tmp_path):
    """Neither data root nor network nor training is there, and the folder that ships stays as it is."""
    before, script = contents(packed), tmp_path / "tables_of_it.py"
    lines = (
        "from pathlib import Path",
        "from misure.cli.commands import tables",
        "from misure.paper import reference",
        f"reference.FOLDER = Path({str(packed)!r})",
        "tables()",
    )
    script.write_text("\n".join(lines))
    ended = run_script(script, ["profile=reference", "outputs=out"], tmp_path)
    assert ended.code == 0, ended.err
    assert contents(packed) == before
    table = pd.read_csv(tmp_path / "out" / "tables" / "table1.csv").set_index(["dataset", "model", "method"])
    assert table.loc[("Triangle", "U-Net", "MSR"), "dice_explained_mean"] == 0.6
    assert table.loc[("Triangle", "U-Net", "MSR"), "n_samples"] == 5
    assert "reference_n_samples" not in table
    for name in ("claims.json", "claims.md", "report.html", "provenance.json", "tables/table7.md"):
        assert (tmp_path / "out" / name).exists()


def test_nothing_made_from_a_photograph_is_packed_but_numbers(packed):
    (numbers,) = (packed / "maps").glob("*.numbers.npz")
    unit_ = numbers.name.partition(".")[0]
    with np.load(numbers) as arrays:
        assert {*arrays.files} == curves([0.0]).keys()
    assert load_maps(packed / "maps", unit_) is None
    assert saved_arrays(packed / "maps", unit_, ("deletion_",)).keys() == {"deletion_fraction", "deletion_dice"}
    assert len(list((packed / "maps").glob("*.npz"))) == SAMPLES + 1


def test_what_is_unpacked_is_there_for_a_run_and_packs_to_the_same(packed, tmp_path):
    before, outputs = contents(packed), tmp_path / "outputs"
    keep(outputs, made("msr", 0, dice_explained=0.25))
    assert unpack(outputs) == 6  # seven less one's own
    store = RecordStore(outputs / "records")
    stored = store.load().set_index(["dataset", "sample"])
    assert len(stored) == 7
    assert stored.loc[("triangle", 0), "dice_explained"] == 0.25
    assert Journal(outputs).used(PROFILE)["triangle", "unet_vgg16"] == ("0123456789abcdef", "f" * 16)
    assert unpack(outputs) == 0
    assert contents(packed) == before
    pack({outputs: "again"}, tmp_path / "again")
    assert len(RecordStore(tmp_path / "again").load()) == 7


def test_a_record_without_its_maps_is_not_made_anew(tmp_path, monkeypatch):
    """COCO's maps do not ship: a run that would save them goes on all the same."""
    one = Unit("coco", "f" * 16, "unet", "1234567890123456", "msr", {"lr": 0.1}, 0, 1)
    row = made("msr", 0)[0] | one.columns() | {"threshold": None, "dataset": "coco", "param_thresholds": "[]"}
    store = RecordStore(tmp_path / "first" / "records")
    store.write(one, [{k: v for k, v in row.items() if v == v}])  # noqa: PLR0124 - NaN
    assert not store.outcome(one, maps_in=PROFILE).complete
    pack({tmp_path / "first": ""}, tmp_path / "packed")
    monkeypatch.setattr(reference, "FOLDER", tmp_path / "packed")
    unpack(tmp_path / "second")
    assert RecordStore(tmp_path / "second" / "records").outcome(one, maps_in=PROFILE).complete


def test_maps_go_sample_by_sample_until_they_are_full(tmp_path, monkeypatch):
    outputs, generator = tmp_path / "outputs", np.random.default_rng(0)
    for explainer in ("msr", "rise"):
        for name in keep(outputs, *(made(explainer, n) for n in range(SAMPLES))):
            save_map(outputs / "records" / "maps", name, generator.random((40, 40)))
    keep(outputs, made("prediction", 0, input_noise=1e-6))
    monkeypatch.setattr(packing, "MOST_MAPS", 30_000)
    about = pack({outputs: ""}, tmp_path / "packed")
    stored = RecordStore(tmp_path / "packed").load().drop_duplicates("unit")
    shipped = stored[stored["without_maps"].isna()]
    assert about["maps"] == len(shipped) == len(list((tmp_path / "packed" / "maps").iterdir()))
    assert 0 < len(shipped) < 2 * SAMPLES
    assert shipped["sample"].max() <= stored.loc[stored["without_maps"].notna(), "sample"].max()
    assert sum(path.stat().st_size for path in (tmp_path / "packed" / "maps").iterdir()) <= 30_000


@pytest.mark.parametrize("garbled", [b"", b"no gzip", None], ids=["empty", "other", "cut"])
def test_a_damaged_file_is_one_line(packed, tmp_path, garbled, monkeypatch):
    damaged = shutil.copytree(packed, tmp_path / "damaged", copy_function=shutil.copyfile)
    damaged.chmod(0o755)
    whole = (packed / RECORDS).read_bytes()
    (damaged / RECORDS).write_bytes(whole[:-40] if garbled is None else garbled)
    monkeypatch.setattr(reference, "FOLDER", damaged)
    with pytest.raises(MisureError, match=RECORDS) as raised:
        unpack(tmp_path / "outputs")
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "outputs").exists()


def test_where_nothing_ships_there_is_nothing_to_show(tmp_path, monkeypatch):
    monkeypatch.setattr(reference, "FOLDER", tmp_path / "nowhere")
    assert reference_material() is None
    assert unpack(tmp_path / "outputs") == 0
    with pytest.raises(MisureError, match=PROFILE):
        pack({tmp_path / "outputs": ""}, tmp_path / "into")


def test_too_many_records_do_not_ship(tmp_path, monkeypatch):
    keep(tmp_path / "outputs", made("msr", 0))
    monkeypatch.setattr(packing, "MOST_RECORDS", 100)
    with pytest.raises(MisureError, match="100"):
        pack({tmp_path / "outputs": ""}, tmp_path / "into")
    assert not (tmp_path / "into").exists()
