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
from paper_records import frame, organ, photo, save_map, unit
from pipeline import run_script

from misure.errors import MisureError
from misure.paper import packing, reference
from misure.paper.extensions.stability import STABLE
from misure.paper.maps import load_maps, saved_arrays
from misure.paper.maps_archive import ARCHIVE, extract_archive
from misure.paper.packing import pack, unpack
from misure.paper.reference import PROFILE, RECORDS, reference_material
from misure.paper.write import write_table1
from misure.sweep.journal import Journal
from misure.sweep.records import RecordStore, Unit

SAMPLES = 3


def keep(outputs: Path, *units: list[dict[str, Any]]) -> list[str]:
    """Keep records as a run does, in files of their own, and return the units."""
    names = []
    for rows in units:
        dataset, model, explainer, *which = (
            rows[0][name] for name in ("dataset", "model", "explainer", "sample", "precision")
        )
        name = hashlib.sha256(f"{dataset}{explainer}{which}".encode()).hexdigest()
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
    told = [{"command": "make reproduce PROFILE=reference", "note": "shared"}, {"command": "the same on a GPU"}]
    system = "Debian GNU/Linux 12 (bookworm) (Linux {} x86_64)"
    (first / "provenance.json").write_text(
        json.dumps({"operating_system": system.format("6.18.44-of-somebody"), "a": 1})
    )
    about = pack(dict(zip((first, second), told, strict=True)), into)
    assert about["made_by"] == [
        told[0] | {"operating_system": system.format("6.18.44"), "hours": {}},
        told[1] | {"hours": {}},
    ]
    assert about["n"] == {"coco-deeplabv3_mobilenetv2": {"msr": 1}, "synapse-unet_resnet34": {"msr": 1}} | {
        "triangle-unet_vgg16": {"msr": 5}
    }
    assert about == json.loads((into / "about.json").read_text())
    monkeypatch.setattr(reference, "FOLDER", into)
    for path in (into, *into.rglob("*")):
        path.chmod(path.stat().st_mode & ~0o222)
    return into


def maps_of(packed: Path) -> Path:
    """Extract what a pack has of maps, beside it."""
    folder = packed.parent / f"maps of {packed.name}"
    extract_archive(packed / ARCHIVE, folder)
    return folder


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
    maps = maps_of(packed)
    (numbers,) = maps.glob("*.numbers.npz")
    unit_ = numbers.name.partition(".")[0]
    with np.load(numbers) as arrays:
        assert {*arrays.files} == curves([0.0]).keys()
    assert load_maps(maps, unit_) is None
    assert saved_arrays(maps, unit_, ("deletion_",)).keys() == {"deletion_fraction", "deletion_dice"}
    assert len(list(maps.glob("*.npz"))) == SAMPLES + 1


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
    maps = {path.name for path in store.maps_folder.iterdir()}
    assert maps == {path.name for path in maps_of(packed).iterdir()} - {f"{stored.loc[('triangle', 0), 'unit']}.npz"}
    pack({outputs: {}}, tmp_path / "again")
    assert len(RecordStore(tmp_path / "again").load()) == 7
    assert {path.name for path in maps_of(tmp_path / "again").iterdir()} == maps


def test_a_pack_grows_by_what_another_machine_made(packed, tmp_path):
    """The machines, maps and fillings of the earlier pack are told further; what both have counts as it was."""
    before, outputs = json.loads((packed / "about.json").read_text()), tmp_path / "outputs"
    keep(outputs, made("msr", 0, dice_explained=0.25), made("rise", 1, weights_origin="told"))
    grown = tmp_path / "grown"
    about = pack({packed: {}, outputs: {"command": "elsewhere"}}, grown, {"triangle-unet_vgg16": "a disk"})
    assert about["made_by"] == [*before["made_by"], {"command": "elsewhere", "hours": {}}]
    assert about["n"]["triangle-unet_vgg16"] == {"msr": 5, "rise": 1}
    assert about["maps_left_out"] == before["maps_left_out"]
    assert about["filled_in"]["weights_origin"]["triangle-unet_vgg16"]["records"] == 5
    stored = RecordStore(grown).load().set_index(["dataset", "sample"])
    assert stored.loc[("triangle", 0), "dice_explained"] == 0.5
    assert (grown / ARCHIVE).read_bytes() == (packed / ARCHIVE).read_bytes()
    again = pack({grown: {}}, tmp_path / "again")
    assert again == about


