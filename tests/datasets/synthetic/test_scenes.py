"""Generated scenes: what they look like, their annotations, and the folder in COCO's layout."""

from __future__ import annotations

import contextlib
import errno
import io
import itertools
import multiprocessing
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask
from pycocotools.coco import COCO

from misure.datasets.coco.dataset import CocoDataset
from misure.datasets.coco.protocol import COCO_IDS, VOC_NAMES
from misure.datasets.credit import Credit
from misure.datasets.synthetic import scenes
from misure.datasets.synthetic.scene_chance import Chance
from misure.datasets.synthetic.scene_drawing import FIGURES, MOST_OBJECTS, make_scene, outline_area
from misure.datasets.synthetic.scene_shapes import curve, ellipse, limb, panel, rotation
from misure.datasets.synthetic.scene_texture import background, gradient, noise, random_colour
from misure.datasets.synthetic.scenes import SceneSpec, generated
from misure.errors import MisureError

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools, NumPy 2

CLASSES = ("bus", "car", "cat", "bicycle", "cow", "dog", "person", "train")
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


def dataset(made, split: str, **changes) -> CocoDataset:
    return CocoDataset(split, made[0], CLASSES, 1000, scenes=SPEC, stand_in=made[0], **{"resize": 64, **changes})


# Annotations


def test_the_layout_is_cocos(made, annotations):
    _, home = made
    assert home.name.startswith("scenes-")
    assert len(home.name) == len("scenes-") + 12
    for split, count in (("train", 64), ("val", 24)):
        coco = annotations[split]
        assert {entry["name"]: entry["id"] for entry in coco.dataset["categories"]} == IDS
        assert coco.dataset["licenses"] == [{"id": 0, "name": "generated", "url": ""}]
        assert coco.dataset["info"]["description"] == "generated scenes"
        names = {entry["file_name"] for entry in coco.dataset["images"]}
        assert names == {path.name for path in (home / f"{split}2017").iterdir()}
        assert len(names) == len(coco.imgs) == count
        for entry in coco.dataset["images"]:
            assert (entry["width"], entry["height"], entry["license"], entry["coco_url"]) == (64, 64, 0, "")
        with Image.open(home / f"{split}2017" / min(names)) as image:
            assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (64, 64))
    assert not set(annotations["train"].imgs) & set(annotations["val"].imgs)
    assert not set(annotations["train"].anns) & set(annotations["val"].anns)


def test_every_annotation_describes_its_outline(annotations):
    for coco in annotations.values():
        assert len(coco.anns) == len(coco.dataset["annotations"])  # no two share an id
        for annotation in coco.dataset["annotations"]:
            inside = coco.annToMask(annotation)
            assert annotation["area"] == inside.sum()
            assert annotation["iscrowd"] == 0
            left, top, width, height = annotation["bbox"]
            assert min(left, top) >= 0
            assert max(left + width, top + height) <= 64
            rows, columns = np.nonzero(inside)
            # a pixel belongs to an outline that holds its centre, give or take COCO's own rounding to a fifth of one
            assert left - 0.7 <= columns.min() <= columns.max() + 1 <= left + width + 0.7
            assert top - 0.7 <= rows.min() <= rows.max() + 1 <= top + height + 0.7


def test_objects_never_overlap(annotations):
    for coco in annotations.values():
        for image in coco.imgs:
            together = sum(coco.annToMask(annotation).astype(int) for annotation in coco.imgToAnns[image])
            assert together.max() == 1


def test_there_are_one_to_four_objects_of_three_to_forty_per_cent(annotations):
    everything = [coco.imgToAnns[image] for coco in annotations.values() for image in coco.imgs]
    assert {len(found) for found in everything} == {1, 2, 3, 4}
    shares = np.array([annotation["area"] for found in everything for annotation in found]) / 64**2
    assert shares.min() > 0.02  # 0.024 of what the outline holds, less what pixels make of it
    assert shares.max() < 0.42
    assert (shares < 0.05).mean() > 0.1
    assert (shares > 0.15).mean() > 0.1


def test_classes_are_about_equally_frequent(annotations):
    counts = np.array([[len(coco.getAnnIds(catIds=[n])) for n in IDS.values()] for coco in annotations.values()]).sum(0)
    assert counts.min() > 0.6 * counts.mean()  # about 25 of each; a third is chance, and some find no room
    assert counts.max() < 1.4 * counts.mean()
    for coco in annotations.values():
        first = [coco.imgToAnns[image][0]["category_id"] for image in sorted(coco.imgs)]
        assert len(first) % 8 == 0
        for start in range(0, len(first), 8):
            assert set(first[start : start + 8]) == set(IDS.values())


