"""Stage 2: known best masks, the hand-written optimiser, and what every key does."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest
import torch
from oracles import metrics, msr
from oracles.resizing import bilinear, nearest
from oracles.toys import Convolutional, PerPixel, Trigger, as_numpy_network, as_numpy_predict

import misure
from misure.errors import MisureError
from misure.explainers import MSR

MEAN, STD, SIGMA = (0.3, 0.6), (0.5, 0.7), 1.3


def explain(network, images, target=1, **parameters):
    return misure.explain(network, images, target, "msr", precision="32", **parameters)


def test_only_the_pixel_that_matters_is_kept(block):
    """Every other pixel feels lambda alone, so it dies; the decisive one is pulled up to exactly 1."""
    square = torch.zeros(23, 23, dtype=torch.bool)
    square[:17] = block
    image = torch.ones(1, 23, 23, dtype=torch.float64)
    explanation = explain(Trigger(square, (8, 6)), image, n_iterations=30, mask_size=23)
    expected = torch.zeros(23, 23, dtype=torch.float64)
    expected[8, 6] = 1
    assert explanation.n_dilations == 0
    assert torch.equal(explanation.saliency, expected)
    assert (explanation.dice_explained, explanation.perturbation_ratio) == (1, 1 / 12)


def test_a_pixel_of_the_context_is_kept_when_the_object_needs_it():
    square = torch.zeros(23, 23, dtype=torch.bool)
    square[7:10, 5:9] = True
    explanation = explain(
        Trigger(square, (8, 13)), torch.ones(1, 23, 23, dtype=torch.float64), n_iterations=30, mask_size=23
    )
    assert explanation.n_dilations == 2
    assert explanation.saliency.nonzero().tolist() == [[8, 13]]
    assert (explanation.dice_explained, explanation.perturbation_ratio) == (1, 1 / 12)


def test_every_pixel_of_the_object_is_kept_where_each_decides_for_itself(make_images):
    """The mask stays within the object, and every pixel stays above the threshold of its own prediction."""
    image = make_images(1, 1, 15, 15)[0].sign() * 0.6 + 0.4  # pixels are 1 or -0.2
    explanation = explain(PerPixel(0.3), image, mask_size=15)
    assert explanation.n_dilations == 0
    assert torch.equal(explanation.saliency != 0, image[0] == 1)
    assert (explanation.saliency[image[0] == 1] > 0.3).all()
    assert (explanation.dice_explained, explanation.perturbation_ratio) == (1, 1)


def compare_with_the_oracle(images, *, blanking="zero", region=None, seed=8, target=1, **parameters):
    """Explain images of a random network both ways; return the explanations for further checks."""
    settings = msr.Settings(**parameters)
    toy = Convolutional(images.shape[1], seed=seed).double().eval()
    model = misure.SegmentationModel(toy, mean=MEAN[: images.shape[1]], std=STD[: images.shape[1]])
    chosen = {f.name: getattr(settings, f.name) for f in fields(settings)}
    explanations = explain(model, images, target, region=region, blanking=blanking, blur_sigma=SIGMA, **chosen)
    network = as_numpy_network(toy)
    for image, explanation in zip(images.numpy(), explanations, strict=True):
        fill = metrics.baseline(blanking, image, MEAN, STD, SIGMA)
        mask, losses = msr.minimally_sufficient_region(
            network,
            image,
            target,
            region=explanation.target.region.numpy(),
            sufficient=explanation.sufficient_region.numpy(),
            fill=fill,
            s=settings,
        )
        # float64 rounding, which AdamW's division by its own gradients can enlarge a million times
        np.testing.assert_allclose(explanation.curve, losses, rtol=0, atol=1e-9)
        np.testing.assert_allclose(explanation.saliency.numpy(), mask, rtol=0, atol=1e-9)
        check_metrics(toy, explanation, image, fill)
        assert len(np.unique(mask)) > 10
    assert any(e.n_dilations > 0 for e in explanations)
    return explanations


def check_metrics(toy, explanation, image, fill):
    """What is measured is the sufficient region times the mask, although the map may reach beyond the region."""
    predict, class_id = as_numpy_predict(toy), explanation.target.class_id
    region, inside = explanation.target.region.numpy(), explanation.sufficient_region.numpy()
    mask = explanation.saliency.numpy() * inside
    counted = region | (predict(image) != class_id)
    shown = (image != fill).any(axis=0) & (mask != 0)
    soft, hard = (
        metrics.dice((predict(metrics.blank(image, m, fill)) == class_id) & counted, region)
        for m in (mask, (mask != 0).astype(float))
    )
    (evaluation,) = explanation.evaluations
    assert evaluation.dice_explained == soft
    assert evaluation.binary_dice_explained == hard
    assert evaluation.region_ratio == metrics.perturbation_ratio(shown, region)
    assert evaluation.perturbation_ratio == metrics.perturbation_ratio(explanation.saliency.numpy(), region)


KEYS = [
    {},
    {"lr": 0.03},
    {"lam": 0.5},
    {"lam": 0},
    {"n_iterations": 3},
    {"mask_size": 8},
    {"alpha_foreground": 0.7},
    {"alpha_background": 2.3},
    {"tv_weight": 0.01},
    {"tv_weight": 0.01, "tv_beta": 2.0},
    {"weight_decay": 0.0},
    {"weight_decay": 0.5},
    {"clamp_low": 0.4},
    {"clamp_start": 11},
    {"dice_target": "soft"},
    {"softmax_passes": 2},
    {"softmax_passes": 3, "dice_target": "soft"},
    {"context_value": 0.5},
    {"initial_support": "positive_first_channel"},
    {"returned": "last_forward"},
    {"returned": "best"},
]


@pytest.mark.parametrize("parameters", KEYS, ids=lambda p: "-".join(f"{k}={v}" for k, v in p.items()) or "defaults")
def test_every_key_equals_the_oracle(parameters, make_images):
    compare_with_the_oracle(make_images(2, 1, 12, 12), **parameters)


@pytest.mark.parametrize("blanking", ["zero", "black", "mean", "blur"])
def test_every_blanking_equals_the_oracle(blanking, make_images):
    compare_with_the_oracle(make_images(2, 2, 12, 12, seed=1), blanking=blanking, tv_weight=0.001)


@pytest.mark.parametrize(("size", "mask_size"), [((13, 19), 8), ((21, 10), 12), ((9, 11), 16)])
def test_images_that_are_not_square_equal_the_oracle(size, mask_size, make_images):
    compare_with_the_oracle(make_images(2, 2, *size), mask_size=mask_size)


def test_the_background_can_be_explained_and_counts_once(make_images):
    compare_with_the_oracle(make_images(2, 1, 12, 12), target=0, seed=6)


def test_a_region_equals_the_oracle(make_images):
    half = torch.arange(14).expand(12, 14) < 8
    explanations = compare_with_the_oracle(make_images(2, 1, 12, 14), region=half, dice_target="soft")
    assert all(e.target.ignored.any() for e in explanations)


@pytest.mark.parametrize("parameters", KEYS[1:], ids=lambda p: "-".join(f"{k}={v}" for k, v in p.items()))
def test_every_key_makes_a_difference(parameters, make_images):
    toy, image = Convolutional(seed=8).double(), make_images(1, 1, 12, 12)[0]
    common = {"mask_size": 12, "n_iterations": 20}
    first = explain(toy, image, **common)
    assert first.n_dilations > 0
    assert not torch.equal(explain(toy, image, **{**common, **parameters}).saliency, first.saliency)


def test_a_rate_that_falls_shortens_each_step_by_the_same():
    """Where the loss pulls a pixel down alone, AdamW without decay moves it by the rate at every step."""
    square = torch.zeros(23, 23, dtype=torch.bool)
    square[7:10, 5:9] = True
    common = {"mask_size": 23, "weight_decay": 0.0, "lam": 1.0, "lr": 0.1, "clamp_low": 0.0}
    image = torch.ones(1, 23, 23, dtype=torch.float64)
    explained = {
        schedule: explain(Trigger(square, (8, 6)), image, n_iterations=4, lr_schedule=schedule, **common)
        for schedule in ("constant", "linear")
    }
    # AdamW's epsilon of 1e-8 beside a gradient of 1 / 529 shortens a step by a factor of 1 - 5e-6
    assert explained["constant"].saliency[7, 5].item() == pytest.approx(1 - 4 * 0.1, abs=1e-5)
    assert explained["linear"].saliency[7, 5].item() == pytest.approx(1 - (0.1 + 0.075 + 0.05 + 0.025), abs=1e-5)


def test_a_rate_that_falls_starts_at_the_full_rate(make_images):
    toy, image = Convolutional(seed=8).double(), make_images(1, 1, 12, 12)[0]
    short = explain(toy, image, mask_size=12, n_iterations=20)
    falling = explain(toy, image, mask_size=12, n_iterations=20, lr_schedule="linear")
    assert falling.curve[:2] == short.curve[:2]  # the start, and one step at the full rate
    assert falling.curve[2] != short.curve[2]
    slow = explain(toy, image, mask_size=12, n_iterations=20, lr_schedule="linear", lr=1e-9)
    # Steps of at most 1e-9 leave the mask at ones; weight decay moves it less still.
    assert torch.allclose(slow.saliency, slow.sufficient_region.double(), atol=1e-7)


def start_of(make_images, size=(13, 19), **parameters):
    """The initial mask: what the network saw in the only iteration."""
    toy, images = Convolutional(1, seed=3).double(), make_images(3, 1, *size)
    explanations = explain(toy, images, n_iterations=1, returned="last_forward", **parameters)
    return next(e for e in explanations if e.n_dilations > 0)


@pytest.mark.parametrize("context", [1.0, 0.25])
@pytest.mark.parametrize("positive", [False, True])
def test_the_mask_starts_on_the_sufficient_region(context, positive, make_images):
    support = "positive_first_channel" if positive else "sufficient_region"
    started = start_of(make_images, size=(13, 13), mask_size=13, context_value=context, initial_support=support)
    region, sufficient = started.target.region, started.sufficient_region
    allowed = started.image[0] > 0 if positive else torch.ones_like(region)
    assert torch.equal(started.saliency, (1.0 * region + context * (sufficient & ~region)) * allowed)


def test_pixels_that_are_zero_are_not_positive():
    image = torch.tensor([[[1.0, 0.0], [-1.0, 1.0]]])

    def network(images):  # the whole image is predicted, whatever it shows
        return torch.stack([images[:, 0] * 0, images[:, 0] * 0 + 1], 1)

    explanation = explain(network, image, mask_size=2, n_iterations=1, initial_support="positive_first_channel")
    assert (explanation.saliency != 0).tolist() == [[True, False], [False, True]]


def test_a_small_mask_starts_nearest_and_is_shown_bilinearly(make_images):
    explanation = start_of(make_images, mask_size=8)
    expected = bilinear(nearest(explanation.sufficient_region.double().numpy(), 8, 8), 13, 19)
    np.testing.assert_allclose(explanation.saliency.numpy(), expected, rtol=0, atol=1e-14)  # float64 rounding


def test_values_below_the_clamp_become_zero_from_its_start_on(make_images):
    toy, image = Convolutional(seed=8).double(), make_images(1, 1, 12, 12)[0]
    common = {"mask_size": 12, "n_iterations": 12, "clamp_low": 0.3}
    always = explain(toy, image, **common, clamp_start=0).saliency
    assert ((always == 0) | (always >= 0.3)).all()
    late = explain(toy, image, **common, clamp_start=11).saliency
    assert ((late == 0) | (late >= 0.3)).all()
    never = explain(toy, image, **common, clamp_start=12).saliency
    assert ((never > 0) & (never < 0.3)).any()
    assert ((never >= 0) & (never <= 1)).all()


def test_the_best_iterate_is_the_one_with_the_lowest_loss(make_images):
    toy, image = Convolutional(seed=8).double(), make_images(1, 1, 12, 12)[0]
    common = {"mask_size": 12, "lam": 3.0, "lr": 0.4}
    best = explain(toy, image, **common, n_iterations=20, returned="best")
    lowest = int(np.argmin(best.curve))
    assert 0 < lowest < 19
    until_then = explain(toy, image, **common, n_iterations=lowest + 1, returned="last_forward")
    assert torch.equal(best.saliency, until_then.saliency)


@pytest.mark.parametrize("blanking", ["zero", "mean", "black", "blur"])
def test_nothing_is_shown_outside_the_sufficient_region(blanking, make_images):
    """No gradient reaches a pixel that is blank already, not even a rounding error for AdamW to enlarge."""
    toy, images = Convolutional(3, seed=5), make_images(3, 3, 16, 16).float()
    model = misure.SegmentationModel(toy, mean=(0.3, 0.4, 0.5), std=(0.2, 0.3, 0.4))
    for explanation in explain(model, images, mask_size=16, n_iterations=30, blanking=blanking):
        assert not explanation.saliency[~explanation.sufficient_region].any()


@pytest.mark.parametrize(
    ("parameter", "value", "shown"),
    [
        ("lam", -1, "lambda=-1 is not a number of at least 0"),
        ("lam", "abc", "lambda=abc is not a number"),
        ("lam", float("nan"), "lambda=nan is not a number"),
        ("mask_size", 0, "mask_size=0 is not a whole number of at least 1"),
        ("clamp_low", 2, "clamp_low=2 is not a number from 0 to 1"),
        ("clamp_start", -1, "clamp_start=-1 is not a whole number of at least 0"),
        ("dice_target", "firm", "dice_target=firm is not known: choose hard or soft"),
        ("tau", 1, "tau=1 can never be exceeded"),
        ("blur_sigma", 0, "blur_sigma=0 is not"),
        ("thresholds", 0.5, "thresholds=0.5 is not a list"),
        ("thresholds", (2,), "thresholds=2 is not a number from 0 to 1"),
    ],
)
def test_impossible_parameters_are_refused_in_one_line(parameter, value, shown):
    with pytest.raises(MisureError, match=shown) as caught:
        MSR(**{parameter: value})
    assert "\n" not in str(caught.value)


def test_numpy_numbers_are_numbers():
    assert MSR(lam=np.float32(0.5), mask_size=np.int64(8)).mask_size == 8


def test_a_network_without_gradients_is_named():
    with pytest.raises(MisureError, match="gives no gradients to optimise with"):
        explain(lambda x: PerPixel()(x).detach(), torch.ones(1, 4, 4))


def test_a_loss_that_is_not_finite_is_named():
    def network(images):  # the square root of a mask that reaches zero has no gradient
        return PerPixel()(images.sqrt())

    with pytest.raises(MisureError, match="the loss became NaN"):
        explain(network, torch.tensor([[[1.0, 0.0], [0.0, 0.0]]]), mask_size=2, n_iterations=5)
