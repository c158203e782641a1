"""The COCO dataset: official layout, exact tensors, damage named and counted, and the photographs themselves."""

from __future__ import annotations

import collections
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from coco_files import VOC_CLASSES, CocoFolder, box, miniature, picture, run_lengths
from oracles import coco as oracle
from PIL import Image

from misure.datasets.coco import source as coco_source
from misure.datasets.coco.dataset import CocoDataset
from misure.datasets.credit import CreditedDataset
from misure.datasets.datamodule import SegmentationData
from misure.datasets.synthetic.scenes import SceneSpec
from misure.errors import MisureError

CLASSES = list(VOC_CLASSES)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def dataset(root, resize=16, per_class=100, **settings):
    return CocoDataset("val", root, CLASSES, per_class, resize, **settings)


def test_entries_are_exact(tmp_path):
    folder = CocoFolder(tmp_path)
    crowd = run_lengths(np.arange(18 * 24).reshape(18, 24) < 50)
    folder.add([(3, box(2, 2, 14, 12)), (18, box(8, 6, 20, 16)), (27, box(0, 0, 24, 18))], [(1, crowd)], name="a.png")
    found = dataset(folder.write(), 12, mean=MEAN, std=STD)
    entry = found[0]
    assert set(entry) == {"image", "mask", "index"}
    assert (entry["image"].dtype, entry["mask"].dtype, int(entry["index"])) == (torch.float32, torch.int64, 0)
    rows, columns = oracle.antialiased_matrix(12, 18), oracle.antialiased_matrix(12, 24)
    pixels = np.einsum("yi,xj,ijc->yxc", rows, columns, picture(seed=1) / 255)
    expected = ((pixels - MEAN) / STD).transpose(2, 0, 1)
    np.testing.assert_allclose(entry["image"].numpy(), expected, atol=1e-5)  # float32, divided by about 0.2
    labels = oracle.label_map(18, 24, folder.content["annotations"])
    assert set(np.unique(labels)) == {0, 7, 12, 255}
    expected_mask = [[labels[int((y + 0.5) * 1.5), int((x + 0.5) * 2)] for x in range(12)] for y in range(12)]
    np.testing.assert_array_equal(entry["mask"], expected_mask)
    assert found.annotated(0) == {7, 12}  # a crowd of persons is none of their own
    assert found.group(0) == "a.png"
    with pytest.raises(IndexError, match="image 1 of 1"):
        found[1]


def test_sizes(tmp_path):
    folder = CocoFolder(tmp_path)
    for width, height in ((24, 18), (18, 24), (30, 10)):
        folder.add([(1, box(2, 2, 9, 9))], pixels=picture(width, height))
    folder.write()
    native_sizes = [(520, 693), (693, 520), (520, 1560)]
    for resize, sizes in ((16, [(16, 16)] * 3), ("native", native_sizes)):
        entries = [dataset(tmp_path, resize)[i] for i in range(3)]
        assert [tuple(entry["image"].shape) for entry in entries] == [(3, *size) for size in sizes]
        assert [tuple(entry["mask"].shape) for entry in entries] == sizes
    for wrong in ("224", 0, -5, True, 224.0, None):
        with pytest.raises(MisureError, match="is neither a number of pixels, such as 224, nor native"):
            dataset(tmp_path, wrong)
    with pytest.raises(MisureError, match="images_per_class=0 is not a whole number of at least 1"):
        dataset(tmp_path, per_class=0)


def test_what_the_other_modules_ask_for(tmp_path):
    found = dataset(miniature(tmp_path, per_class=2))
    assert isinstance(found, CreditedDataset)
    assert (len(found), found.source, found.stand_in) == (16, "16 COCO val2017 images", False)
    assert [found.credit(i).licence for i in range(6)] == [1, 2, 3, 4, 5, 6]
    assert [found.annotated(i) for i in range(8)] == [{6}, {7}, {8}, {2}, {10}, {12}, {15}, {19}]
    data = SegmentationData(found, found, batch_size=4, samples_per_epoch=8, validation_samples=8)
    for loader in (data.train_dataloader(), data.val_dataloader()):
        shapes = [(tuple(batch["image"].shape), tuple(batch["mask"].shape)) for batch in loader]
        assert shapes == [((4, 3, 16, 16), (4, 16, 16))] * 2


