"""Volumes: a ball dilates, masks are trilinear, and memory is bounded by the batch."""

from __future__ import annotations

import os
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
from oracles import metrics
from oracles.msr import Settings, minimally_sufficient_region
from oracles.sufficient_region import BALL, FOOTPRINT, sufficient_region
from oracles.toys import PerPixel, UNet3D, as_numpy_network, as_numpy_predict, random_images
from scipy.ndimage import label
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import misure
from misure.explainers.sufficient_region import footprint
from misure.metrics import min_max
from misure.models.compute import Compute
from misure.models.wrapper import frozen
from misure.target import TargetBatch, make_targets

MEAN, STD, SIGMA = (0.4,), (0.5,), 1.3


def unet(**options) -> misure.SegmentationModel:
    network = UNet3D(**options).double().eval()
    return misure.SegmentationModel(network, bottleneck="bottleneck", mean=MEAN, std=STD)


def explain(network, volumes, method="msr", target=1, **parameters):
    return misure.explain(network, volumes, target, method, precision="32", **parameters)


def test_the_ball_s_middle_is_the_ellipse_without_the_ends_of_two_rows():
    ball = footprint(3).numpy()
    assert np.array_equal(ball, BALL)
    assert np.array_equal(footprint(2).numpy(), FOOTPRINT)
    assert ball.sum() == 123
    assert np.argwhere(FOOTPRINT & ~ball[3]).tolist() == [[2, 0], [2, 6], [4, 0], [4, 6]]
    assert not (ball[3] & ~FOOTPRINT).any()


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"mask_size": 5},
        {"tv_weight": 0.01, "dice_target": "soft"},
        {"context_value": 0.5, "weight_decay": 0.5},
        {"blanking": "black"},
        {"blanking": "mean"},
        {"blanking": "blur"},
    ],
    ids=str,
)
def test_both_stages_equal_the_oracle(parameters):
    """With ``mask_size`` 5 it has 4 x 5 x 5 values, never more than the volume's 4 slices."""
    blanking = parameters.get("blanking", "zero")
    settings = Settings(n_iterations=8, **{k: v for k, v in parameters.items() if k != "blanking"})
    model, volumes = unet(seed=2), random_images(2, 1, 4, 9, 8, seed=3)
    options = {"mask_size": settings.mask_size, "n_iterations": 8, "blur_sigma": SIGMA, "tau": 0.8, **parameters}
    explanations = explain(model, volumes, **options)
    predict = as_numpy_predict(model.network)
    for volume, explanation in zip(volumes.numpy(), explanations, strict=True):
        region, fill = explanation.target.region.numpy(), metrics.baseline(blanking, volume, MEAN, STD, SIGMA)
        assert np.array_equal(region, predict(volume) == 1)
        sufficient, steps = sufficient_region(predict, volume, 1, region=region, fill=fill, tau=0.8)
        assert explanation.n_dilations == steps
        assert np.array_equal(explanation.sufficient_region.numpy(), sufficient)
        mask, losses = minimally_sufficient_region(
            as_numpy_network(model.network),
            volume,
            1,
            region=region,
            sufficient=sufficient,
            fill=fill,
            s=settings,
        )
        # float64 rounding, which AdamW's division by its own gradients can enlarge a million times
        np.testing.assert_allclose(explanation.curve, losses, rtol=0, atol=1e-9)
        np.testing.assert_allclose(explanation.saliency.numpy(), mask, rtol=0, atol=1e-9)
        (evaluation,) = explanation.evaluations
        assert evaluation.perturbation_ratio == metrics.perturbation_ratio(mask, region)
    assert any(e.n_dilations > 0 for e in explanations)


def test_one_volume_is_known_by_the_network():
    """C x D x H x W is one volume for a network of three-dimensional convolutions, otherwise a batch of images."""
    model, volume = unet(seed=2), random_images(1, 1, 4, 6, 6)
    assert torch.equal(
        explain(model, volume[0], "sufficient_region").saliency,
        explain(model, volume, "sufficient_region")[0].saliency,
    )
    assert len(explain(PerPixel(), torch.ones(2, 1, 4, 4), "prediction")) == 2


