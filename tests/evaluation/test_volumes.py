"""Volumes: TransUNet's evaluation with answers known by hand, and HD95 against pairs of voxels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.ndimage import zoom
from torch import Tensor, nn

from misure.errors import MisureError
from misure.evaluation import volumes
from misure.evaluation.volumes import COLUMNS, evaluate_volumes, hd95, predict_volume, score
from misure.models.compute import Compute
from misure.models.wrapper import SegmentationModel, frozen

pytest.importorskip("medpy", reason="HD95 is MedPy's: pip install 'misure[synapse]'")

NAMES = ("background", "aorta", "liver")
COMPUTE = Compute(precision="32", batch_size=2)


def surface(mask: np.ndarray) -> list[tuple[int, ...]]:
    """Voxels of which a face neighbour is outside the object; beyond the array is outside."""
    inside = {tuple(int(i) for i in index) for index in np.argwhere(mask)}
    steps = [tuple(sign * (axis == a) for a in range(mask.ndim)) for axis in range(mask.ndim) for sign in (-1, 1)]
    return [v for v in inside if any(tuple(i + d for i, d in zip(v, s, strict=True)) not in inside for s in steps)]


def hd95_oracle(first: np.ndarray, second: np.ndarray) -> float:
    """Every surface voxel against every other, both directions pooled, percentile by linear interpolation."""
    one, two = surface(first), surface(second)
    pooled = sorted(min(math.dist(a, b) for b in to) for start, to in ((one, two), (two, one)) for a in start)
    place = 0.95 * (len(pooled) - 1)
    low, high = pooled[math.floor(place)], pooled[math.ceil(place)]
    return low + (high - low) * (place - math.floor(place))


def masks(shape: tuple[int, ...]) -> st.SearchStrategy[np.ndarray]:
    return arrays(bool, shape).filter(np.any)


@given(masks((3, 5, 4)), masks((3, 5, 4)))
def test_hd95_is_the_pooled_percentile(first: np.ndarray, second: np.ndarray) -> None:
    # 1e-12: both are square roots of the same integers, interpolated in another order.
    assert hd95(first, second) == pytest.approx(hd95_oracle(first, second), abs=1e-12)
    assert hd95(first, second) == hd95(second, first)


@given(masks((3, 4, 3)), masks((3, 4, 3)), st.tuples(*[st.integers(0, 3)] * 6))
def test_cropping_changes_nothing(first: np.ndarray, second: np.ndarray, margin: tuple[int, ...]) -> None:
    from medpy.metric.binary import hd95 as uncropped

    before, after = margin[:3], margin[3:]
    pad = list(zip(before, after, strict=True))
    first, second = np.pad(first, pad), np.pad(second, pad)
    assert hd95(first, second) == uncropped(first, second)


def test_hd95_by_hand() -> None:
    """Two parallel plates of 4 x 5 voxels, three apart, one of them with a far voxel: 41 distances, one of them far."""
    first, second = np.zeros((2, 12, 9, 9), bool)
    first[1, 2:6, 2:7] = True
    second[4, 2:6, 2:7] = True
    assert hd95(first, second) == 3.0
    second[11, 2, 2] = True  # 10 from the first plate; the 95th percentile ignores it: it is 2.4 % of the distances
    assert hd95(first, second) == 3.0
    assert hd95(first, first) == 0.0


def test_hd95_pools_both_directions() -> None:
    """Distances 0, 1, 2 one way and 0 the other; the larger of two percentiles, as in MONAI, would be 1.9."""
    first, second = np.zeros((2, 1, 1, 6), bool)
    first[0, 0, :3] = True
    second[0, 0, 0] = True
    assert hd95(first, second) == pytest.approx(1.85)


MASK = np.zeros((2, 3, 3), bool)
MASK[0, 1, 1:] = True
EMPTY = np.zeros_like(MASK)
NAN = math.nan


@pytest.mark.parametrize(
    ("predicted", "true", "default", "original"),
    [
        (MASK, MASK, (1.0, 0.0), (1.0, 0.0)),
        (MASK, EMPTY, (0.0, NAN), (1.0, 0.0)),
        (EMPTY, MASK, (0.0, NAN), (0.0, 0.0)),
        (EMPTY, EMPTY, (NAN, NAN), (0.0, 0.0)),
    ],
    ids=["both", "predicted only", "true only", "neither"],
)
def test_empty_masks(
    predicted: np.ndarray, true: np.ndarray, default: tuple[float, float], original: tuple[float, float]
) -> None:
    assert score(predicted, true) == pytest.approx(default, nan_ok=True, abs=0)
    assert score(predicted, true, empty_truth_counts=True) == pytest.approx(original, abs=0)


def test_dice_by_hand() -> None:
    other = MASK.copy()
    other[0, 1, 2], other[1] = False, True
    assert score(other, MASK)[0] == 2 * 1 / (10 + 2)


class Toy:
    """Volumes kept in a dictionary; the image of a class is its index over ten."""

    class_names: Sequence[str] = NAMES

    def __init__(self, truths: dict[str, np.ndarray], size: int) -> None:
        self.truths, self.size = truths, size
        self.read: list[str] = []

    @property
    def cases(self) -> Sequence[str]:
        return tuple(self.truths)

    def volume(self, case: str) -> tuple[np.ndarray, np.ndarray]:
        self.read.append(case)
        return (self.truths[case] / 10).astype(np.float32), self.truths[case]

    def resize(self, image: np.ndarray) -> np.ndarray:
        shape = (self.size, self.size)
        factors = [new / old for new, old in zip(shape, image.shape, strict=True)]
        return image if image.shape == shape else zoom(image, factors, order=3)


class Reader(nn.Module):
    """Predicts the class that the image's grey value spells; ``wrong`` swaps two of them."""

    def __init__(self, classes: int = 3, *, wrong: bool = False) -> None:
        super().__init__()
        self.values = torch.arange(classes) / 10
        self.order = [0, 2, 1] if wrong else list(range(classes))
        self.shapes: list[tuple[int, ...]] = []

    def forward(self, images: Tensor) -> Tensor:
        self.shapes.append(tuple(images.shape))
        logits = -(images.mean(1, keepdim=True) - self.values.view(1, -1, 1, 1)).abs()
        return logits[:, self.order]


