"""What is predicted in every validation image: exact counts, and a file that is made anew when it is damaged."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from misure.datasets.credit import Credit
from misure.models.compute import Compute
from misure.models.wrapper import SegmentationModel
from misure.sweep.predictions import Predictions, predict_all

N, LABELS, UNKNOWN = 7, 4, 255


class Images:
    """Images whose pixel values are the class that the toy network predicts."""

    def __init__(self) -> None:
        generator = np.random.default_rng(0)
        self.predicted = generator.integers(0, LABELS, (N, 5, 6))
        self.masks = generator.integers(0, LABELS, (N, 5, 6))
        self.masks[2, 0] = UNKNOWN

    def __len__(self) -> int:
        return N

    def __getitem__(self, index: int):
        image = torch.from_numpy(self.predicted[index])[None].float()
        return {"image": image, "mask": torch.from_numpy(self.masks[index])}

    def group(self, index: int) -> str:
        return f"volume {index // 3}"


class Volumes(Images):
    """The same as slices of volumes."""

    class_names = tuple(str(c) for c in range(LABELS))
    cases = ("volume 0", "volume 1")

    def volume(self, case: str):
        raise NotImplementedError

    def resize(self, image):
        raise NotImplementedError


def network(images):
    return torch.nn.functional.one_hot(images[:, 0].long(), LABELS).movedim(-1, 1).float()


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_counts_are_exact(batch_size):
    images = Images()
    found = predict_all(SegmentationModel(network), images, Compute("32", batch_size))
    for i in range(N):
        for c in range(LABELS):
            assert found.predicted[i, c] == (images.predicted[i] == c).sum()
            assert found.true[i, c] == (images.masks[i] == c).sum()
            assert found.overlap[i, c] == ((images.predicted[i] == c) & (images.masks[i] == c)).sum()
    assert found.groups == tuple(f"volume {i // 3}" for i in range(N))
    assert found.labels.size == 0  # kept for volumes alone
    assert np.array_equal(found.annotated, found.true > 0)
    assert found.showable.all()


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_predictions_of_volumes_are_kept(batch_size):
    images = Volumes()
    found = predict_all(SegmentationModel(network), images, Compute("32", batch_size))
    assert np.array_equal(found.labels, images.predicted)
    assert np.array_equal(found.of_group("volume 1"), images.predicted[3:6])


class Photographs(Images):
    """Images of two sizes, with annotations that the masks do not show and authors."""

    def __getitem__(self, index: int):
        entry = super().__getitem__(index)
        return entry if index % 3 else {name: tensor.mT.clone() for name, tensor in entry.items()}

    def annotated(self, index: int) -> set[int]:
        return {1, index % LABELS, 200}

    def credit(self, index: int) -> Credit:
        return Credit(index % 7, "a licence", "", "")


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_images_of_several_sizes_with_authors(batch_size):
    images = Photographs()
    found = predict_all(SegmentationModel(network), images, Compute("32", batch_size))
    plain = predict_all(SegmentationModel(network), Images(), Compute("32", 2))
    for name in ("predicted", "true", "overlap"):  # turning an image by 90 degrees moves no count
        assert np.array_equal(getattr(found, name), getattr(plain, name))
    for i in range(N):
        assert set(np.flatnonzero(found.annotated[i])) == {1, i % LABELS}  # the network has no class 200
        assert found.showable[i] == (i % 7 in {0, 4, 5})


def test_a_file_brings_it_back(tmp_path):
    found = predict_all(SegmentationModel(network), Images(), Compute("32", 2))
    path = tmp_path / "below" / "predictions.npz"
    found.save(path)
    again = Predictions.load(path)
    assert again is not None
    for name in ("labels", "predicted", "true", "overlap", "annotated", "showable"):
        assert np.array_equal(getattr(again, name), getattr(found, name))
    assert again.groups == found.groups


@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "garbled"])
def test_a_damaged_file_holds_none(tmp_path, damage):
    path = tmp_path / "predictions.npz"
    if damage != "missing":
        predict_all(SegmentationModel(network), Images(), Compute("32", 2)).save(path)
        content = path.read_bytes()
        path.write_bytes({"empty": b"", "cut": content[: len(content) // 2], "garbled": b"x" * 500}[damage])
    assert Predictions.load(path) is None


def test_a_flipped_bit_is_noticed_wherever_it_is(tmp_path):
    """Whatever zlib and zipfile raise of it: there is nothing, or what was saved."""
    path = tmp_path / "predictions.npz"
    saved = predict_all(SegmentationModel(network), Images(), Compute("32", 2))
    saved.save(path)
    content = path.read_bytes()
    lost = 0
    for place in range(0, len(content), 5):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1 << place % 8]) + content[place + 1 :])
        found = Predictions.load(path)
        lost += found is None
        assert found is None or (found.groups == saved.groups and np.array_equal(found.predicted, saved.predicted))
    assert lost > len(content) / 5 / 2