def test_objects_rims_and_classes_of_a_volume():
    def network(x):  # class 1 where the first channel is above 0.5, class 2 where the second is
        return torch.cat([x[:, :1] * 0, x - 0.5], 1)

    volume = torch.zeros(1, 2, 5, 5, 8)
    volume[0, 0, 1:4, 1:4, 1:4] = volume[0, 0, 4, 4, 4] = volume[0, 0, 0, 0, 6] = volume[0, 1, 2, 2, 7] = 1
    cube = torch.zeros(5, 5, 8, dtype=torch.bool)
    cube[1:4, 1:4, 1:4] = cube[4, 4, 4] = True  # connected by a corner
    (whole,) = explain(network, volume, "prediction", None, at=(2, 2, 2))
    assert whole.target.class_id == 1
    assert torch.equal(whole.target.region, cube)
    (rim,) = explain(network, volume, "prediction", None, at=(2, 2, 2), border=1)
    cube[2, 2, 2] = False
    assert torch.equal(rim.target.region, cube)
    (every,) = explain(network, volume, "random_map", "all")
    assert [(e.target.class_id, e.target.size) for e in every] == [(1, 29), (2, 1)]
    with pytest.raises(misure.MisureError, match=r"the point \(2, 2\) is not a \(slice, row, column\)"):
        explain(network, volume, "prediction", None, at=(2, 2))


def test_a_plot_shows_the_slice_with_most_of_the_target():
    volume = torch.zeros(1, 1, 4, 6, 5)
    volume[0, 0, 1, 2, 2] = volume[0, 0, 2, 1:4, 2] = 1
    (explanation,) = explain(PerPixel(), volume, mask_size=6, n_iterations=2)
    axes = explanation.plot().axes
    assert np.array_equal(axes[1].images[0].get_array(), volume[0, 0, 2] > 0.5)
    assert np.array_equal(axes[3].images[0].get_array(), explanation.saliency[2])
    assert axes[3].images[0].get_clim() == (0, float(explanation.saliency.max()))


def test_maps_of_volumes_are_scaled_as_wholes():
    maps = torch.arange(24.0).view(1, 2, 3, 4)
    assert torch.equal(min_max(maps), maps / 23)


