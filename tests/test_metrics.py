"""Dice, ratio, scaling, blanking and the evaluation of a map."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from oracles import metrics as oracle
from oracles.toys import Convolutional, as_numpy_predict

from misure.api import explain
from misure.errors import MisureError
from misure.metrics import Blanking, dice, evaluate, keep, min_max, perturbation_ratio
from misure.models.compute import Compute
from misure.models.wrapper import SegmentationModel, frozen
from misure.target import TargetBatch, make_targets

maps = arrays(bool, (3, 4, 5))
values = arrays(np.float64, (3, 4, 5), elements=st.floats(-100, 100).map(lambda v: round(v, 3)))
CPU = torch.device("cpu")


@given(maps, maps)
def test_dice_equals_counting_pixels(first, second):
    got = dice(torch.from_numpy(first), torch.from_numpy(second))
    assert got.tolist() == [oracle.dice(a, b) for a, b in zip(first, second, strict=True)]


@given(values, maps.filter(lambda m: m.any(axis=(1, 2)).all()))
def test_ratio_equals_counting_pixels_and_ignores_scale_and_sign(saliency, regions):
    got = perturbation_ratio(torch.from_numpy(saliency), torch.from_numpy(regions))
    assert got.tolist() == [oracle.perturbation_ratio(s, r) for s, r in zip(saliency, regions, strict=True)]
    assert torch.equal(got, perturbation_ratio(torch.from_numpy(-2 * saliency), torch.from_numpy(regions)))


@given(values)
def test_min_max_reaches_zero_and_one_and_keeps_the_order(saliency):
    scaled = min_max(torch.from_numpy(saliency))
    for raw, single in zip(torch.from_numpy(saliency), scaled, strict=True):
        if raw.min() < raw.max():
            assert (single.min(), single.max()) == (0, 1)
            order = raw.flatten().argsort()
            assert (single.flatten()[order].diff() >= 0).all()


@pytest.mark.parametrize(("constant", "scaled"), [(0.0, 0.0), (3.0, 1.0), (-2.0, 1.0)])
def test_min_max_of_a_constant_map(constant, scaled):
    assert torch.equal(min_max(torch.full((1, 2, 2), constant)), torch.full((1, 2, 2), scaled))


def test_keep_mixes_image_and_baseline():
    image, mask = torch.full((1, 1, 1, 2), 4.0), torch.tensor([[[1.0, 0.25]]])
    assert keep(image, mask).flatten().tolist() == [4, 1]
    assert keep(image, mask, torch.tensor(8.0)).flatten().tolist() == [4, 7]


@pytest.mark.parametrize("kind", ["zero", "black", "mean", "blur"])
@pytest.mark.parametrize("size", [(13, 17), (5, 9), (6, 9, 8), (1, 7, 5), (2, 3, 12)])
def test_every_baseline_equals_its_formula(kind, size, make_images):
    images = make_images(2, 3, *size)
    mean, std, sigma = (0.4, 0.5, 0.6), (0.2, 0.3, 0.4), 1.7
    model = SegmentationModel(Convolutional(3).double(), mean=mean, std=std)
    with frozen(model, Compute("32"), CPU) as network:
        fill = Blanking(kind, sigma).baseline(network, images)
    fill = torch.zeros(()) if fill is None else fill
    expected = np.stack([oracle.baseline(kind, x, mean, std, sigma) for x in images.numpy()])
    np.testing.assert_allclose(fill.expand_as(images).numpy(), expected, rtol=0, atol=1e-12)  # float64 rounding


@pytest.mark.parametrize("kind", ["zero", "mean"])
def test_evaluation_equals_the_oracle(kind, make_images):
    toy = Convolutional(1, seed=5).double().eval()
    predict, images = as_numpy_predict(toy), make_images(3, 1, 11, 14)
    rng = np.random.default_rng(1)
    masks = rng.uniform(size=(3, 11, 14)) * (rng.uniform(size=(3, 11, 14)) < 0.5)
    support = rng.uniform(size=(3, 11, 14)) < 0.7
    images[:, :, 4:6, 3:9] = 0
    with frozen(SegmentationModel(toy), Compute("32", 2), CPU) as network:
        targets = make_targets(network, images, 1)
        batch = TargetBatch.stack(targets)
        got = evaluate(
            network,
            images,
            batch,
            torch.from_numpy(masks),
            threshold=None,
            support=torch.from_numpy(support),
            blanking=Blanking(kind),
        )
    for i, image in enumerate(images.numpy()):
        region = predict(image) == 1
        fill = oracle.baseline(kind, image, (0,), (1,), 1)
        soft = predict(oracle.blank(image, masks[i] * support[i], fill)) == 1
        binary = (masks[i] > 0) & support[i]
        hard = predict(oracle.blank(image, binary.astype(float), fill)) == 1
        visible = binary & (image[0] != fill[0])
        expected = [
            oracle.dice(soft, region),
            oracle.perturbation_ratio(masks[i], region),
            oracle.perturbation_ratio(visible, region),
            oracle.dice(hard, region),
        ]
        row = got[i]
        assert [row.dice_explained, row.perturbation_ratio, row.region_ratio, row.binary_dice_explained] == expected
        assert expected[2] < expected[1]


def test_scaling_a_map_keeps_nan() -> None:
    maps = torch.tensor([[[0.0, 2.0]], [[torch.nan, 2.0]], [[0.0, 0.0]], [[3.0, 3.0]]])
    expected = torch.tensor([[[0.0, 1.0]], [[torch.nan, torch.nan]], [[0.0, 0.0]], [[1.0, 1.0]]])
    assert torch.equal(min_max(maps).nan_to_num(9), expected.nan_to_num(9))


@pytest.mark.parametrize("method", ["prediction", "sufficient_region", "msr", "occlusion"])
def test_a_network_that_gives_nan_for_masked_images_has_no_score(method: str) -> None:
    """It was scored as if the object had not been found."""

    def network(images: torch.Tensor) -> torch.Tensor:
        score = images[:, 0] - 0.5
        return torch.stack([-score, torch.where((images == 0).any(), torch.nan, score)], 1)

    image = torch.rand(1, 6, 7) + 0.1
    with pytest.raises(MisureError, match="NaN"):
        explain(network, image, 1, method)
