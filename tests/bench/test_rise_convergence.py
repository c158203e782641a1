"""How many masks RISE needs, on toys."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from oracles.toys import PerPixel

import misure
from misure.bench.measurement import PredictedSamples
from misure.bench.rise_convergence import (
    ESTIMATORS,
    by_image,
    correlation_of,
    correlations,
    masks_needed,
    needed,
    scored,
    thresholds,
)
from misure.bench.rise_scores import all_masks, score
from misure.errors import MisureError
from misure.explainers import RISE
from misure.metrics import dice
from misure.models.compute import Compute
from misure.models.wrapper import frozen
from misure.target import make_targets

N_MASKS = {"reference": 300, "plain": 200, "antithetic": 100, "stratified pairs": 100}
COMPUTE = Compute("32")


@pytest.fixture
def samples() -> PredictedSamples:
    """Two rectangles that the toy finds."""
    model, images = misure.SegmentationModel(PerPixel()), torch.zeros(2, 1, 12, 15)
    images[0, 0, 2:7, 3:9] = images[1, 0, 4:11, 1:6] = 1
    with frozen(model, COMPUTE, images.device) as network:
        targets = make_targets(network, images, 1)
    info = SimpleNamespace(fingerprint="of the toy")
    return PredictedSamples(SimpleNamespace(model=model, info=info, name="toy-per_pixel"), images, targets)


def test_scoring_goes_on_where_it_was_cut_short(samples, tmp_path, monkeypatch):
    """All runs in step; what is there is kept, and scored masks are not scored again."""
    runs = all_masks(samples, RISE(grid=4), N_MASKS, COMPUTE, tmp_path)
    clock = iter(range(10**6))
    monkeypatch.setattr("misure.bench.rise_scores.time.monotonic", lambda: next(clock))
    score(samples, runs, COMPUTE, 8.5 / 60)
    counts = [len(run.scores()) for run in runs]
    assert counts == [100] * 8
    first = runs[1].scores()
    score(samples, all_masks(samples, RISE(grid=4), N_MASKS, COMPUTE, tmp_path), COMPUTE, 10)
    assert [len(run.scores()) for run in runs] == [300, 200, 100, 100] * 2
    assert torch.equal(runs[1].scores()[:100], first)
    for run in runs:
        masks = run.masks.masks(torch.arange(run.n_masks), torch.Size((12, 15)))
        region = samples.images[run.image, 0] == 1
        expected = dice(masks.bool() & region, region.expand_as(masks))
        torch.testing.assert_close(run.scores(), expected.double(), rtol=0, atol=0)


def test_other_masks_and_images_have_other_files_and_damage_is_told(samples, tmp_path):
    explainers = [RISE(), RISE(grid=4), RISE(seed=1), RISE(blanking="mean"), RISE(keep_probability=0.5)]
    paths = [run.path for one in explainers for run in all_masks(samples, one, N_MASKS, COMPUTE, tmp_path)]
    assert (
        len(set(paths)) == len(explainers) * 8 - 2 * 1
    )  # the reference has a seed of its own: RISE(seed=1)'s is equal
    damaged = all_masks(samples, RISE(), N_MASKS, COMPUTE, tmp_path)[0]
    damaged.path.write_text("[0.5, 0.", encoding="utf-8")
    with pytest.raises(MisureError, match="delete it"):
        damaged.scores()


def test_masks_needed_lie_between_two_numbers_or_are_extrapolated():
    """1 / r^2 - 1 is 1 / masks here, so 0.9 needs 81 / 19 masks."""
    means = [(n, (1 + 1 / n) ** -0.5) for n in (1, 2, 8)]
    assert masks_needed(means, 0.9) == (pytest.approx(81 / 19), "")
    assert masks_needed(means, 0.99) == (pytest.approx(0.99**2 / (1 - 0.99**2)), "~")
    assert masks_needed(means, 0.5) == (1, "≤")


def test_correlation_is_numpy_s():
    one, two = torch.randn(2, 5, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert correlation_of(one, two) == pytest.approx(np.corrcoef(one.flatten(), two.flatten())[0, 1], abs=1e-12)
    assert correlation_of(one, torch.ones(5, 6)) == 0


def test_the_page_s_numbers_come_from_scores_alone(samples, tmp_path):
    """A score that is nearly linear in the mask: a regression is better than the mean, and that than nothing."""
    counts = {"reference": 1000, "plain": 400, "antithetic": 200, "stratified pairs": 200}
    runs = all_masks(samples, RISE(grid=4), counts, COMPUTE, tmp_path)
    score(samples, runs, COMPUTE, 10)
    first, _ = by_image(runs)
    reached = correlations(first, torch.Size((12, 15)))
    assert list(dict.fromkeys(reached["estimator"])) == list(ESTIMATORS)
    assert reached.query("estimator == 'plain'").groupby("masks").size().to_dict() == {100: 4, 200: 2, 300: 1, 400: 1}
    means = reached.query("masks == 200").groupby("estimator")["correlation"].mean()
    assert means["plain"] < means["plain, mean"] < means["plain, regression"]
    assert needed(reached)["masks"].tolist() == list(ESTIMATORS)
    cut = thresholds(first, samples, COMPUTE, (400, 200))
    assert cut["map"].unique().tolist() == ["400 plain", "200 antithetic, regression", "reference"]
    assert cut["Dice explained"].between(0, 1).all()
    assert scored(runs)["masks"].tolist() == [1000, 400, 200, 200] * 2