class Memory(TorchDispatchMode):
    """Counts the bytes of the tensors that are alive, and the largest ever made, beside what was ``given``."""

    def __init__(self, given: list[Tensor]) -> None:
        super().__init__()
        self.given = {tensor.untyped_storage().data_ptr() for tensor in given}
        self.users: dict[int, int] = {}
        self.alive = self.peak = self.largest = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else (result,):
            if isinstance(tensor, Tensor):
                self._note(tensor)
        return result

    def _note(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        place, size = storage.data_ptr(), storage.nbytes()
        if place in self.given:
            return
        self.users[place] = self.users.get(place, 0) + 1
        self.alive += size if self.users[place] == 1 else 0
        weakref.finalize(tensor, self._release, place, size)
        self.peak, self.largest = max(self.peak, self.alive), max(self.largest, size)

    def _release(self, place: int, size: int) -> None:
        self.users[place] -= 1
        self.alive -= 0 if self.users[place] else size


SIDE, CHANNELS, BATCH, N_VOLUMES = 10, 8, 2, 6
VOXELS = 4 * SIDE**3  # bytes of one float32 map
BLOCKS = torch.zeros(SIDE, SIDE, SIDE, dtype=torch.bool)
BLOCKS[4:6, 4:6, 4:6] = True


class Far(nn.Module):
    """Predicts a block where its own voxels and a far corner's are bright: many dilations, gradients everywhere."""

    largest = 0

    def forward(self, volumes: Tensor) -> Tensor:
        Far.largest = max(Far.largest, len(volumes))
        switch = volumes[:, 0, 0, 0, 0].view(-1, 1, 1, 1) - 0.5
        logit = torch.where(BLOCKS, switch * volumes[:, 0], -1.0)
        return torch.stack([torch.zeros_like(logit), logit], 1)


@pytest.mark.parametrize(
    ("method", "few", "many"),
    [
        ("rise", {"n_masks": 4, "grid": 3}, {"n_masks": 40, "grid": 3}),
        ("msr", {"n_iterations": 2, "mask_size": SIDE}, {"n_iterations": 20, "mask_size": SIDE}),
        ("sufficient_region", {}, {}),
    ],
)
def test_memory_is_bounded_by_the_batch_of_perturbations(method, few, many):
    volumes = torch.ones(N_VOLUMES, CHANNELS, SIDE, SIDE, SIDE)
    Far.largest = 0
    seen = []
    with frozen(misure.SegmentationModel(Far()), Compute("32", BATCH), volumes.device) as network:
        targets = TargetBatch.stack(make_targets(network, volumes, 1))
        for parameters in (few, many):
            with Memory([volumes, *(v for v in vars(targets).values() if isinstance(v, Tensor))]) as memory:
                maps = misure.EXPLAINERS[method](**parameters).saliency_maps(network, volumes, targets)
            seen.append(memory)
    assert Far.largest == BATCH
    assert maps.n_dilations is None or maps.n_dilations.tolist() == [3] * N_VOLUMES
    # The largest tensor is a batch of masked volumes; RISE copies those that are still being masked, once.
    copied = N_VOLUMES * CHANNELS * VOXELS if method == "rise" else 0
    assert seen[1].largest <= max(copied, BATCH * CHANNELS * VOXELS)
    # More masks or iterations leave behind some numbers each (their losses), never a mask.
    assert abs(seen[1].peak - seen[0].peak) < VOXELS
    # A few numbers for each voxel of the maps, and some batches at work: masked, its factors and their gradients.
    assert seen[1].peak < copied + 4 * N_VOLUMES * VOXELS + 6 * BATCH * CHANNELS * VOXELS


LOW, HIGH = (20 + 200) / 500, (110 + 200) / 500


class SoftTissue(nn.Module):
    """Muscle and parenchyma: 20 to about 155 HU after smoothing; the input is (HU + 200) / 500."""

    def forward(self, volumes: Tensor) -> Tensor:
        smooth = nn.functional.avg_pool3d(volumes, 3, stride=1, padding=1)
        logit = 20 * (smooth - LOW).relu() - 60 * (smooth - HIGH).relu() - 1e-3
        return torch.cat([torch.zeros_like(logit), logit], 1)


@pytest.fixture(scope="module")
def ct_crop() -> Tensor:
    """A CT of the abdomen at 9 mm, 32 voxels along each axis or fewer, slices first: 1 x 1 x D x H x W."""
    root = os.environ.get("MISURE_DATA")
    path = Path(root or "") / "abdominal_ct" / "example_ct.nii.gz"
    if root is None or not path.is_file():
        pytest.skip("needs abdominal_ct/example_ct.nii.gz in the folder that MISURE_DATA names")
    nibabel = pytest.importorskip("nibabel", reason="reads the CT")
    voxels = np.asarray(nibabel.load(path).dataobj, dtype=np.float32)
    middle = voxels[13:109, 3:99, 8:104].reshape(32, 3, 32, 3, 32, 3).mean(axis=(1, 3, 5))
    return torch.from_numpy((middle.clip(-200, 300) + 200) / 500).permute(2, 1, 0)[None, None].flip(2, 3).contiguous()


@pytest.mark.parametrize(
    ("method", "parameters", "higher"),
    [
        ("sufficient_region", {}, 2),
        ("msr", {"n_iterations": 15}, 2),
        ("rise", {"n_masks": 60, "grid": 5}, 1),  # 60 masks that keep half of everything show little
    ],
)
def test_the_largest_soft_tissue_of_a_real_ct_is_explained(method, parameters, higher, ct_crop):
    network = SoftTissue()
    predict, volume = as_numpy_predict(network), ct_crop[0].numpy()
    labels, _ = label(predict(volume) == 1, np.ones((3, 3, 3)))
    largest = labels == np.bincount(labels.ravel())[1:].argmax() + 1
    point = np.argwhere(largest)[0].tolist()
    (explanation,) = explain(network, ct_crop, method, None, at=point, **parameters)
    assert np.array_equal(explanation.target.region.numpy(), largest)
    inside, saliency = explanation.target.region, explanation.saliency
    assert explanation.target.size > 1000
    assert saliency[inside].mean() > higher * saliency[~inside].mean()
    if explanation.sufficient_region is not None:
        _, steps = sufficient_region(predict, volume, 1, region=largest, fill=np.zeros_like(volume), tau=0.9)
        assert explanation.n_dilations == steps
