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

from misure.datasets.coco.dataset import CocoDataset
from misure.datasets.coco.protocol import VOC_NAMES
from misure.datasets.credit import Credit
from misure.datasets.synthetic import scenes
from misure.datasets.synthetic.scenes import CLASSES, SceneSpec, generated, make_scene
from misure.errors import MisureError

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


# Annotations


def test_the_layout_is_cocos(made, annotations):
    for split, count in (("train", 64), ("val", 24)):
        coco = annotations[split]
        assert {entry["name"]: entry["id"] for entry in coco.dataset["categories"]} == IDS
        names = {entry["file_name"] for entry in coco.dataset["images"]}
        assert names == {path.name for path in (made[1] / f"{split}2017").iterdir()}
        assert len(names) == len(coco.imgs) == count
        for entry in coco.dataset["images"]:
            assert (entry["width"], entry["height"], entry["license"], entry["coco_url"]) == (64, 64, 0, "")
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
            assert annotation["iscrowd"] == 0
            left, top, width, height = annotation["bbox"]
            assert min(left, top) >= 0
            assert max(left + width, top + height) <= 64.01  # coordinates are rounded to a hundredth
            rows, columns = np.nonzero(inside)
            # a pixel belongs to an outline that holds its centre, give or take COCO's own rounding to a fifth of one
            assert left - 0.7 <= columns.min() <= columns.max() + 1 <= left + width + 0.7
            assert top - 0.7 <= rows.min() <= rows.max() + 1 <= top + height + 0.7


def test_there_are_one_to_four_objects_of_three_to_forty_per_cent(annotations):
    objects = [coco.imgToAnns[image] for coco in annotations.values() for image in coco.imgs]
    assert {len(of_image) for of_image in objects} == {1, 2, 3, 4}
    shares = np.array([annotation["area"] for of_image in objects for annotation in of_image]) / 64**2
    assert shares.min() > 0.025  # 0.03 of what the outline holds, less what pixels make of it
    assert shares.max() < 0.42
    assert (shares < 0.05).mean() > 0.1
    assert (shares > 0.15).mean() > 0.1


def test_classes_are_about_equally_frequent(annotations):
    counts = np.array([[len(coco.getAnnIds(catIds=[n])) for n in IDS.values()] for coco in annotations.values()]).sum(0)
    assert counts.min() > 0.6 * counts.mean()  # about 25 of each; a third is chance, and some find no room
    assert counts.max() < 1.4 * counts.mean()
    for coco in annotations.values():
        first = [coco.imgToAnns[image][0]["category_id"] for image in sorted(coco.imgs)]
        for start in range(0, len(first), 8):
            assert set(first[start : start + 8]) == set(IDS.values())


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


# Pictures


def test_objects_are_where_their_annotation_says_in_the_picture():
    """Pixels change more across the outline than elsewhere."""
    for number in range(6):
        picture, objects = make_scene(replace(SPEC, size=96, seed=2), 1, number)
        assert objects
        edge = np.abs(np.diff(np.asarray(picture, float), axis=1)).sum(2)
        for drawn in objects:
            border = np.diff(drawn.inside.astype(int), axis=1) != 0
            assert edge[border].mean() > 1.5 * np.median(edge)


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
        near = sum(
            np.pad(drawn.inside, 4)[8 - i : 72 - i, 8 - j : 72 - j]
            for drawn in objects
            for i in range(9)
            for j in range(9)
        )
        assert np.ptp(pixels[near == 0], axis=1).max() == 0
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


# The folder


def test_another_specification_or_version_has_another_folder(monkeypatch):
    changes = ({}, {"train_images": 4}, {"val_images": 3}, {"size": 50}, {"seed": 1}, {"typical_colours": True})
    homes = [scenes.home(Path("made"), replace(TINY, **change)) for change in changes]
    monkeypatch.setattr(scenes, "VERSION", scenes.VERSION + 1)
    homes.append(scenes.home(Path("made"), TINY))
    assert len(set(homes)) == len(homes)
    assert all(len(home.name) == len("scenes-") + 12 for home in homes)


@pytest.mark.parametrize(
    "wrong", [{"train_images": 0}, {"val_images": 100_001}, {"size": 47}, {"size": 1025}, {"seed": -1}]
)
def test_impossible_specifications_are_one_line(wrong):
    ((name, value),) = wrong.items()
    with pytest.raises(MisureError, match=rf"scenes\.{name}={value} is not a number from"):
        SceneSpec(**wrong)