# The dataset


def test_the_loader_of_photographs_reads_them(made):
    for split, count in (("train", 64), ("val", 24)):
        data = dataset(made, split)
        assert len(data) == count
        assert data.source == f"{count} stand-in: generated scenes (64 x 64, seed 0)"
        assert data.stand_in
        assert data.credit(0) == Credit(0, "generated", "", "")
        assert data.credit(0).showable
        for index in range(0, count, 4):
            entry = data[index]
            assert entry["image"].shape == (3, 64, 64)
            assert 0 <= entry["image"].min() < entry["image"].max() <= 1
            found = set(entry["mask"].unique().tolist())
            assert found == {0, *data.annotated(index)}  # nothing hidden, and no 255
            assert found <= {0, *(VOC_NAMES.index(name) for name in CLASSES)}


def test_resized_masks_have_no_unlabelled_pixels_either(made):
    data = dataset(made, "val", resize=100)
    assert all((data[index]["mask"] != 255).all() for index in range(len(data)))


# Outlines


@pytest.mark.parametrize(("size", "least", "average"), [(224, 0.95, 0.97), (112, 0.91, 0.96)])
def test_outlines_are_what_was_drawn(size, least, average):
    """An object of 112 pixels has an outline of some 150 to 400 pixels around 400 to 3000, and both sides of this
    comparison round it: polygons to a fifth of a pixel, drawing to an eighth or, for large objects, a quarter. At 224
    the same rounding is half as large a share, and a part left out or shifted by a pixel costs more than the bound.
    """
    found = []
    for number in range(16):
        for drawn in make_scene(size, 5, 0, number).objects:
            polygons = [part.ravel().tolist() for part in drawn.polygons]
            outline = mask.decode(mask.merge(mask.frPyObjects(polygons, size, size))).astype(bool)
            assert outline.sum() == outline_area(drawn.polygons, size)
            covered = drawn.alpha >= 128
            found.append((outline & covered).sum() / (outline | covered).sum())
            assert found[-1] > least, (number, drawn.name)
    assert np.mean(found) > average


def test_objects_are_where_their_annotation_says_in_the_picture():
    """Beside the outline a scene is the same as before the object was drawn; inside it is not."""
    for number in range(6):
        scene = make_scene(96, 2, 1, number)
        pixels = np.asarray(scene.image, float)
        for drawn in scene.objects:
            inside = drawn.alpha == 255
            edge = np.abs(np.diff(pixels.mean(2), axis=1))
            border = np.diff(inside.astype(int), axis=1) != 0
            assert edge[border].mean() > 1.5 * np.median(edge)


@given(st.sampled_from(CLASSES), st.integers(0, 2**40))
def test_figures_stand_on_the_ground_and_are_wide_and_tall(name, key):
    figure = FIGURES[name](Chance(key))
    points = np.concatenate([part.points for part in figure.parts])
    assert np.isfinite(points).all()
    assert abs(points[:, 1].min()) < 0.1
    width, height = np.ptp(points, axis=0)
    assert {"train": 2.0, "bus": 1.2, "car": 1.5, "bicycle": 1.3, "cow": 1.2}.get(name, 0.4) < width / height
    assert width / height < {"train": 4.5, "person": 1.0}.get(name, 2.8)
    assert all(0 <= part.opacity <= 1 and 0 < part.shade <= 1 for part in figure.parts)


@settings(max_examples=15)
@given(st.sampled_from(CLASSES), st.integers(0, 2**40))
def test_details_lie_on_the_object(name, key):
    """So that the outline may leave them out."""
    figure = FIGURES[name](Chance(key))
    everything = [part.points for part in figure.parts]
    low = np.concatenate(everything).min(0) - 0.05
    scale = 190 / np.ptp(np.concatenate(everything), axis=0).max()
    outline, whole = (
        outline_area([(points - low) * scale for points in polygons], 220) for polygons in (figure.outline, everything)
    )
    assert whole <= 1.01 * outline  # a whisker or a hub may reach over the edge by a pixel


def shoelace(points) -> float:
    x, y = points.T
    return abs(x @ np.roll(y, 1) - y @ np.roll(x, 1)) / 2


