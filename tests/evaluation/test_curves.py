"""Curves over all thresholds, insertion and deletion: by hand, against a slow search, and their bounds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra import initialize_config_dir
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from oracles import metrics as oracle
from oracles.toys import Convolutional, PerPixel, Shifts, as_numpy_predict
from sweep_runs import experiment, make_runner
from torch import Tensor

from misure.api import explain
from misure.errors import MisureError
from misure.evaluation.curves import SMALLEST_RATIO, explanation_curves, is_plain
from misure.explainers import MSR, RISE, PredictionMap, SegGradCAM
from misure.explanation import Explanation
from misure.io.installed import CONFIG_FOLDER
from misure.metrics import Blanking, Evaluation
from misure.models.compute import Compute
from misure.models.wrapper import SegmentationModel, frozen
from misure.target import make_targets

EXACT = Compute(precision="32", batch_size=4)
ZERO = Blanking()
SHAPE = (6, 7)
THRESHOLD, MASK = (0.5,), (None,)


def explained(
    network: torch.nn.Module,
    image: Tensor,
    saliency: np.ndarray,
    thresholds: tuple[float | None, ...] = THRESHOLD,
    *,
    sufficient: np.ndarray | None = None,
    class_id: int = 1,
) -> tuple[SegmentationModel, Explanation]:
    """Build an explanation whose map is given."""
    model = SegmentationModel(network, mean=(0.3,) * len(image), std=(0.5,) * len(image))
    with frozen(model, EXACT, torch.device("cpu")) as lent:
        (target,) = make_targets(lent, image[None], class_id)
    return model, Explanation(
        "toy",
        {},
        image,
        target,
        torch.from_numpy(np.asarray(saliency)),
        tuple(Evaluation(t, 0, 0, 0, 0) for t in thresholds),
        seconds=0.0,
        batch_size=1,
        precision="32",
        sufficient_region=None if sufficient is None else torch.from_numpy(sufficient),
    )


def bright(n_pixels: int) -> Tensor:
    """A picture of 4 x 4 whose first pixels are bright."""
    image = torch.zeros(1, 4, 4)
    image.view(-1)[:n_pixels] = 1
    return image


def test_insertion_and_deletion_of_single_pixels_by_hand() -> None:
    """Four bright pixels, found in order: k of them kept give Dice 2k / (k + 4)."""
    order = np.arange(16, 0, -1, dtype=np.float32).reshape(4, 4)
    curves = explanation_curves(*explained(PerPixel(), bright(4), order), ZERO, EXACT, n_levels=2, n_steps=2)
    # Steps at 0, an eighth and all of the 16 pixels.
    assert curves["insertion_fraction"].tolist() == curves["deletion_fraction"].tolist() == [0, 1 / 8, 1]
    assert curves["insertion_dice"].tolist() == [0, 2 * 2 / (2 + 4), 1]
    assert curves["deletion_dice"].tolist() == [1, 2 * 2 / (2 + 4), 0]
    # A twentieth of four pixels is no pixel; then the whole image, four times the object.
    assert curves["curve_allowed"].tolist() == pytest.approx([SMALLEST_RATIO, 4])
    assert curves["curve_levels"].tolist() == [16, -np.inf]
    assert curves["curve_ratio"].tolist() == [0, 4]
    assert curves["curve_region_ratio"].tolist() == [0, 1]
    assert curves["curve_dice"].tolist() == [0, 1]


def test_a_mask_ends_at_its_last_pixel_inside_the_sufficient_region() -> None:
    mask = np.zeros((4, 4), np.float32)
    mask[0] = (1, 0.5, 0.25, 0)
    mask[3] = 0.75  # outside the sufficient region: an upsampled mask can reach there
    region = np.zeros((4, 4), bool)
    region[:2] = True
    curves = explanation_curves(*explained(PerPixel(), bright(4), mask, MASK, sufficient=region), ZERO, EXACT)
    assert curves["curve_ratio"][-1] == 3 / 4
    assert curves["curve_dice"][-1] == 2 * 3 / (3 + 4)
    assert curves["curve_levels"][-1] == 0
    assert curves["insertion_fraction"][-1] == 1


@pytest.mark.parametrize("thresholds", [THRESHOLD, MASK])
@pytest.mark.parametrize("value", [0.0, 0.5, -1.0])
def test_a_constant_map_keeps_nothing_or_everything(thresholds: tuple[float | None, ...], value: float) -> None:
    flat = np.full((4, 4), value, np.float32)
    curves = explanation_curves(*explained(PerPixel(), bright(4), flat, thresholds), ZERO, EXACT)
    assert set(curves["curve_ratio"]) <= {0, 4}
    assert curves["insertion_fraction"].tolist() == [0] * 12 + [1]
    assert curves["insertion_dice"].tolist() == [0] * 12 + [1]
    assert curves["deletion_dice"].tolist() == [1] * 12 + [0]
    everything = thresholds == THRESHOLD or value > 0
    assert curves["curve_dice"].tolist() == [0] * 15 + [1 if everything else 0]


def slow_sets(ranked: np.ndarray, allowed: int, *, is_mask: bool) -> set[tuple[int, int]]:
    """Add pixels, the most salient first and equal ones together, while they fit."""
    chosen: set[tuple[int, int]] = set()
    for value in sorted({float(v) for v in ranked.ravel()}, reverse=True):
        alike = {(int(r), int(c)) for r, c in np.argwhere(ranked == value)}
        if (is_mask and value <= 0) or len(chosen) + len(alike) > allowed:
            break
        chosen |= alike
    return chosen


class Slow:
    """Dice of one set of pixels at a time, counted pixel by pixel."""

    def __init__(self, network: torch.nn.Module, explanation: Explanation, fill: np.ndarray) -> None:
        self.predict = as_numpy_predict(network)
        self.image, self.fill = explanation.image.numpy(), fill
        self.class_id, self.region = explanation.target.class_id, explanation.target.region.numpy()

    def __call__(self, kept: set[tuple[int, int]]) -> float:
        mask = np.array([[(r, c) in kept for c in range(SHAPE[1])] for r in range(SHAPE[0])])
        found = self.predict(oracle.blank(self.image, mask, self.fill)) == self.class_id
        return oracle.dice(found, self.region)


coarse = arrays(np.float64, SHAPE, elements=st.sampled_from([0.0, 0.25, 0.5, 1.0]))
fine = arrays(np.float64, SHAPE, elements=st.floats(-0.5, 1).map(lambda v: round(v, 2)))


@settings(max_examples=25)
@given(coarse | fine, st.booleans(), st.integers(0, 3), st.sampled_from(["zero", "mean", "black"]), st.integers(1, 20))
def test_against_a_slow_search(saliency: np.ndarray, is_mask: bool, seed: int, kind: str, batch_size: int) -> None:
    network = Shifts()
    image = torch.from_numpy(np.random.default_rng(seed).normal(size=(1, *SHAPE)))
    class_id = int(network(image[None]).argmax(1).mode().values.mode().values)
    blanking = Blanking(kind)
    model, explanation = explained(network, image, saliency, MASK if is_mask else THRESHOLD, class_id=class_id)
    compute = Compute(precision="32", batch_size=batch_size)
    curves = explanation_curves(model, explanation, blanking, compute, n_levels=7, n_steps=5)
    assert (np.diff(curves["curve_allowed"]) >= 0).all()
    assert (np.diff(curves["curve_levels"]) <= 0).all()
    fill = oracle.baseline(kind, image.numpy(), model.mean, model.std, blanking.sigma)
    score = Slow(network, explanation, fill)
    everything, size = set(np.ndindex(*SHAPE)), int(score.region.sum())
    differs = oracle.pixels((image.numpy() != fill).any(0))
    for i, allowed in enumerate(curves["curve_allowed"]):
        kept = slow_sets(saliency, int(allowed * size + 1e-6), is_mask=is_mask)
        assert curves["curve_ratio"][i] == len(kept) / size
        assert curves["curve_region_ratio"][i] == len(kept & differs) / size
        assert curves["curve_dice"][i] == score(kept)
    for i in range(6):
        moved = slow_sets(saliency, round(len(everything) * (i / 5) ** 3), is_mask=False)
        assert curves["insertion_fraction"][i] == curves["deletion_fraction"][i] == len(moved) / len(everything)
        assert curves["insertion_dice"][i] == score(moved)
        assert curves["deletion_dice"][i] == score(everything - moved)


@pytest.mark.parametrize("method", ["msr", "prediction", "sufficient_region", "rise", "seg_grad_cam"])
def test_the_last_point_of_a_mask_is_its_evaluation(method: str, make_images) -> None:
    images = make_images(1, 2, 12, 14).float()
    network = SegmentationModel(Convolutional(2), bottleneck="bottleneck")
    settings_ = {
        "msr": {"n_iterations": 8, "mask_size": 14, "clamp_low": 0.6},
        "rise": {"n_masks": 12, "thresholds": ()},
        "seg_grad_cam": {"thresholds": ()},
    }.get(method, {})
    explanation = explain(network, images[0], 1, method=method, precision="32", **settings_)
    curves = explanation_curves(network, explanation, ZERO, EXACT)
    assert curves["curve_dice"][-1] == explanation.evaluations[0].binary_dice_explained
    assert curves["curve_region_ratio"][-1] == explanation.evaluations[0].region_ratio


def test_a_set_is_passed_through_the_network_once() -> None:
    seen: list[int] = []
    network = PerPixel()
    network.register_forward_hook(lambda _module, inputs, _output: seen.append(len(inputs[0])))
    mask = np.zeros((4, 4), np.float32)
    mask[0] = 1
    prepared = explained(network, bright(4), mask)
    seen.clear()
    explanation_curves(*prepared, ZERO, EXACT)
    assert sum(seen) == 4  # nothing, the plateau, all but the plateau, everything


@pytest.mark.parametrize("wrong", [{"n_levels": 1}, {"n_steps": 0}, {"n_levels": 2.5}])
def test_too_few_points_are_refused(wrong: dict[str, float]) -> None:
    prepared = explained(PerPixel(), bright(4), np.zeros((4, 4), np.float32))
    with pytest.raises(MisureError, match=next(iter(wrong))):
        explanation_curves(*prepared, ZERO, EXACT, **wrong)


def test_plain_methods_differ_from_the_published_ones_in_amounts_alone() -> None:
    rise = replace(RISE.published(), n_masks=7, thresholds=(0.1,))
    plain = [MSR(), MSR(n_iterations=3, seed=4), rise, PredictionMap(), SegGradCAM()]
    assert all(is_plain(explainer) for explainer in plain)
    assert not any(
        is_plain(explainer) for explainer in (RISE(), MSR(lr=0.01), MSR(mask_size=56), PredictionMap(blanking="mean"))
    )
    assert is_plain(MSR().at_scale(0.5), 0.5)
    assert not is_plain(MSR(), 0.5)


def test_a_run_saves_the_first_samples_curves_of_plain_methods(tmp_path: Path) -> None:
    with initialize_config_dir(CONFIG_FOLDER, version_base="1.3"):
        runner = make_runner(tmp_path)
        few = ["n_samples=2", "profile.triangle.saved_maps=2", "profile.triangle.curve_samples=1"]
        plain = experiment("explainer=prediction", *few)
        others = [experiment("explainer=prediction", *few, change) for change in ("blanking=mean", "input_noise=1e-6")]
        runner.run([plain, *others])
        first, second = (runner.recorder.unit(plain, s).id for s in runner.recorder.samples(plain)[:2])
    saved = {path.stem: "curve_dice" in np.load(path).files for path in runner.recorder.store.maps_folder.glob("*.npz")}
    assert len(saved) == 6
    assert [unit for unit, has_curves in saved.items() if has_curves] == [first]
    assert not saved[second]


def test_what_is_not_finite_is_no_dice_of_zero() -> None:
    """A network that returns NaN for masked images was scored as if it had not found the object."""
    image = torch.rand(1, *SHAPE) + 0.1
    _, explanation = explained(PerPixel(), image, image[0].numpy())
    broken = SegmentationModel(lambda x: PerPixel()(x) + torch.where((x == 0).any(), torch.nan, 0.0))
    with pytest.raises(MisureError, match="returned NaN or infinity for masked images"):
        explanation_curves(broken, explanation, ZERO, EXACT)
    saliency = image[0].numpy().copy()
    for value in (np.nan, np.inf):
        saliency[2, 3] = value
        model, explanation = explained(PerPixel(), image, saliency)
        with pytest.raises(MisureError, match="the map has NaN or infinite values"):
            explanation_curves(model, explanation, ZERO, EXACT)
