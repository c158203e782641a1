"""Volumes: TransUNet's evaluation with answers known by hand, and HD95 against pairs of voxels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.ndimage import zoom

from misure.errors import MisureError
from misure.evaluation import volumes
from misure.evaluation.volumes import COLUMNS, VolumeDataset, hd95, score, score_volumes

pytest.importorskip("medpy", reason="HD95 is MedPy's: pip install 'misure[synapse]'")

NAMES = ("background", "aorta", "liver")


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
    """Volumes kept in a dictionary."""

    class_names: Sequence[str] = NAMES

    def __init__(self, truths: dict[str, np.ndarray]) -> None:
        self.truths = truths
        self.read: list[str] = []

    @property
    def cases(self) -> Sequence[str]:
        return tuple(self.truths)

    def volume(self, case: str) -> tuple[np.ndarray, np.ndarray]:
        self.read.append(case)
        return (self.truths[case] / 10).astype(np.float32), self.truths[case]


def labels(*shape: int) -> np.ndarray:
    """A liver of several slices with an aorta beside it."""
    truth = np.zeros(shape, np.uint8)
    depth, height, width = shape
    truth[1:, height // 4 : height // 2, width // 4 : 3 * width // 4] = 2
    truth[: depth - 1, 3 * height // 4 :, width // 2 :] = 1
    return truth


def test_perfect_predictions_score_one_and_zero() -> None:
    dataset = Toy({"case0001": labels(5, 16, 16), "case0002": labels(3, 16, 16)})
    frame = score_volumes(dataset.truths.__getitem__, dataset)
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


@pytest.mark.parametrize("shape", [(3, 13, 17), (2, 31, 9), (1, 8, 8), (4, 7, 5)])
def test_predictions_are_zoomed_back_as_transunet_does(shape: tuple[int, int, int]) -> None:
    """TransUNet's ``test_single_volume``, line by line."""
    slices = labels(shape[0], 8, 8)
    truth = np.stack([s if s.shape == shape[1:] else zoom(s, (shape[1] / 8, shape[2] / 8), order=0) for s in slices])
    frame = score_volumes(lambda _case: slices, Toy({"a": truth}))
    present = frame["true_voxels"] > 0
    assert (frame.loc[present, "dice"] == 1).all()
    assert (frame["predicted_voxels"] == frame["true_voxels"]).all()


def test_transunets_own_files(tmp_path: Path) -> None:
    """The Synapse dataset on a volume as TransUNet publishes it."""
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
    assert isinstance(dataset, VolumeDataset)
    frame = score_volumes(lambda _case: truth, dataset)
    assert frame["class_name"].tolist()[::7] == ["aorta", "stomach"]
    present = frame["class_id"].isin([1, 2, 8])
    assert (frame.loc[present, "dice"] == 1).all()
    assert frame.loc[~present, ["dice", "hd95"]].isna().all(axis=None)


class Bad(Toy):
    """Its one volume is what the test says."""

    def __init__(self, image: np.ndarray, truth: np.ndarray) -> None:
        super().__init__({"case0009": truth})
        self.image = image

    def volume(self, case: str) -> tuple[np.ndarray, np.ndarray]:
        return self.image, self.truths[case]


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        (Toy({}), "no volume to evaluate"),
        (Bad(np.zeros((2, 8, 8), np.float32), np.zeros((3, 8, 8), int)), r"case0009.*\(2, 8, 8\).*\(3, 8, 8\)"),
        (Bad(np.zeros((8, 8), np.float32), np.zeros((8, 8), int)), "case0009.*Z x H x W"),
        (Bad(np.zeros((0, 8, 8), np.float32), np.zeros((0, 8, 8), int)), "case0009"),
        (Bad(np.zeros((1, 8, 8), np.float32), np.full((1, 8, 8), 11)), "case0009.*11.*3 classes"),
        (Bad(np.zeros((1, 8, 8), np.float32), np.full((1, 8, 8), -1)), "case0009.*-1"),
    ],
)
def test_volumes_that_cannot_be_used(dataset: Toy, message: str) -> None:
    with pytest.raises(MisureError, match=message):
        score_volumes(dataset.truths.__getitem__, dataset)


def test_a_missing_library_is_noticed_before_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(volumes, "find_spec", lambda name: None if name == "medpy" else object())
    dataset = Toy({"a": labels(2, 8, 8)})
    with pytest.raises(MisureError, match=r"needs medpy.*misure\[synapse\]"):
        score_volumes(dataset.truths.__getitem__, dataset)
    assert dataset.read == []


@pytest.mark.parametrize(
    ("predicted", "true"),
    [
        (np.eye(4, dtype=np.uint8) * 255, np.eye(4, dtype=bool)),
        (np.eye(4).tolist(), np.eye(4, dtype=">i2")),
        (torch.eye(4), torch.eye(4, dtype=torch.bool)),
    ],
    ids=["bytes", "lists", "tensors"],
)
def test_masks_of_any_numbers_are_masks(predicted, true):
    assert score(predicted, true)[0] == 1


@pytest.mark.parametrize(
    ("predicted", "message"),
    [
        (np.ones((1, 4), bool), r"the prediction has shape \(1, 4\), the truth \(4, 4\)"),
        (np.full((4, 4), 0.5), "predicted holds values between 0 and 1"),
        (np.full((4, 4), np.nan), "predicted holds values between 0 and 1, below 0 or NaN"),
        (None, "predicted is a NoneType"),
    ],
)
def test_what_is_no_mask_has_no_score(predicted, message):
    """A single slice was taken for every slice."""
    with pytest.raises(MisureError, match=message):
        score(predicted, np.eye(4, dtype=bool))