def test_shapes_have_their_areas():
    assert shoelace(panel(1, 2, 4, 7)) == pytest.approx(15)
    # quarters of circles as three chords: 4 r^2 is lost and 12 sin(30 deg) r^2 / 2 = 3 r^2 comes back
    assert shoelace(panel(1, 2, 4, 7, 0.5)) == pytest.approx(15 - 0.25)
    polygon = 20 * np.sin(2 * np.pi / 20) / 2  # twenty corners on a circle of radius 1
    assert shoelace(ellipse((3, 1), 2)) == pytest.approx(4 * polygon)
    assert shoelace(ellipse((3, 1), 2, 0.5, turn=33)) == pytest.approx(polygon)
    # a rectangle and two halves of an octagon
    assert shoelace(limb((1, 1), (4, 5), 1, 1)) == pytest.approx(5 + 8 * np.sin(np.pi / 4) / 2 * 0.25)
    assert shoelace(limb((1, 1), (4, 5), 1, 0.6)) < shoelace(limb((1, 1), (4, 5), 1, 1))


def test_curves_pass_through_their_points():
    knots = [(0.0, 0.0), (2.0, 0.5), (2.5, 2.0), (0.5, 1.5), (-0.5, 1.0)]
    closed = curve(*knots)
    np.testing.assert_allclose(closed[::4], knots, atol=1e-12)
    square = curve((1, 0), (0, 1), (-1, 0), (0, -1))
    radii = np.hypot(*square.T)
    assert 0.85 < radii.min() <= radii.max() <= 1 + 1e-12  # nearly a circle, unlike the square's 0.71


def test_a_turn_is_anticlockwise():
    np.testing.assert_allclose(np.array([[1.0, 0.0]]) @ rotation(90), [[0, 1]], atol=1e-12)


# Colours and backgrounds


def test_no_colour_gives_a_class_away(made, annotations):
    """Mean colour and brightness of an object, by nearest class mean, are right little more often than chance's 1/8."""
    colours = {name: [] for name in CLASSES}
    for split, coco in annotations.items():
        for annotation in coco.dataset["annotations"]:
            path = made[1] / f"{split}2017" / coco.imgs[annotation["image_id"]]["file_name"]
            pixels = np.asarray(Image.open(path), float)[coco.annToMask(annotation).astype(bool)]
            colours[coco.cats[annotation["category_id"]]["name"]].append(pixels.mean(0))
    means = np.array([np.mean(colours[name][::2], axis=0) for name in CLASSES])
    right = [
        np.argmin(((means - colour) ** 2).sum(1)) == label
        for label, name in enumerate(CLASSES)
        for colour in colours[name][1::2]
    ]
    assert len(right) > 80
    assert np.mean(right) < 0.3  # 1/8 plus five standard deviations of a hundred draws, 0.033 each


def test_backgrounds_are_of_many_kinds_and_stay_in_range():
    spreads = []
    for key in range(30):
        chance = Chance(9, key)
        pixels = background(chance, noise(chance, 48, 8, 0.8))
        assert pixels.shape == (48, 48, 3)
        assert np.isfinite(pixels).all()
        spreads.append(pixels.std((0, 1)).mean())
    assert max(spreads) > 4 * min(spreads)


def test_noise_has_unit_variance_and_more_of_it_at_large_scales():
    field = noise(Chance(1), 96, 3, 0.5)
    assert field.mean() == pytest.approx(0, abs=1e-5)
    assert field.std() == pytest.approx(1, abs=1e-5)
    near, far = (np.corrcoef(field[:, :-step].ravel(), field[:, step:].ravel())[0, 1] for step in (1, 40))
    assert near > 0.9
    assert far < 0.5
    ramp = gradient(Chance(2), 20)
    assert np.abs(np.diff(ramp, 2, axis=0)).max() < 1e-5
    assert np.abs(ramp).max() <= 1


# Chance


def test_draws_depend_on_their_key_alone():
    first, again, other = Chance(3, 4), Chance(3, 4), Chance(3, 5)
    numbers = [first.number() for _ in range(600)]
    assert numbers == [again.number() for _ in range(600)]
    assert len({*numbers, *(other.number() for _ in range(600))}) == 1200
    assert 0 <= min(numbers) < 0.02
    assert 0.98 < max(numbers) < 1
    assert {first.integer(2, 5) for _ in range(100)} == {2, 3, 4, 5}
    assert np.mean([first.happens(0.25) for _ in range(800)]) == pytest.approx(0.25, abs=0.08)  # five deviations
    one, two = first.many(500), first.many(500)
    assert -1 <= one.min() < -0.9
    assert 0.9 < one.max() <= 1
    assert not (one == two).any()
    assert all((random_colour(first) >= 0).all() and (random_colour(first) <= 255).all() for _ in range(50))


def test_a_scene_depends_on_seed_split_and_number_alone():
    scene = make_scene(48, 0, 0, 5)
    again = make_scene(48, 0, 0, 5)
    assert scene.image.tobytes() == again.image.tobytes()
    others = [make_scene(48, *key) for key in ((1, 0, 5), (0, 1, 5), (0, 0, 6))]
    for first, second in itertools.combinations([scene, *others], 2):
        difference = np.asarray(first.image, float) - np.asarray(second.image, float)
        assert np.abs(difference).mean() > 5


