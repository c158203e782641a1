"""Annotation files are read or refused in one line; images are drawn by seed alone; unknown licences are unknown."""

from __future__ import annotations

import copy
import json
import time
import warnings
from itertools import pairwise

import numpy as np
import pycocotools.mask
import pytest
from coco_files import LICENCES, VOC_CLASSES, CocoFolder, box, picture, run_lengths
from hypothesis import given
from hypothesis import strategies as st
from oracles.coco import VOC_LABEL_OF
from pycocotools.coco import COCO

from misure.datasets.coco.protocol import (
    COCO_IDS,
    VOC_NAMES,
    annotated_classes,
    choose_images,
    class_ids,
    credit_of,
    read_annotations,
)
from misure.datasets.coco.shapes import drawn, sound
from misure.datasets.credit import UNKNOWN_LICENCE
from misure.errors import MisureError

LABELS = class_ids(list(VOC_CLASSES))


def test_labels_and_categories():
    assert len(VOC_NAMES) == len(COCO_IDS) == 21
    assert {category: label for label, category in enumerate(COCO_IDS) if label} == VOC_LABEL_OF
    assert [COCO_IDS[label] for label in LABELS] == list(VOC_CLASSES.values())
    assert LABELS == (6, 7, 8, 2, 10, 12, 15, 19)
    for name in ("bike", "background"):
        with pytest.raises(MisureError, match=f"dataset.classes: '{name}' is none of"):
            class_ids(["bus", name])


def indexed(pairs_by_image):
    """An index of images, given the (category, crowd) pairs of each."""
    coco = COCO()
    for image, pairs in pairs_by_image.items():
        coco.imgs[image] = {"id": image}
        coco.imgToAnns[image] = [{"category_id": category, "iscrowd": crowd} for category, crowd in pairs]
    return coco


ASKED = (15, 7, 8)
PAIRS = st.tuples(st.sampled_from([1, 3, 17, 4, 27]), st.integers(0, 1))
IMAGES = st.lists(st.sets(PAIRS, max_size=4).map(sorted), min_size=20, max_size=20).map(lambda f: dict(enumerate(f, 7)))


@given(found=IMAGES, per_class=st.integers(1, 6), seed=st.integers(0, 3), order=st.randoms())
def test_drawn_images(found, per_class, seed, order):
    coco = indexed(found)
    for image, pairs in found.items():
        expected = {VOC_LABEL_OF[category] for category, crowd in pairs if not crowd and category in VOC_LABEL_OF}
        assert annotated_classes(coco, image) == expected
    chosen = choose_images(coco, ASKED, per_class, seed)
    assert chosen == sorted(set(chosen))
    having = {label: {image for image in found if label in annotated_classes(coco, image)} for label in ASKED}
    alone = {label: choose_images(coco, [label], per_class, seed) for label in ASKED}
    for label, images in alone.items():
        assert set(images) <= having[label]
        assert len(images) == min(per_class, len(having[label]))
    assert chosen == sorted(set().union(*alone.values()))  # the draw of a class does not depend on the others
    assert set(chosen) <= set(choose_images(coco, ASKED, per_class + 1, seed))
    shuffled = list(found.items())
    order.shuffle(shuffled)
    assert choose_images(indexed(dict(shuffled)), ASKED, per_class, seed) == chosen


def test_seeds_and_classes_draw_different_images():
    coco = indexed({image: [(1, 0), (3, 0)] for image in range(200)})
    draws = [choose_images(coco, [label], 20, seed) for label in (15, 7) for seed in (0, 1, 2)]
    assert all(a != b for a, b in pairwise([*draws, draws[0]]))
    assert len(set().union(*draws)) > 80  # 120 draws of 200 images meet 90 on average


def test_credits(tmp_path):
    folder = CocoFolder(tmp_path)
    for licence in LICENCES:
        folder.add([(1, box(2, 2, 9, 9))], licence=licence)
    folder.write()
    coco, _ = read_annotations(folder.annotations)
    found = [credit_of(coco, image) for image in coco.imgs.values()]
    assert [credit.licence for credit in found] == [1, 2, 3, 4, 5, 6]
    assert [credit.showable for credit in found] == [False, False, False, True, True, False]
    assert found[3].licence_name == "by"
    assert found[3].licence_url == "http://creativecommons.org/licenses/by/2.0/"
    assert found[3].url == "http://example.org/4.jpg"


