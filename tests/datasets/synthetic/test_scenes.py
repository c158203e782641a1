"""Generated scenes: what they look like, their annotations, and the folder in COCO's layout."""

from __future__ import annotations

import contextlib
import io
import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO
from scipy.ndimage import binary_dilation

from misure.datasets.coco.dataset import CocoDataset
from misure.datasets.coco.protocol import VOC_NAMES
from misure.datasets.credit import Credit
from misure.datasets.synthetic import scenes
from misure.datasets.synthetic.scenes import CLASSES, SceneSpec, generated, make_scene

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools, NumPy 2

IDS = {"person": 1, "bicycle": 2, "car": 3, "bus": 6, "train": 7, "cat": 17, "dog": 18, "cow": 21}
SPEC = SceneSpec(train_images=64, val_images=24, size=64)
TINY = SceneSpec(train_images=3, val_images=2, size=48)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The folder that ``generated`` was given, and the one that it returned."""
    folder = tmp_path_factory.mktemp("stand_in")
    return folder, generated(folder, SPEC)


@pytest.fixture(scope="module")
def annotations(made):
    with contextlib.redirect_stdout(io.StringIO()):
        return {split: COCO(str(made[1] / "annotations" / f"instances_{split}2017.json")) for split in ("train", "val")}


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_layout_is_cocos(made, annotations):
    for split, count in (("train", 64), ("val", 24)):
        coco = annotations[split]
        assert {entry["name"]: entry["id"] for entry in coco.dataset["categories"]} == IDS
        names = {entry["file_name"] for entry in coco.dataset["images"]}
        assert names == {path.name for path in (made[1] / f"{split}2017").iterdir()}
        assert len(names) == len(coco.imgs) == count
        with Image.open(made[1] / f"{split}2017" / min(names)) as image:
            assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (64, 64))
    assert not set(annotations["train"].imgs) & set(annotations["val"].imgs)
    assert not set(annotations["train"].anns) & set(annotations["val"].anns)


def test_every_annotation_describes_its_outline_and_none_overlap(annotations):
    for coco in annotations.values():
        for image in coco.imgs:
            assert sum(coco.annToMask(annotation).astype(int) for annotation in coco.imgToAnns[image]).max() == 1
        assert len(coco.anns) == len(coco.dataset["annotations"])  # no two share an id
        for annotation in coco.dataset["annotations"]:
            inside = coco.annToMask(annotation)
            assert annotation["area"] == inside.sum()
            left, top, width, height = annotation["bbox"]
            rows, columns = np.nonzero(inside)
            # a pixel belongs to an outline that holds its centre, give or take COCO's own rounding to a fifth of one
            assert left - 0.7 <= columns.min() <= columns.max() + 1 <= left + width + 0.7
            assert top - 0.7 <= rows.min() <= rows.max() + 1 <= top + height + 0.7


def test_sizes_and_classes_vary(annotations):
    """One to four objects of 3 to 40 per cent; every class comes first once in eight scenes."""
    objects = [coco.imgToAnns[image] for coco in annotations.values() for image in coco.imgs]
    assert {len(of_image) for of_image in objects} == {1, 2, 3, 4}
    shares = np.array([annotation["area"] for of_image in objects for annotation in of_image]) / 64**2
    assert 0.025 < shares.min() < 0.05  # 0.03 of what the outline holds, less what pixels make of it
    assert 0.15 < shares.max() < 0.42
    for coco in annotations.values():
        first = [coco.imgToAnns[image][0]["category_id"] for image in sorted(coco.imgs)]
        assert all(set(first[start : start + 8]) == set(IDS.values()) for start in range(0, len(first), 8))


def test_the_loader_of_photographs_reads_them(made):
    for split, count, resize in (("train", 64, 64), ("val", 24, 100)):
        data = CocoDataset(split, made[0], list(CLASSES), 1000, resize, scenes=SPEC, stand_in=made[0])
        assert len(data) == count
        assert data.source == f"{count} stand-in: generated scenes (64 x 64, seed 0)"
        assert data.stand_in
        assert data.credit(0) == Credit(0, "generated", "", "")
        assert data.credit(0).showable
        for index in range(0, count, 4):
            entry = data[index]
            assert entry["image"].shape == (3, resize, resize)
            assert 0 <= entry["image"].min() < entry["image"].max() <= 1
            present = set(entry["mask"].unique().tolist())
            assert present == {0, *data.annotated(index)}  # nothing hidden, and no 255
            assert present <= {0, *(VOC_NAMES.index(name) for name in CLASSES)}


def test_no_colour_gives_a_class_away():
    """Mean colour and brightness of an object, by nearest class mean, are right little more often than chance's 1/8."""
    colours = {name: [] for name in CLASSES}
    for number in range(88):
        picture, objects = make_scene(SPEC, 0, number)
        for drawn in objects:
            colours[drawn.name].append(np.asarray(picture, float)[drawn.inside].mean(0))
    means = np.array([np.mean(colours[name][::2], axis=0) for name in CLASSES])
    right = [
        np.argmin(((means - colour) ** 2).sum(1)) == label
        for label, name in enumerate(CLASSES)
        for colour in colours[name][1::2]
    ]
    assert len(right) > 80
    assert np.mean(right) < 0.3  # 1/8 plus five standard deviations of a hundred draws, 0.033 each