def test_a_pack_without_its_archive_is_refused_not_taken_for_one_without_maps(packed, tmp_path, monkeypatch):
    lacking = shutil.copytree(packed, tmp_path / "lacking", copy_function=shutil.copyfile)
    lacking.chmod(0o755)
    (lacking / ARCHIVE).unlink()
    monkeypatch.setattr(reference, "FOLDER", lacking)
    for call in (lambda: pack({lacking: {}}, tmp_path / "again"), lambda: unpack(tmp_path / "outputs")):
        with pytest.raises(MisureError, match=ARCHIVE):
            call()
    assert not (tmp_path / "again").exists()


def test_a_record_without_its_maps_is_not_made_anew(tmp_path, monkeypatch):
    """COCO's maps do not ship: a run that would save them goes on all the same."""
    one = Unit("coco", "f" * 16, "unet", "1234567890123456", "msr", {"lr": 0.1}, 0, 1)
    row = made("msr", 0)[0] | one.columns() | {"threshold": None, "dataset": "coco", "param_thresholds": "[]"}
    store = RecordStore(tmp_path / "first" / "records")
    store.write(one, [{k: v for k, v in row.items() if v == v}])  # noqa: PLR0124 - NaN
    assert not store.outcome(one, needs_maps=True).complete
    pack({tmp_path / "first": {}}, tmp_path / "packed")
    monkeypatch.setattr(reference, "FOLDER", tmp_path / "packed")
    unpack(tmp_path / "second")
    assert RecordStore(tmp_path / "second" / "records").outcome(one, needs_maps=True).complete


def test_curves_of_all_go_and_maps_sample_by_sample_as_far_as_they_fit(tmp_path, monkeypatch):
    outputs, generator = tmp_path / "outputs", np.random.default_rng(0)
    maps, units = outputs / "records" / "maps", []
    for explainer in ("msr", "rise"):
        names = keep(outputs, *(made(explainer, n) for n in range(SAMPLES)))
        for name in names:
            save_map(maps, name, generator.random((40, 40)))
            with np.load(maps / f"{name}.npz") as known:
                np.savez(maps / f"{name}.npz", allow_pickle=False, **known, **curves([0.0, 0.5, 1.0]))
        units += names
    keep(outputs, made("prediction", 0, input_noise=1e-6))
    pack({outputs: {}}, tmp_path / "whole")
    most = 2 * (tmp_path / "whole" / ARCHIVE).stat().st_size // 3
    monkeypatch.setattr(packing, "MOST_MAPS", 100)
    with pytest.raises(MisureError, match="100"):
        pack({outputs: {}}, tmp_path / "packed")
    monkeypatch.setattr(packing, "MOST_MAPS", most)
    about, packed = pack({outputs: {}}, tmp_path / "packed"), tmp_path / "packed"
    stored = RecordStore(packed).load().drop_duplicates("unit").set_index("unit")
    shipped = stored[stored["without_maps"].isna()]
    assert {*shipped.index} == {path.stem for path in maps_of(packed).iterdir() if ".numbers" not in path.name}
    assert 1 < about["maps"] == len(shipped) < 2 * SAMPLES
    assert about["maps_left_out"]["no room"] == 2 * SAMPLES - len(shipped)
    assert shipped["sample"].max() <= stored.drop(shipped.index)["sample"].iloc[:-1].min()
    for name in units:
        assert saved_arrays(maps_of(packed), name, ("curve_",)).keys() == {
            *("curve_allowed", "curve_dice", "curve_ratio")
        }
    assert len([*maps_of(packed).iterdir()]) == 2 * SAMPLES
    assert (packed / ARCHIVE).stat().st_size <= most