@pytest.mark.parametrize(
    "licences",
    [
        None,
        [],
        "by",
        [None, {"name": "no id"}],
        [{"id": 4, "name": "Attribution License"}],
        [{"id": 4, "name": "", "url": ""}, {"id": 0, "name": "", "url": ""}],
        [{"id": 4, "name": "mine", "url": "http://creativecommons.org/licenses/by-nc/2.0/"}],
    ],
)
@pytest.mark.parametrize("number", [4, 0, None, "4", [4]])
def test_unknown_licences_are_not_shown(tmp_path, licences, number):
    folder = CocoFolder(tmp_path)
    folder.add([(1, box(2, 2, 9, 9))], licence=number)
    folder.content["licenses"] = licences
    folder.write()
    coco, _ = read_annotations(folder.annotations)
    credit = credit_of(coco, coco.imgs[1])
    assert (credit.licence, credit.showable) == (UNKNOWN_LICENCE, False)
    assert credit.url == "http://example.org/1.jpg"


WHOLE = json.dumps({"images": [], "annotations": [], "categories": []})
CAPTIONS = {"images": [], "annotations": [{"image_id": 1, "id": 1, "caption": "A cow."}]}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "cannot be read"),
        (b"", "cannot be read"),
        (WHOLE[: len(WHOLE) // 2].encode(), "cannot be read"),
        (b"[" * 100_000, "cannot be read"),
        (b"\xff\xd8\xff\xe0 a JPEG", "cannot be read"),
        ([], "has no list of images and of annotations and of categories"),
        (CAPTIONS, "it has no list of categories"),
        (CAPTIONS | {"categories": []}, "no annotation that can be used: annotation 1: it has no category_id"),
        (CAPTIONS | {"categories": [], "annotations": []}, "no annotation that can be used: the list is empty"),
        (CAPTIONS | {"categories": [{"id": 3, "name": "lorry"}]}, "other categories than COCO: 3 is 'lorry'"),
        (CAPTIONS | {"categories": [{"id": 4, "name": "motorbike"}]}, "no annotation"),  # Pascal VOC's name will do
        (CAPTIONS | {"categories": [{"id": 4, "name": "motorcycle"}]}, "no annotation"),
    ],
)
def test_files_that_are_no_instance_annotations(tmp_path, content, reason):
    path = tmp_path / "a.json"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    with pytest.raises(MisureError, match=rf"^{path} .*{reason}.*$"):
        read_annotations(path)


POINTS = [2, 2, 9, 2, 9, 9]
MANY = 18 * 24


@pytest.mark.parametrize(
    ("segmentation", "reason"),
    [
        (None, "it has no segmentation"),
        ([], "its segmentation is empty"),
        (float("nan"), "it has no segmentation but nan"),
        ("[[2, 2, 9, 2, 9, 9]]", r"it has no segmentation but '[[2, 2, 9, 2, 9, 9]]'"),
        ([[2, 2, 9, 9]], "none of its polygons covers anything"),
        ([[*POINTS, "x", "y"]], "a coordinate of its polygons is 'x', no number"),
        ([POINTS, [*POINTS[:5], None]], "a coordinate of its polygons is None, no number"),
        ([POINTS, None], "its polygons hold None"),
        ([[3, 3] * 3], "none of its polygons covers anything"),
        ([[x + 24 for x in POINTS]], "none of its polygons covers anything"),
        ([[*POINTS[:5], float("nan")]], "a coordinate of its polygons is nan, no number"),
        ([[*POINTS[:5], -1e9]], "none of its polygons covers anything"),
        ({"counts": [10, MANY - 10], "size": [24, 18]}, "its run lengths are not of the image's size"),
        ({"size": [18, 24]}, "its run lengths are no list of whole numbers"),
        ({"counts": [10, -10, MANY], "size": [18, 24]}, "its run lengths are no list of whole numbers"),
        ({"counts": "[26<0000000[8\0", "size": [18, 24]}, "its run lengths are no list of whole numbers"),
        ({"counts": "[26<0000000[8"[:-1] + "o", "size": [18, 24]}, "its run lengths are no list of whole numbers"),
        ({"counts": "o" * 10**6 + "1", "size": [18, 24]}, "its run lengths are no list of whole numbers"),  # linear
        ({"counts": "ooooooo0", "size": [18, 24]}, "its run lengths are no list of whole numbers"),
        ({"counts": [10, "many"], "size": [18, 24]}, "its run lengths are no list of whole numbers"),
        ({"counts": [10, 20], "size": [18, 24]}, "its run lengths do not fill the image"),
        ({"counts": [MANY], "size": [18, 24]}, "it covers nothing"),
    ],
)
def test_shapes_that_cannot_be_drawn(tmp_path, segmentation, reason):
    folder = CocoFolder(tmp_path)
    folder.add([(3, segmentation), (1, [POINTS])])
    folder.write()
    start = time.process_time()
    coco, faults = read_annotations(folder.annotations)
    assert time.process_time() - start < 5
    assert faults == [f"annotation 1: {reason}"]
    assert annotated_classes(coco, 1) == {15}


def test_sound_parts_of_a_polygon_remain():
    assert sound([[1, 1], POINTS, [2, 2, 9, 9]], 18, 24) == [POINTS]
    assert sound([[-240, 0, 240, 0, 0, 240]], 18, 24) == [[-240, 0, 240, 0, 0, 240]]