def labels(*shape: int) -> np.ndarray:
    """A liver of several slices with an aorta beside it."""
    truth = np.zeros(shape, np.uint8)
    depth, height, width = shape
    truth[1:, height // 4 : height // 2, width // 4 : 3 * width // 4] = 2
    truth[: depth - 1, 3 * height // 4 :, width // 2 :] = 1
    return truth


def _scores(frame: pd.DataFrame, column: str = "dice") -> dict[tuple[Any, Any], float]:
    return {(row["case"], row["class_id"]): row[column] for _, row in frame.iterrows()}


def test_a_network_that_knows_the_truth_scores_one_and_zero() -> None:
    dataset = Toy({"case0001": labels(5, 16, 16), "case0002": labels(3, 16, 16)}, 16)
    network = Reader()
    frame = evaluate_volumes(SegmentationModel(network), dataset, COMPUTE, progress=False)
    assert tuple(frame.columns) == COLUMNS
    assert list(zip(frame["case"], frame["class_id"], frame["class_name"], strict=True)) == [
        ("case0001", 1, "aorta"),
        ("case0001", 2, "liver"),
        ("case0002", 1, "aorta"),
        ("case0002", 2, "liver"),
    ]
    assert (frame["dice"] == 1).all()
    assert (frame["hd95"] == 0).all()
    assert (frame["predicted_voxels"] == frame["true_voxels"]).all()
    assert frame["true_voxels"].tolist() == [4 * 4 * 8, 4 * 4 * 8, 2 * 4 * 8, 2 * 4 * 8]
    assert dataset.read == ["case0001", "case0002"]
    assert {shape[1:] for shape in network.shapes} == {(1, 16, 16)}
    assert max(shape[0] for shape in network.shapes) == 2


def test_several_classes_against_sets_of_voxels() -> None:
    """A network that confuses the two organs: Dice 0, and HD95 as the oracle says."""
    truth = labels(4, 12, 12)
    frame = evaluate_volumes(SegmentationModel(Reader(wrong=True)), Toy({"a": truth}, 12), COMPUTE, progress=False)
    assert _scores(frame) == {("a", 1): 0.0, ("a", 2): 0.0}
    expected = hd95_oracle(truth == 1, truth == 2)
    assert _scores(frame, "hd95") == pytest.approx({("a", 1): expected, ("a", 2): expected}, abs=1e-12)


@pytest.mark.parametrize("quirk", [False, True])
def test_an_absent_organ(quirk: bool) -> None:
    truth = labels(4, 12, 12)
    truth[truth == 1] = 0
    frame = evaluate_volumes(
        SegmentationModel(Reader(wrong=True)),
        Toy({"a": truth}, 12),
        COMPUTE,
        empty_truth_counts=quirk,
        progress=False,
    )
    assert frame["empty_truth_counts"].tolist() == [quirk] * 2
    assert _scores(frame) == {("a", 1): float(quirk), ("a", 2): 0.0}  # the liver was called aorta
    if quirk:
        assert (frame["hd95"] == 0).all()
    else:
        assert frame["hd95"].isna().all()


@pytest.mark.parametrize("shape", [(3, 13, 17), (2, 31, 9), (1, 8, 8), (4, 7, 5)])
def test_odd_sizes_are_zoomed_there_and_back(shape: tuple[int, int, int]) -> None:
    truth = labels(*shape)
    network = Reader()
    image = (truth / 10).astype(np.float32)
    with frozen(SegmentationModel(network), COMPUTE, torch.device("cpu")) as lent:
        prediction = predict_volume(lent, image, Toy({}, 8).resize, 3)
    assert prediction.shape == shape
    assert prediction.dtype == np.uint8
    assert {s[1:] for s in network.shapes} == {(1, 8, 8)}
    for number, plane in enumerate(image):  # TransUNet's test_single_volume, line by line
        small = plane if plane.shape == (8, 8) else zoom(plane, (8 / shape[1], 8 / shape[2]), order=3)
        found = np.abs(small[None] - np.array([0, 0.1, 0.2], np.float32)[:, None, None]).argmin(0)
        back = found if plane.shape == (8, 8) else zoom(found, (shape[1] / 8, shape[2] / 8), order=0)
        np.testing.assert_array_equal(prediction[number], back)


def test_zooming_costs_little_on_a_large_object() -> None:
    truth = labels(3, 48, 64)
    frame = evaluate_volumes(SegmentationModel(Reader()), Toy({"a": truth}, 20), COMPUTE, progress=False)
    scores = _scores(frame)
    assert scores["a", 1] > 0.9
    assert 0.9 < scores["a", 2] < 1  # rows and columns at its border are lost or won


def test_transunets_own_files(tmp_path: Path) -> None:
    """The Synapse dataset on a volume as TransUNet publishes it, with a network that reads grey values."""
    h5py = pytest.importorskip("h5py")
    synapse = pytest.importorskip("misure.datasets.synapse.dataset")
    folder = tmp_path / "synapse"
    (folder / "train_npz").mkdir(parents=True)
    (folder / "test_vol_h5").mkdir()
    truth = labels(3, 12, 12)
    truth[0, :2, :2] = 8
    with h5py.File(folder / "test_vol_h5" / "case0001.npy.h5", "w") as file:
        file["image"], file["label"] = (truth / 10).astype(np.float32), truth.astype(np.float32)
    dataset = synapse.SynapseDataset("val", tmp_path, size=12)
    frame = evaluate_volumes(SegmentationModel(Reader(9)), dataset, COMPUTE, progress=False)
    assert frame["class_name"].tolist()[::7] == ["aorta", "stomach"]
    present = frame["class_id"].isin([1, 2, 8])
    assert (frame.loc[present, "dice"] == 1).all()
    assert frame.loc[~present, ["dice", "hd95"]].isna().all(axis=None)


def test_the_network_comes_back_as_it_was() -> None:
    network = Reader().train()
    evaluate_volumes(SegmentationModel(network), Toy({"a": labels(2, 8, 8)}, 8), COMPUTE, progress=False)
    assert network.training


def test_batches_do_not_change_the_scores() -> None:
    dataset = Toy({"a": labels(5, 13, 11)}, 8)
    frames = [
        evaluate_volumes(SegmentationModel(Reader()), dataset, Compute("32", size), progress=False)
        for size in (1, 3, "auto")
    ]
    for frame in frames[1:]:
        pd.testing.assert_frame_equal(frame, frames[0])


def test_running_out_of_memory_halves_the_batch() -> None:
    class Small(Reader):
        def forward(self, images: Tensor) -> Tensor:
            if len(images) > 1:
                raise torch.OutOfMemoryError("out of memory")
            return super().forward(images)

    with pytest.warns(RuntimeWarning, match="batches of 1"):
        frame = evaluate_volumes(SegmentationModel(Small()), Toy({"a": labels(3, 8, 8)}, 8), COMPUTE, progress=False)
    assert (frame["dice"] == 1).all()


def test_progress(capsys: pytest.CaptureFixture[str]) -> None:
    dataset = Toy({"a": labels(2, 8, 8)}, 8)
    evaluate_volumes(SegmentationModel(Reader()), dataset, COMPUTE, progress=False)
    assert capsys.readouterr().err == ""
    evaluate_volumes(SegmentationModel(Reader()), dataset, COMPUTE)
    assert "1/1" in capsys.readouterr().err


class Bad(Toy):
    """Its one volume is what the test says."""

    def __init__(self, image: np.ndarray, truth: np.ndarray) -> None:
        super().__init__({"case0009": truth}, 8)
        self.image = image

    def volume(self, case: str) -> tuple[np.ndarray, np.ndarray]:
        return self.image, self.truths[case]


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        (Toy({}, 8), "no volume to evaluate"),
        (Bad(np.zeros((2, 8, 8), np.float32), np.zeros((3, 8, 8), int)), r"case0009.*\(2, 8, 8\).*\(3, 8, 8\)"),
        (Bad(np.zeros((8, 8), np.float32), np.zeros((8, 8), int)), "case0009.*Z x H x W"),
        (Bad(np.zeros((0, 8, 8), np.float32), np.zeros((0, 8, 8), int)), "case0009"),
        (Bad(np.zeros((1, 8, 8), np.float32), np.full((1, 8, 8), 11)), "case0009.*11.*3 classes"),
        (Bad(np.zeros((1, 8, 8), np.float32), np.full((1, 8, 8), -1)), "case0009.*-1"),
    ],
)
def test_volumes_that_cannot_be_used(dataset: Toy, message: str) -> None:
    with pytest.raises(MisureError, match=message):
        evaluate_volumes(SegmentationModel(Reader()), dataset, COMPUTE, progress=False)


def test_a_network_of_other_classes() -> None:
    with pytest.raises(MisureError, match="predicts 5 classes, the dataset has 3"):
        evaluate_volumes(SegmentationModel(Reader(5)), Toy({"a": labels(2, 8, 8)}, 8), COMPUTE, progress=False)


def test_a_missing_library_is_noticed_before_predicting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(volumes, "find_spec", lambda name: None if name == "medpy" else object())
    dataset = Toy({"a": labels(2, 8, 8)}, 8)
    with pytest.raises(MisureError, match=r"needs medpy.*misure\[synapse\]"):
        evaluate_volumes(SegmentationModel(Reader()), dataset, COMPUTE, progress=False)
    assert dataset.read == []