def test_of_the_precision_with_fewer_explanations_only_masks_ship(tmp_path):
    """They are what tables compare; maps that rank pixels are shown of the other precision alone."""
    outputs, expected = tmp_path / "outputs", set[str]()
    for precision, samples in (("bf16", 3), ("32", 2)):
        for explainer in ("msr", "rise"):
            names = keep(outputs, *(made(explainer, n, precision=precision) for n in range(samples)))
            for name in names:
                save_map(outputs / "records" / "maps", name, np.eye(4))
            expected |= {*names} if (explainer, precision) != ("rise", "32") else set()
    other = keep(outputs, *(made("seg_grad_cam", n, created=f"2026-11-2{n}T10:00:00+00:00") for n in (0, 1)))
    keep(outputs, unit("rise", 8, {"n_masks": 7}, profile=PROFILE), unit("rise", 9, {"n_masks": 7}, profile=PROFILE))
    expected |= {*other}
    for name in other:
        save_map(outputs / "records" / "maps", name, np.eye(4))
    stable = keep(outputs, unit("msr", 7, dict(STABLE.parameters), profile=PROFILE, precision="bf16"))
    save_map(outputs / "records" / "maps", *stable, np.eye(4))
    expected |= {*stable}
    about = pack({outputs: {}}, tmp_path / "packed")
    assert {path.stem for path in maps_of(tmp_path / "packed").iterdir()} == expected
    assert about["maps_left_out"] == {"not free or not needed": 2, "no room": 0}
    counts = about["n"]["triangle-unet_vgg16"]
    assert counts.items() > {"msr": 2, "msr bf16": 3, "rise": 2, "rise bf16": 3}.items()
    assert sum(counts.values()) == 15


def test_where_weights_came_from_is_filled_in_only_where_it_is_not_told(tmp_path):
    told = [made("msr", 0), made("msr", 1, weights_origin="told"), made("msr", 2, weights_origin=None)]
    keep(tmp_path / "outputs", *told, photo("msr", 5, "dog", profile=PROFILE))
    about = pack({tmp_path / "outputs": {}}, tmp_path / "packed", {"triangle-unet_vgg16": "elsewhere"})
    assert about["filled_in"] == {"weights_origin": {"triangle-unet_vgg16": {"said": "elsewhere", "records": 1}}}
    stored = RecordStore(tmp_path / "packed").load()
    triangle = stored[stored["dataset"].eq("triangle")].set_index("sample")["weights_origin"]
    assert triangle[[0, 1]].to_dict() == {0: "elsewhere", 1: "told"}
    assert triangle[2] is None or pd.isna(triangle[2])
    assert stored.loc[stored["dataset"].eq("coco"), "weights_origin"].isna().all()


def test_an_earlier_pack_stays_where_the_new_one_cannot_take_its_place(tmp_path, monkeypatch):
    outputs, into = tmp_path / "outputs", tmp_path / "reference"
    keep(outputs, made("msr", 0))
    pack({outputs: {}}, into)
    before, replace = contents(into), Path.replace

    def full(path: Path, target: Path) -> Path:
        if path.is_dir():
            raise OSError("disk full")
        return replace(path, target)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", full)
        with pytest.raises(MisureError, match="disk full"):
            pack({outputs: {"note": "anew"}}, into)
    assert contents(into) == before
    pack({outputs: {"note": "anew"}}, into)
    assert contents(into) != before
    assert {path.name for path in tmp_path.iterdir()} == {"outputs", "reference"}


def test_a_run_of_the_same_profile_is_shown_beside_what_ships(packed, tmp_path):
    """What somebody with a GPU makes anew is the one run that can be compared in every cell."""
    own = frame(*(made("msr", n, created="2026-11-29T10:00:00+00:00") for n in range(SAMPLES)))
    for records, compared in ((own, True), (RecordStore(packed).load(), False)):
        write_table1(records, tmp_path / "out", PROFILE, {})
        assert ("reference_n_samples" in pd.read_csv(tmp_path / "out" / "tables" / "table1.csv")) is compared


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
        pack({tmp_path / "outputs": {}}, tmp_path / "into")


def test_too_many_records_do_not_ship(tmp_path, monkeypatch):
    keep(tmp_path / "outputs", made("msr", 0))
    monkeypatch.setattr(packing, "MOST_RECORDS", 100)
    with pytest.raises(MisureError, match="100"):
        pack({tmp_path / "outputs": {}}, tmp_path / "into")
    assert not (tmp_path / "into").exists()
