"""What is explained: a class within a region, frozen on the unperturbed image."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from oracles.toys import Convolutional, PerPixel

import misure
from misure.errors import MisureError
from misure.models.compute import Compute
from misure.models.wrapper import SegmentationModel, frozen
from misure.regions import predicted_as
from misure.target import EmptyTargetError, Target, TargetBatch, has_background, make_all_targets, make_targets

CPU = torch.device("cpu")
PREDICTED = torch.tensor([[0, 1, 1], [0, 2, 1]])
LOGITS = 5 * torch.nn.functional.one_hot(PREDICTED, 4).permute(2, 0, 1).double()


@pytest.mark.parametrize("method", ["prediction", "msr"])
def test_a_ready_target_says_nothing_of_what_the_network_returns(method):
    """Probabilities are recognised, or asked for, by a pass over the image itself."""
    options = {"mask_size": 4, "n_iterations": 3} if method == "msr" else {}
    image = torch.randn(1, 4, 6, generator=torch.Generator().manual_seed(0))

    def softmax(x):
        return torch.cat([1 - x, x], 1).softmax(1)

    first = misure.explain(softmax, image, 1, method, precision="32", **options)
    again = misure.explain(softmax, image, first.target, method, precision="32", **options)
    assert torch.equal(first.saliency, again.saliency)
    assert first.evaluations == again.evaluations
    with pytest.raises(MisureError, match="output='probabilities' or output='logits'"):
        misure.explain(torch.sigmoid, image, first.target, method, **options)


def test_the_whole_class_is_the_default_region():
    target = Target.from_logits(LOGITS, 1)
    assert torch.equal(target.region, PREDICTED == 1)
    assert not target.ignored.any()
    assert torch.equal(target.background, PREDICTED == 0)
    torch.testing.assert_close(target.reference, LOGITS.softmax(0)[[0, 1]], rtol=0, atol=0)
    assert target.size == 3


def test_a_region_is_cut_to_the_prediction_and_the_rest_is_ignored():
    chosen = torch.tensor([[True, True, False], [False, True, False]])
    target = Target.from_logits(LOGITS, 1, chosen)
    assert target.region.nonzero().tolist() == [[0, 1]]
    assert target.ignored.nonzero().tolist() == [[0, 2], [1, 2]]
    everywhere = torch.zeros(1, 4, 2, 3)
    everywhere[:, 1] = 1
    assert torch.equal(TargetBatch.stack([target]).hits(everywhere)[0], ~target.ignored)


def test_each_image_of_a_batch_hits_its_own_class():
    targets = TargetBatch.stack([Target.from_logits(LOGITS, c) for c in (1, 2, 0)])
    hits = targets.hits(LOGITS.expand(3, -1, -1, -1))
    assert torch.equal(hits, torch.stack([c == PREDICTED for c in (1, 2, 0)]))
    assert torch.equal(targets[1:].hits(LOGITS.expand(2, -1, -1, -1)), hits[1:])
    assert torch.equal(targets[torch.tensor([2, 0])].hits(LOGITS.expand(2, -1, -1, -1)), hits[[2, 0]])


@pytest.mark.parametrize("classes", [(1, 1), (1, 2)])
def test_nothing_of_a_batch_is_an_empty_batch(classes):
    targets = TargetBatch.stack([Target.from_logits(LOGITS, c) for c in classes])
    logits = LOGITS.expand(2, -1, -1, -1)
    for none in (slice(0, 0), torch.zeros(2, dtype=torch.bool), torch.tensor([], dtype=torch.int64)):
        assert targets[none].hits(logits[:0]).shape == (0, 2, 3)
        assert targets[none].scores(logits[:0]).shape == (0, 2, 3)
        assert targets[none].are_background.dtype == torch.bool
    assert targets[torch.tensor([False, True])].class_ids == classes[1:]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@given(st.lists(st.integers(0, 4), min_size=1, max_size=4), st.integers(0, 2**31), st.sampled_from([0.5, 30.0]))
def test_hits_are_where_argmax_is_the_class_also_of_equal_logits(dtype, class_ids, seed, spread):
    """Logits of few values have many equal ones, of which argmax takes the first, and infinite ones."""
    made = torch.randn(len(class_ids), 5, 3, 4, generator=torch.Generator().manual_seed(seed))
    logits = (spread * made).round().to(dtype)
    logits[logits > 2 * spread], logits[logits < -2 * spread] = torch.inf, -torch.inf
    hits = predicted_as(logits, tuple(class_ids))
    assert torch.equal(hits, logits.argmax(1) == torch.tensor(class_ids).view(-1, 1, 1))
    assert torch.equal(predicted_as(logits, (class_ids[0],)), logits.argmax(1) == class_ids[0])


@pytest.mark.parametrize(("class_id", "region"), [(3, None), (1, torch.zeros(2, 3))])
def test_a_class_that_is_not_there_is_an_error_of_its_own_kind(class_id, region):
    with pytest.raises(EmptyTargetError, match="not predicted in"):
        Target.from_logits(LOGITS, class_id, region)


def resolve(network, images, target=None, region=None, **names):
    with frozen(SegmentationModel(network, **names), Compute("32", 1), CPU) as frozen_network:
        return make_targets(frozen_network, images, target, region)


BRIGHT = torch.tensor([[[[0.9, 0.1, 0.9]]], [[[0.9, 0.8, 0.1]]]])


def test_a_class_is_the_only_one_or_named():
    assert [t.class_id for t in resolve(PerPixel(), BRIGHT)] == [1, 1]
    assert resolve(PerPixel(), BRIGHT, "cell", class_names=("none", "cell"))[0].class_id == 1


@pytest.mark.parametrize(
    ("names", "background"),
    [
        (None, True),
        (("wall", "building", "sky"), False),
        (("road", "car", "person"), False),
        (("dark", "bright"), True),  # what is not the only object
        *(((name, "a", "b"), True) for name in ("background", "__background__", "BG", "Unlabelled", "void", "other")),
        *(((name, "a", "b"), True) for name in ("none", "ignore", "class 0", "LABEL_0", "0", "empty", "", " ")),
        *(
            ((name, "a", "b"), True)
            for name in ("Hintergrund", "Arrière-plan", "normal", "no_lesion", "N/A", "not labelled")
        ),
    ],
)
def test_class_0_is_background_unless_it_is_named_otherwise(names, background):
    assert has_background(SegmentationModel(PerPixel(), class_names=names)) == background
    assert not has_background(SegmentationModel(PerPixel(), class_names=names, multi_label=True))


def test_a_class_0_that_is_an_object_is_explained_like_any_other():
    def network(_):
        return LOGITS[None]

    wall = {"class_names": ("wall", "building", "sky", "tree")}
    with frozen(SegmentationModel(network, **wall), Compute("32", 1), CPU) as frozen_network:
        image = torch.zeros(1, 1, 2, 3)
        assert [target.class_id for target in make_all_targets(frozen_network, image)[0]] == [0, 1, 2]
        assert make_targets(frozen_network, image, None, at=(0, 0))[0].class_id == 0
        with pytest.raises(MisureError, match=r"out of \[0, 1, 2\]"):
            make_targets(frozen_network, image, None)


def test_one_region_serves_all_images_and_several_serve_one_each():
    first = torch.tensor([[True, False, False]])
    assert [t.size for t in resolve(PerPixel(), BRIGHT, 1, first)] == [1, 1]
    assert [t.size for t in resolve(PerPixel(), BRIGHT, 1, torch.stack([first, ~first]))] == [1, 1]
    assert resolve(PerPixel(), BRIGHT, 1, torch.stack([first, ~first]))[1].region.tolist() == [[False, True, False]]


def test_one_of_several_classes_has_to_be_named():
    with pytest.raises(MisureError, match=r"several classes are predicted: .* out of \[1, 2\]"):
        resolve(lambda _: LOGITS[None], torch.zeros(1, 1, 2, 3), None)


def test_confidence_is_the_mean_probability_over_the_region():
    logits = torch.zeros(2, 1, 4, dtype=torch.float64)
    logits[1, 0] = torch.tensor([math.log(3), math.log(9), -1.0, math.log(4)], dtype=torch.float64)
    chosen = torch.tensor([[True, True, True, False]])
    assert Target.from_logits(logits, 1, chosen).confidence == pytest.approx((0.75 + 0.9) / 2, abs=1e-12)  # float64


def test_scores_are_each_image_s_own_logits_and_pass_gradients():
    logits = LOGITS.expand(3, -1, -1, -1).clone().requires_grad_()
    scores = TargetBatch.stack([Target.from_logits(LOGITS, c) for c in (1, 2, 0)]).scores(logits)
    assert torch.equal(scores, LOGITS[[1, 2, 0]])
    (gradient,) = torch.autograd.grad(scores.sum(), logits)
    assert gradient.sum((2, 3)).tolist() == [[0, 6, 0, 0], [0, 0, 6, 0], [6, 0, 0, 0]]


@pytest.mark.parametrize("passes", [1, 2])
def test_probabilities_are_those_of_background_and_class(passes):
    targets = TargetBatch.stack([Target.from_logits(LOGITS, c) for c in (1, 2)])
    expected = LOGITS.softmax(0) if passes == 1 else LOGITS.softmax(0).softmax(0)
    probabilities = targets.probabilities(LOGITS.expand(2, -1, -1, -1), passes)
    assert torch.equal(probabilities, torch.stack([expected[[0, 1]], expected[[0, 2]]]))


YES_OR_NO = torch.tensor([[[1.0, -1.0, 2.0]], [[3.0, 3.0, -2.0]], [[-1.0, -2.0, 0.0]]], dtype=torch.float64)
"""Three overlapping classes on 1 x 3 pixels; the last is predicted nowhere, although a logit is 0."""


def test_with_a_multi_label_head_every_class_is_its_own_yes_or_no():
    for class_id, chosen in enumerate([[[True, False, True]], [[True, True, False]]]):
        target = Target.from_logits(YES_OR_NO, class_id, multi_label=True)
        assert target.region.tolist() == chosen
        assert torch.equal(target.background, ~target.region)
        yes = YES_OR_NO[class_id].sigmoid()
        torch.testing.assert_close(target.reference, torch.stack([1 - yes, yes]))  # the rounding of a sigmoid
    with pytest.raises(EmptyTargetError, match=r"class 2 was not predicted in this image; predicted classes: \[0, 1\]"):
        Target.from_logits(YES_OR_NO, 2, multi_label=True)


def test_a_multi_label_batch_looks_at_each_image_s_own_logit_alone():
    targets = [Target.from_logits(YES_OR_NO, c, region, multi_label=True) for c, region in ((1, None), (0, FIRST))]
    batch = TargetBatch.stack([t.cpu() for t in targets])[torch.tensor([1, 0])]
    assert not batch.are_background.any()
    logits = YES_OR_NO.expand(2, -1, -1, -1)
    assert batch.hits(logits).tolist() == [[[True, False, False]], [[True, True, False]]]  # pixel 2 is ignored
    assert torch.equal(batch.scores(logits), YES_OR_NO[[0, 1]])
    yes = YES_OR_NO[[0, 1]].sigmoid()
    torch.testing.assert_close(batch.probabilities(logits), torch.stack([1 - yes, yes], 1))
    with pytest.raises(MisureError, match="softmax_passes=2: a multi-label sigmoid head has no softmax, use 1"):
        batch.probabilities(logits, 2)


FIRST = torch.tensor([[True, True, False]])


@pytest.mark.parametrize(
    ("at", "expected"),
    [((0, 1), 1), ((0, 2), 0), ((0, 0), r"several classes are predicted at \(0, 0\).*out of \[0, 1\]")],
)
def test_the_class_at_a_point_of_a_multi_label_head(at, expected):
    with frozen(SegmentationModel(lambda x: YES_OR_NO[None], multi_label=True), Compute("32", 1), CPU) as network:
        if isinstance(expected, int):
            assert make_targets(network, torch.zeros(1, 1, 1, 3), None, at=at)[0].class_id == expected
        else:
            with pytest.raises(MisureError, match=expected):
                make_targets(network, torch.zeros(1, 1, 1, 3), None, at=at)


@pytest.mark.parametrize(
    ("method", "parameters"),
    [
        ("msr", {"mask_size": 12, "n_iterations": 12, "tv_weight": 0.01}),
        ("msr", {"mask_size": 12, "n_iterations": 12, "dice_target": "soft"}),
        ("msr", {"mask_size": 12, "n_iterations": 12, "dice_over": "classes", "false_positives": False}),
        ("sufficient_region", {}),
        ("rise", {"n_masks": 20}),
        ("seg_grad_cam", {"layer": "bottleneck"}),
    ],
)
def test_a_single_yes_or_no_equals_background_and_class(method, parameters, make_images):
    """A logit z as class 0 of a multi-label head, and (0, z) as class 1 of a softmax head: the same to the last bit."""
    toy, image = Convolutional(output="sigmoid", seed=3).double(), make_images(1, 1, 12, 12)[0]
    assert (toy.eval()(image[None]) > 0).any()
    half = torch.arange(12).expand(12, 12) < 8
    for region in (None, half):
        alone, pair = (
            misure.explain(SegmentationModel(toy, multi_label=many), image, c, method, region=region, **parameters)
            for many, c in ((True, 0), (False, 1))
        )
        assert torch.equal(alone.saliency, pair.saliency)
        assert alone.saliency.any()
        assert alone.evaluations == pair.evaluations
        assert (alone.curve, alone.n_dilations) == (pair.curve, pair.n_dilations)


@pytest.mark.parametrize("target", [None, "all"])
def test_a_multi_label_output_may_be_a_view(target):
    image = torch.tensor([[[1.0, -1, 1], [-1, -1, 1]]])
    model = SegmentationModel(
        lambda x: torch.cat([x, -x.abs()], 1).transpose(2, 3).contiguous().transpose(2, 3), multi_label=True
    )
    made = misure.explain(model, image, target, "prediction")
    (one,) = made if target else [made]
    assert torch.equal(one.target.region, image[0] > 0)


def test_all_counts_class_0_of_a_multi_label_head():
    model = SegmentationModel(lambda x: torch.cat([x - 0.5, 0.2 - x, x - 2], 1), multi_label=True)
    assert [e.target.class_id for e in misure.explain(model, BRIGHT[0], "all", "prediction")] == [0, 1]