def masks_of_pycocotools(content):
    """What pycocotools draws of each annotation, with plain numbers."""
    coco = COCO()
    coco.dataset = content
    coco.createIndex()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "__array__ implementation", DeprecationWarning)
        return [coco.annToMask(annotation) for annotation in content["annotations"]]


MASK = picture()[..., 0] > 128
PACKED = pycocotools.mask.encode(np.asfortranarray(MASK, np.uint8))["counts"].decode()
OTHER_TYPES = {
    "as they are": lambda content: content,
    "40.0": lambda content: retyped(content, float),
    "text": lambda content: retyped(content, str),
    "40.0 as text": lambda content: retyped(content, lambda n: f" {float(n)} "),
    "UTF-16": lambda content: content,
    "images by number, annotations by text": lambda content: (
        content | {"annotations": retyped(content, str)["annotations"]}
    ),
}


def retyped(value, kind, key=""):
    if isinstance(value, dict):
        return {k: retyped(v, kind, k) for k, v in value.items()}
    if isinstance(value, list):
        return [retyped(v, kind, key) for v in value]
    return kind(value) if isinstance(value, int | float) and key != "license" else value


@pytest.mark.parametrize("types", OTHER_TYPES)
def test_numbers_of_other_types_are_the_same_numbers(tmp_path, types):
    shapes = [[POINTS], [POINTS, [12.5, 1, 20, 3.25, 15, 14]], run_lengths(MASK)]
    folder = CocoFolder(tmp_path)
    folder.add([(3, shape) for shape in shapes])
    folder.add([(1, [POINTS])], crowds=[(17, run_lengths(MASK))])
    expected = masks_of_pycocotools(copy.deepcopy(folder.content))
    text = json.dumps(OTHER_TYPES[types](folder.content))
    folder.annotations.write_bytes(text.encode("utf-16" if "UTF-16" in types else "utf-8-sig"))
    coco, faults = read_annotations(folder.annotations)
    assert faults == []
    assert sorted(coco.imgs) == [1, 2]
    assert [(image["height"], image["width"]) for image in coco.imgs.values()] == [(18, 24), (18, 24)]
    found = [annotation for image in (1, 2) for annotation in coco.imgToAnns[image]]
    assert [a["iscrowd"] for a in found] == [0, 0, 0, 0, 1]
    assert [a["category_id"] for a in found] == [3, 3, 3, 1, 17]
    for annotation, mask in zip(found, expected, strict=True):
        assert np.array_equal(drawn(annotation["segmentation"], 18, 24), mask)
    assert annotated_classes(coco, 1) == {7}


@pytest.mark.parametrize(
    ("segmentation", "same"),
    [
        ({"counts": PACKED, "size": [18, 24]}, run_lengths(MASK)),
        ({"counts": PACKED, "size": ["18", 24.0]}, run_lengths(MASK)),
        ({"counts": [str(n) for n in run_lengths(MASK)["counts"]], "size": [18, 24]}, run_lengths(MASK)),
        (POINTS, [POINTS]),
        ([[f"{n:.1f}" for n in POINTS]], [POINTS]),
        ([["2", 2, "9", 2.0, "9e0", "+9"]], [POINTS]),
    ],
)
def test_shapes_as_tools_write_them(segmentation, same):
    assert np.array_equal(drawn(sound(segmentation, 18, 24), 18, 24), drawn(sound(same, 18, 24), 18, 24))


@given(
    lengths=st.lists(st.integers(0, 40), min_size=2, max_size=60).filter(lambda n: sum(n[1::2]) > 0),
    big=st.integers(0, 10**6),
)
def test_packed_run_lengths_are_those_of_pycocotools(lengths, big):
    lengths = [*lengths, big]
    height, width = sum(lengths), 1
    packed = pycocotools.mask.frPyObjects({"counts": lengths, "size": [height, width]}, height, width)
    assert sound({"counts": packed["counts"].decode(), "size": [height, width]}, height, width)["counts"] == lengths