def test_only_images_of_the_classes_belong(tmp_path):
    folder = CocoFolder(tmp_path)
    middle = box(2, 2, 9, 9)
    for objects, crowds in (([(27, middle)], []), ([(4, middle)], []), ([], [(1, run_lengths(np.eye(18, 24)))])):
        folder.add(objects, crowds)
    folder.add([(3, middle)])
    folder.write()
    assert [dataset(tmp_path).group(i) for i in range(len(dataset(tmp_path)))] == ["000000000004.jpg"]
    motorbikes = CocoDataset("val", tmp_path, ["motorbike"], 5, 16)
    assert [motorbikes.group(i) for i in range(len(motorbikes))] == ["000000000002.jpg"]
    with pytest.raises(MisureError, match=r"val2017: no image has one of the classes; run misure prepare"):
        CocoDataset("val", tmp_path, ["cow"], 5, 16)


def test_the_fingerprint_follows_what_is_seen(tmp_path):
    miniature(tmp_path)
    first = dataset(tmp_path).fingerprint
    assert dataset(tmp_path).fingerprint == first
    copy = tmp_path / "copy"
    shutil.copytree(tmp_path / "coco", copy / "coco")
    assert dataset(copy).fingerprint == first  # not the place
    changed = [
        dataset(tmp_path, 17),
        dataset(tmp_path, "native"),
        dataset(tmp_path, mean=MEAN),
        dataset(tmp_path, std=STD),
        CocoDataset("val", tmp_path, CLASSES[1:], 100, 16),
    ]
    Image.fromarray(picture(seed=99)).save(copy / "coco/val2017/000000000003.jpg")
    changed.append(dataset(copy))
    annotations = tmp_path / "coco/annotations/instances_val2017.json"
    fingerprints = [each.fingerprint for each in changed]
    annotations.write_text(annotations.read_text().replace("6, 4", "7, 4", 1))
    fingerprints.append(dataset(tmp_path).fingerprint)
    assert len({first, *fingerprints}) == 8


def damaged_folder(tmp_path):
    """Two sound images, and one of every fault."""
    folder = CocoFolder(tmp_path)
    middle = [(1, box(6, 4, 18, 12))]
    folder.add(middle)
    folder.add([(3, []), *middle, (17, [[3, 3, 5, 5]])])
    folder.add(middle).unlink()
    folder.add(middle).write_bytes(b"")
    folder.add(middle).write_bytes(b"<html>404</html>")
    cut = folder.add(middle, pixels=picture(240, 180))
    cut.write_bytes(cut.read_bytes()[:2000])
    folder.add(middle, size=(25, 18))
    folder.add(name="empty.jpg")
    folder.annotate(99, 1, box(6, 4, 18, 12))
    return folder.write()


def test_damage_is_named_and_counted(tmp_path):
    with pytest.warns(UserWarning, match="left out") as record:
        found = dataset(damaged_folder(tmp_path))
    assert found.source == "2 COCO val2017 images; left out: 5 images, 3 annotations"
    cut = found.left_out["image"].pop(3)
    assert cut.startswith("000000000006.jpg cannot be read (")
    assert found.left_out == {
        "image": [
            "000000000003.jpg does not exist, or is no file",
            "000000000004.jpg is empty: copy it again",
            "000000000005.jpg holds no PNG, JPEG or TIFF image, whatever its name says",
            "000000000007.jpg is 24 x 18, its annotations are for 25 x 18",
        ],
        "annotation": [
            "annotation 2: its segmentation is empty",
            "annotation 4: none of its polygons covers anything",
            "annotation 10: image 99 is not listed",
        ],
    }
    assert record[0].filename == __file__  # the warning points at the caller
    assert [found.annotated(i) for i in range(2)] == [{15}, {15}]
    assert [found[i]["image"].shape for i in range(2)] == [(3, 16, 16)] * 2


def test_no_image_can_be_used(tmp_path):
    shutil.rmtree(miniature(tmp_path) / "coco" / "val2017")
    reason = r"val2017: none can be used \(000000000001.jpg does not exist.*; and 5 more\); run misure prep"
    with pytest.raises(MisureError, match=reason):
        dataset(tmp_path)