def test_typical_colours_do_and_the_rest_is_grey():
    colours = {}
    for number in range(16):
        picture, objects = make_scene(replace(SPEC, typical_colours=True), 0, number)
        pixels = np.asarray(picture, float)
        near = binary_dilation(sum(drawn.inside for drawn in objects), iterations=4)
        assert np.ptp(pixels[~near], axis=1).max() == 0
        for drawn in objects:
            shade = pixels[drawn.inside].mean(0)
            colours.setdefault(drawn.name, []).append(shade / shade.max())
    assert set(colours) == set(CLASSES)
    spread = max(np.ptp(same, axis=0).max() for same in colours.values())
    means = [np.mean(same, axis=0) for same in colours.values()]
    assert spread < min(np.abs(a - b).max() for a, b in itertools.combinations(means, 2))


def test_a_scene_depends_on_seed_split_and_number_alone(tmp_path):
    keys = ((TINY, 0, 5), (replace(TINY, seed=1), 0, 5), (TINY, 1, 5), (TINY, 0, 6))
    pictures = [np.asarray(make_scene(*key)[0], float) for key in keys]
    assert np.array_equal(pictures[0], make_scene(*keys[0])[0])
    assert all(np.abs(a - b).mean() > 5 for a, b in itertools.combinations(pictures, 2))
    few = files(generated(tmp_path, TINY))
    many = files(generated(tmp_path, replace(TINY, train_images=5, val_images=4)))
    names = [name for name in few if name.endswith(".jpg")]
    assert len(names) == len({few[name] for name in names}) == 5
    assert all(few[name] == many[name] for name in names)
    assert files(generated(tmp_path / "again", TINY)) == few


def test_what_is_drawn_belongs_to_the_version():
    """Whoever changes the drawing raises the version, and with it the names of folders."""
    picture, objects = make_scene(SceneSpec(size=64), 0, 3)
    drawn = {drawn.name: int(drawn.inside.sum()) for drawn in objects}
    mean = np.asarray(picture, float).mean()
    assert (scenes.VERSION, drawn, round(mean)) == (1, {"cat": 195}, 120)


def test_another_specification_or_version_has_another_folder(monkeypatch):
    changes = ({}, {"train_images": 4}, {"val_images": 3}, {"size": 50}, {"seed": 1}, {"typical_colours": True})
    homes = [scenes.home(Path("made"), replace(TINY, **change)) for change in changes]
    monkeypatch.setattr(scenes, "VERSION", scenes.VERSION + 1)
    homes.append(scenes.home(Path("made"), TINY))
    assert len(set(homes)) == len(homes)
    assert all(len(home.name) == len("scenes-") + 12 for home in homes)
