"""Stage 2: known best masks, the hand-written optimiser, and what every key does."""

from __future__ import annotations

from dataclasses import fields
from functools import cache

import numpy as np
import pytest
import torch
from hydra import compose
from oracles import author_code, metrics, msr
from oracles.toys import Convolutional, PerPixel, Trigger, as_numpy_network, as_numpy_predict, random_images

import misure
from misure.errors import MisureError
from misure.explainers import MSR, FastMSR
from misure.paper.extensions.readings import readings_of
from misure.sweep.experiment import Experiment

MEAN, STD, SIGMA = (0.3, 0.6), (0.5, 0.7), 1.3


def explain(network, images, target=1, **parameters):
    return misure.explain(network, images, target, "msr", precision="32", **parameters)


SQUARE = torch.zeros(23, 23, dtype=torch.bool)
SQUARE[7:10, 5:9] = True
WHITE = torch.ones(1, 23, 23, dtype=torch.float64)


@pytest.mark.parametrize(("pixel", "n_dilations"), [((8, 6), 0), ((8, 13), 2)], ids=["object", "context"])
def test_only_the_pixel_that_matters_is_kept(pixel, n_dilations):
    """Every other pixel feels lambda alone, so it dies; the decisive one is pulled up to exactly 1."""
    explanation = explain(Trigger(SQUARE, pixel), WHITE, n_iterations=30, mask_size=23)
    expected = torch.zeros(23, 23, dtype=torch.float64)
    expected[pixel] = 1
    assert explanation.n_dilations == n_dilations
    assert torch.equal(explanation.saliency, expected)
    assert (explanation.dice_explained, explanation.perturbation_ratio) == (1, 1 / 12)


def test_every_pixel_of_the_object_is_kept_where_each_decides_for_itself(make_images):
    """The mask stays within the object, and every pixel stays above the threshold of its own prediction."""
    image = make_images(1, 1, 15, 15)[0].sign() * 0.6 + 0.4  # pixels are 1 or -0.2
    explanation = explain(PerPixel(0.3), image, mask_size=15)
    assert explanation.n_dilations == 0
    assert torch.equal(explanation.saliency != 0, image[0] == 1)
    assert (explanation.saliency[image[0] == 1] > 0.3).all()
    assert (explanation.dice_explained, explanation.perturbation_ratio) == (1, 1)


def line_on(row: int) -> torch.Tensor:
    """Bright pixels along a row of 20 x 24, which nearest sampling to 10 x 10 sees on even rows alone."""
    image = torch.zeros(1, 20, 24, dtype=torch.float64)
    image[0, row, 2:20] = 1
    return image


def test_an_object_that_the_coarse_mask_misses_is_named():
    images = torch.stack([line_on(4), line_on(5)])
    said = r"^msr starts from an empty mask, .* misses all 18 pixels that class 1 needs; give mask_size=24$"
    with pytest.warns(RuntimeWarning, match=said) as caught:
        seen, missed = explain(PerPixel(), images, n_iterations=3, mask_size=10)
    assert len(caught) == 1
    assert (missed.perturbation_ratio, seen.perturbation_ratio > 0) == (0, True)
    assert explain(PerPixel(), images[1], n_iterations=3, mask_size=24).dice_explained == 1


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


THREE_CLASSES = 13
"""The toy that predicts three classes on both images, about alike."""

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
    {"background": "rest"},
    {"background": "rest", "dice_target": "soft"},
    {"dice_over": "classes"},
    {"false_positives": False},
    {"false_positives": False, "dice_target": "soft"},
    {"dice_epsilon": 5.0},
    {"dice_epsilon": 0.0},
    {"background": "rest", "dice_over": "classes", "false_positives": False, "dice_target": "soft"},
]


@cache
def maps_by_default() -> list[np.ndarray]:
    toy = Convolutional(seed=THREE_CLASSES).double()
    return [e.saliency.numpy() for e in explain(toy, random_images(2, 1, 12, 12), mask_size=12, n_iterations=20)]


@pytest.mark.parametrize("parameters", KEYS, ids=lambda p: "-".join(f"{k}={v}" for k, v in p.items()) or "defaults")
def test_every_key_equals_the_oracle_and_makes_a_difference(parameters):
    explanations = compare_with_the_oracle(random_images(2, 1, 12, 12), seed=THREE_CLASSES, **parameters)
    for explanation, default in zip(explanations, maps_by_default(), strict=True):
        if explanation.n_dilations > 0:
            assert np.array_equal(explanation.saliency, default) == (not parameters)


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


