"""What is predicted in every validation image: exact counts, and a file that is made anew when it is damaged."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from misure.compute import Compute
from misure.errors import MisureError
from misure.model import SegmentationModel
from misure.sweep.survey import Survey, take_survey

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


def network(images):
    return torch.nn.functional.one_hot(images[:, 0].long(), LABELS).movedim(-1, 1).float()


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_counts_are_exact(batch_size):
    images = Images()
    found = take_survey(SegmentationModel(network), images, Compute("32", batch_size))
    for i in range(N):
        for c in range(LABELS):
            assert found.predicted[i, c] == (images.predicted[i] == c).sum()
            assert found.true[i, c] == (images.masks[i] == c).sum()
            assert found.overlap[i, c] == ((images.predicted[i] == c) & (images.masks[i] == c)).sum()
    assert found.groups == tuple(f"volume {i // 3}" for i in range(N))
    assert np.array_equal(found.predictions, images.predicted)
    assert np.array_equal(found.of_group("volume 1"), images.predicted[3:6])


def test_a_file_brings_it_back(tmp_path):
    found = take_survey(SegmentationModel(network), Images(), Compute("32", 2))
    path = tmp_path / "below" / "survey.npz"
    found.save(path)
    again = Survey.load(path)
    assert again is not None
    for name in ("predictions", "predicted", "true", "overlap"):
        assert np.array_equal(getattr(again, name), getattr(found, name))
    assert again.groups == found.groups


@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "garbled"])
def test_a_damaged_file_is_no_survey(tmp_path, damage):
    path = tmp_path / "survey.npz"
    if damage != "missing":
        take_survey(SegmentationModel(network), Images(), Compute("32", 2)).save(path)
        content = path.read_bytes()
        path.write_bytes({"empty": b"", "cut": content[: len(content) // 2], "garbled": b"x" * 500}[damage])
    assert Survey.load(path) is None


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    found = take_survey(SegmentationModel(network), Images(), Compute("32", 2))
    with pytest.raises(MisureError, match="cannot write"):
        found.save(tmp_path / "file" / "survey.npz")