def test_more_scenes_do_not_change_the_first_ones(tmp_path):
    few = files(generated(tmp_path, TINY))
    many = files(generated(tmp_path, replace(TINY, train_images=5, val_images=4)))
    pictures = [name for name in few if name.endswith(".jpg")]
    assert len(pictures) == 5
    assert all(few[name] == many[name] for name in pictures)
    assert len({few[name] for name in pictures}) == 5
    assert files(generated(tmp_path / "again", TINY)) == few


# The folder


def test_a_second_call_writes_nothing(tmp_path, monkeypatch):
    home = generated(tmp_path, TINY)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    monkeypatch.setattr(scenes, "make_scene", None)
    assert generated(tmp_path, TINY) == home
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


@pytest.mark.parametrize("change", [{"train_images": 4}, {"val_images": 3}, {"size": 49}, {"seed": 1}])
def test_another_specification_has_another_folder(tmp_path, change):
    home, other = (generated(tmp_path, spec) for spec in (TINY, replace(TINY, **change)))
    assert home != other
    assert sorted(tmp_path.iterdir()) == sorted([home, other])


def test_another_generator_has_another_folder(tmp_path, monkeypatch):
    home = generated(tmp_path, TINY)
    read = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: read(path) + b"#" * (path.name == "scene_vehicles.py"))
    assert generated(tmp_path, TINY) != home


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path, monkeypatch):
    save, calls = Image.Image.save, []

    def full(image, path, **options):
        calls.append(path)
        if len(calls) > 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        save(image, path, **options)

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(
        MisureError, match=r"^cannot write scenes to .*scenes-\w{12}: No space left on device; free .*$"
    ):
        generated(tmp_path / "made", TINY)
    assert len(calls) == 3
    assert not list(tmp_path.rglob("*.*"))


def test_a_file_in_the_way_is_one_line(tmp_path):
    (tmp_path / "taken").write_text("not a folder")
    with pytest.raises(MisureError, match=r"^cannot write scenes to .*: (File exists|Not a directory); .*$"):
        generated(tmp_path / "taken", TINY)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"train_images": 0}, r"scenes\.train_images=0 is not a number from 1 to 100000"),
        ({"val_images": 100_001}, r"scenes\.val_images=100001 is not"),
        ({"size": 47}, r"scenes\.size=47 is not a number from 48 to 1024"),
        ({"seed": -1}, r"scenes\.seed=-1 is not"),
    ],
)
def test_impossible_specifications_are_one_line(wrong, message):
    with pytest.raises(MisureError, match=message):
        SceneSpec(**wrong)


def generate_halfway(folder, connection) -> None:
    """Generate all but the last scene, say so, and go on when told to."""

    def halting(*arguments, **options):
        if arguments == (TINY.size, TINY.seed, 1, 1):
            connection.send("halfway")
            connection.recv()
        return make_scene(*arguments, **options)

    scenes.make_scene = halting
    connection.send(generated(folder, TINY))


@pytest.fixture
def other_process(tmp_path):
    """A process that is halfway, and the connection to it."""
    fork = multiprocessing.get_context("fork")
    here, there = fork.Pipe()
    process = fork.Process(target=generate_halfway, args=(tmp_path, there))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*fork", DeprecationWarning)  # the child uses no other thread
        process.start()
    assert here.poll(60)
    assert here.recv() == "halfway"
    yield process, here
    process.kill()
    process.join()


def test_what_a_killed_process_leaves_is_not_used(tmp_path, other_process):
    process, _ = other_process
    process.kill()
    process.join()
    (left,) = tmp_path.iterdir()
    assert left.suffix == ".part"
    assert len(files(left)) == TINY.train_images + TINY.val_images  # a picture and an annotation file are missing
    home = generated(tmp_path, TINY)
    assert home != left
    assert len(files(home)) == TINY.train_images + TINY.val_images + 2


def test_two_processes_at_once_agree(tmp_path, other_process):
    home = generated(tmp_path, TINY)
    before = files(home)
    process, connection = other_process
    connection.send("go on")
    assert connection.poll(60)
    assert connection.recv() == home
    process.join()
    assert process.exitcode == 0
    assert list(tmp_path.iterdir()) == [home]
    assert files(home) == before


def test_ids_are_cocos():
    assert {name: COCO_IDS[VOC_NAMES.index(name)] for name in FIGURES} == IDS
    assert set(FIGURES) == set(CLASSES)
    assert MOST_OBJECTS == 4