def test_an_image_that_would_become_too_large(tmp_path):
    folder = CocoFolder(tmp_path)
    folder.add([(1, box(0, 0, 9, 1))])
    folder.add([(1, box(0, 0, 9, 1))], pixels=picture(400, 1), name="line.png")
    folder.write()
    assert len(dataset(tmp_path)) == 2
    with pytest.warns(UserWarning, match=r"1 image \(line.png: it would become 208000 x 520\)"):
        assert len(dataset(tmp_path, "native")) == 1


def test_a_file_that_goes_missing_later(tmp_path):
    found = dataset(miniature(tmp_path))
    (tmp_path / "coco/val2017/000000000002.jpg").unlink()
    with pytest.raises(MisureError, match=r"000000000002.jpg does not exist"):
        found[1]
    with pytest.raises(MisureError, match=r"000000000002.jpg cannot be read \(No such file"):
        _ = found.fingerprint


def test_absent_data_says_what_to_do(tmp_path):
    with pytest.raises(
        MisureError, match=rf"(?s)instances_val2017.json does not exist.*dataset=coco.*{tmp_path / 'coco'}"
    ):
        dataset(tmp_path)


def test_generated_scenes_are_marked(tmp_path, monkeypatch):
    root = miniature(tmp_path)
    monkeypatch.setattr(coco_source, "generated", lambda folder, spec: folder / "coco")
    spec = SceneSpec(size=64, seed=3)
    found = CocoDataset("val", "elsewhere", CLASSES, 100, 24, scenes=spec, stand_in=root)
    assert found.source == "8 stand-in: generated scenes (64 x 64, seed 3)"
    assert found.stand_in
    assert {found.credit(i).licence for i in range(len(found))} == {0}
    assert all(found.credit(i).showable for i in range(len(found)))
    with pytest.raises(MisureError, match="generated scenes need a folder"):
        CocoDataset("val", "elsewhere", CLASSES, 100, 24, scenes=spec)


REAL = Path(os.environ.get("MISURE_DATA", "")) / "coco"
real = pytest.mark.skipif(
    not (os.environ.get("MISURE_DATA") and (REAL / "annotations" / "instances_val2017.json").is_file()),
    reason="COCO's photographs are absent: set MISURE_DATA to a folder with coco/annotations and coco/val2017",
)


@pytest.fixture(scope="module")
def photographs():
    return dataset(REAL.parent, 224, mean=MEAN, std=STD)


@real
def test_every_photograph_decodes_shows_what_is_annotated_and_has_a_credit(photographs):
    assert photographs.left_out["image"] == photographs.left_out["annotation"] == []
    n_objects = n_hidden = 0
    for i in range(len(photographs)):
        entry = photographs[i]
        assert entry["image"].shape == (3, 224, 224)
        assert -2.2 < entry["image"].min() < entry["image"].max() < 2.7  # (0 - mean) / std and (1 - mean) / std
        seen = set(entry["mask"].unique().tolist())
        assert seen <= {*range(21), 255}
        n_objects += len(photographs.annotated(i))
        n_hidden += len(photographs.annotated(i) - seen)
        credit = photographs.credit(i)
        assert credit.licence in range(1, 9)
        assert credit.showable == (credit.licence in {4, 5})
        assert credit.licence_name
        assert credit.url.startswith("http")
        assert credit.licence_url.startswith("http")
    assert n_hidden <= 0.05 * n_objects  # few are hidden by others, or smaller than a pixel


@real
def test_the_103_photographs(photographs):
    if len(list((REAL / "val2017").glob("*.jpg"))) != 103:
        pytest.skip("another choice of photographs than the 103 whose counts are known")
    assert len(photographs) == 103
    assert photographs.source == "103 COCO val2017 images"
    assert photographs.fingerprint == "b284f33952b0aa2c"
    labels = [15, 7, 8, 6, 2, 12, 19, 10]
    counts = collections.Counter(label for i in range(103) for label in photographs.annotated(i) if label in labels)
    assert [counts[label] for label in labels] == [88, 17, 10, 9, 5, 4, 4, 2]
    assert {photographs.credit(i).licence for i in range(103)} == {1, 2, 3, 4, 5, 6}