@pytest.mark.parametrize(
    ("crowd", "expected"),
    [
        *((crowd, 1) for crowd in (True, "1", 1.0, "true")),
        *((crowd, 0) for crowd in (False, "0", "False", None, float("nan"))),
        ("maybe", "its iscrowd is 'maybe', neither 0 nor 1"),
        (2, "its iscrowd is 2, neither 0 nor 1"),
    ],
)
def test_crowds_as_tools_write_them(tmp_path, crowd, expected):
    folder = CocoFolder(tmp_path)
    folder.add([(3, [POINTS]), (1, [POINTS])])
    folder.content["annotations"][0]["iscrowd"] = crowd
    del folder.content["annotations"][1]["iscrowd"]
    folder.write()
    coco, faults = read_annotations(folder.annotations)
    if isinstance(expected, str):
        assert faults == [f"annotation 1: {expected}"]
    else:
        assert (faults, [a["iscrowd"] for a in coco.imgToAnns[1]]) == ([], [expected, 0])


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"height": "tall"}, "its height is 'tall', no whole number"),
        ({"height": 40.5}, "its height is 40.5, no whole number"),
        ({"height": None}, "its height is null"),
        ({"width": True}, "its width is True, no whole number"),
        ({"width": float("nan")}, "its width is nan, no whole number"),
        ({"width": "9" * 5000}, "its width is '99999"),
        ({"width": -24}, "it has no pixels"),
        ({"id": [1]}, "its id is [1], neither a whole number nor text"),
        ({"id": ""}, "its id is '', neither a whole number nor text"),
        ({"file_name": 12}, "its file_name is 12, no name"),
        ({"file_name": "../outside.jpg"}, "its file_name is '../outside.jpg', which is no file of the folder"),
        ({"file_name": "/etc/passwd"}, "its file_name is '/etc/passwd', which is no file of the folder"),
        ({"file_name": "a\0b.jpg"}, r"its file_name is 'a\x00b.jpg', which is no file of the folder"),
    ],
)
def test_what_is_wrong_with_a_value_is_said(tmp_path, changes, reason):
    folder = CocoFolder(tmp_path)
    folder.add([(3, [POINTS])])
    folder.add([(3, [POINTS])])
    folder.content["images"][0] |= changes
    folder.write()
    coco, (fault, follows) = read_annotations(folder.annotations)
    assert list(coco.imgs) == [2]
    assert reason in fault
    assert follows == "annotation 1: image 1 is not listed"


def test_identities(tmp_path):
    """Text is an identity as well; one that two files share is none; the same image twice is one."""
    folder = CocoFolder(tmp_path)
    for _ in range(4):
        folder.add([(3, [POINTS])])
    images, annotations = folder.content["images"], folder.content["annotations"]
    images[0]["id"] = annotations[0]["image_id"] = "street_1"
    images[2]["id"] = 2
    images.append(dict(images[3]))
    folder.write()
    coco, faults = read_annotations(folder.annotations)
    assert list(coco.imgs) == ["street_1", 4]
    assert choose_images(coco, LABELS, 9, 0) == [4, "street_1"]
    assert faults == ["image 2: 2 images have this id"] + [f"annotation {n}: image {n} is not listed" for n in (2, 3)]


def test_entries_that_belong_nowhere(tmp_path):
    folder = CocoFolder(tmp_path)
    for _ in range(4):
        folder.add([(1, [POINTS])])
    del folder.content["images"][1]["height"]
    folder.content["images"][2] |= {"width": 0}
    del folder.content["images"][3]["file_name"]
    folder.content["images"].append(None)
    del folder.content["annotations"][3]["id"]
    folder.annotate(99, 1, [POINTS])
    folder.write()
    coco, faults = read_annotations(folder.annotations)
    assert faults == [
        "image 2: it has no height",
        "image 3: it has no pixels",
        "image 4: it has no file_name",
        "image at place 4: it is no list of properties",
        "annotation 2: image 2 is not listed",
        "annotation 3: image 3 is not listed",
        "annotation at place 3: it has no id",
        "annotation 5: image 99 is not listed",
    ]
    assert list(coco.imgs) == [1]
    assert len(coco.anns) == 1


def places(content, path=()):
    """Every place in a JSON document."""
    if path:
        yield path
    inner = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, value in inner:
        yield from places(value, (*path, key))


JUNK = st.sampled_from([None, -1, 0, 10**30, 1.5, float("nan"), True, "", "x", [], {}, [[]], [None], {"id": None}])


@given(data=st.data())
def test_any_junk_in_a_file_is_read_over_or_refused(tmp_path_factory, data):
    folder = CocoFolder(tmp_path_factory.mktemp("junk"))
    for licence in (4, 5):
        crowd = run_lengths(np.eye(18, 24, dtype=bool))
        folder.add([(1, [POINTS]), (27, [POINTS])], [(3, crowd)], picture(), licence=licence)
    content = copy.deepcopy(folder.content)
    for _ in range(data.draw(st.integers(1, 3))):
        path = data.draw(st.sampled_from(list(places(content))))
        inner = content
        for key in path[:-1]:
            inner = inner[key]
        inner[path[-1]] = data.draw(JUNK)
    folder.content = content
    folder.write()
    try:
        coco, _ = read_annotations(folder.annotations)
    except MisureError:
        return
    for image in choose_images(coco, LABELS, 5, 0):
        assert annotated_classes(coco, image) <= set(range(21))
        assert credit_of(coco, coco.imgs[image]).licence in {UNKNOWN_LICENCE, 4, 5}