def test_a_rate_that_falls_or_rises_changes_each_step_by_the_same():
    """Where the loss pulls a pixel down alone, AdamW without decay moves it by the rate at every step."""
    common = {"mask_size": 23, "weight_decay": 0.0, "lam": 1.0, "lr": 0.1, "clamp_low": 0.0}
    explained = {
        schedule: explain(Trigger(SQUARE, (8, 6)), WHITE, n_iterations=4, lr_schedule=schedule, **common)
        for schedule in ("constant", "linear", "rising")
    }
    # AdamW's epsilon of 1e-8 beside a gradient of 1 / 529 shortens a step by a factor of 1 - 5e-6
    assert explained["constant"].saliency[7, 5].item() == pytest.approx(1 - 4 * 0.1, abs=1e-5)
    assert explained["linear"].saliency[7, 5].item() == pytest.approx(1 - (0.1 + 0.075 + 0.05 + 0.025), abs=1e-5)
    rising = 0.05 + 0.0625 + 0.075 + 0.0875
    assert explained["rising"].saliency[7, 5].item() == pytest.approx(1 - rising, abs=1e-5)


@pytest.mark.parametrize("network", [Convolutional(seed=THREE_CLASSES), Convolutional(seed=29), PerPixel(-4.0)])
def test_the_authors_code_equals_its_loss_written_with_smp(network):
    """Also with three classes predicted at once, and without any background (the last network)."""
    network, images = network.double().eval(), random_images(2, 1, 12, 12)
    chosen = MSR.author_code(mask_size=9, n_iterations=20)
    found, images_without = misure.explain(network, images, 1, chosen, precision="32"), 0
    for image, explanation in zip(images, found, strict=True):
        mask, losses = author_code.explain(network, image, 1, explanation.sufficient_region, chosen)
        torch.testing.assert_close(explanation.saliency, mask, rtol=0, atol=1e-9)
        np.testing.assert_allclose(explanation.curve, losses, rtol=0, atol=1e-9)
        images_without += not (network(image[None]).argmax(1) == 0).any()
    assert images_without == (2 if isinstance(network, PerPixel) else 0)


def test_the_authors_code_is_one_setting_in_python_in_its_preset_and_among_the_readings(hydra):
    preset = Experiment.of(compose("run", ["explainer=msr_author_code", "profile=paper"])).explainer
    assert preset == MSR.author_code()
    for sweep in ("ambiguities", "table5_readings"):
        (reading,) = (dict(r.parameters) for r in readings_of(sweep) if r.title == "the authors' later code")
        assert MSR(**reading) == MSR.author_code()
        assert all(value != MSR().parameters[name] for name, value in reading.items())


def test_pixels_that_are_zero_are_not_positive():
    image = torch.tensor([[[1.0, 0.0], [-1.0, 1.0]]])

    def network(images):  # the whole image is predicted, whatever it shows
        return torch.stack([images[:, 0] * 0, images[:, 0] * 0 + 1], 1)

    explanation = explain(network, image, mask_size=2, n_iterations=1, initial_support="positive_first_channel")
    assert (explanation.saliency != 0).tolist() == [[True, False], [False, True]]


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
        ("clamp_low", 2, "clamp_low=2 is not a number from 0 to 1"),
        ("clamp_start", -1, "clamp_start=-1 is not a whole number of at least 0"),
        ("dice_target", "firm", "dice_target=firm is not known: choose hard or soft"),
        ("footprint", "square", "footprint=square is not known: choose ellipse or disk"),
        ("background", "class_0", "background=class_0 is not known: choose predicted or rest"),
        ("dice_over", "all", "dice_over=all is not known: choose pair or classes"),
        ("false_positives", "few", "false_positives=few is not"),
        ("dice_epsilon", -1, "dice_epsilon=-1 is not"),
        ("blur_sigma", 0, "blur_sigma=0 is not"),
        ("thresholds", (2,), "thresholds=2 is not a number from 0 to 1"),
    ],
)
def test_impossible_parameters_are_refused_in_one_line(parameter, value, shown):
    with pytest.raises(MisureError, match=shown) as caught:
        MSR(**{parameter: value})
    assert "\n" not in str(caught.value)


def test_a_loss_that_is_not_finite_is_named():
    def network(images):  # the square root of a mask that reaches zero has no gradient
        return PerPixel()(images.sqrt())

    with pytest.raises(MisureError, match="the loss became NaN"):
        explain(network, torch.tensor([[[1.0, 0.0], [0.0, 0.0]]]), mask_size=2, n_iterations=5)


def test_the_fast_variant_is_msr_with_a_third_of_the_passes(make_images):
    assert FastMSR().parameters == MSR(lr=0.24, lr_schedule="rising", n_iterations=33).parameters
    images, settings = make_images(1, 1, 9, 9), {"mask_size": 9, "precision": "32"}
    fast = misure.explain(PerPixel(0.3), images[0], 1, "msr_fast", **settings)
    assert torch.equal(
        fast.saliency,
        misure.explain(
            PerPixel(0.3), images[0], 1, MSR(lr=0.24, lr_schedule="rising", n_iterations=33, mask_size=9)
        ).saliency,
    )
