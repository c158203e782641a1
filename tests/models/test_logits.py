"""Logits found in any output, upsampled, and sigmoid heads as two classes."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from oracles.resizing import bilinear

import misure
from misure.errors import MisureError
from misure.models.logits import OutputReading, located, to_logits

IMAGES = torch.zeros(2, 1, 8, 12)
LOGITS = torch.arange(2 * 3 * 8 * 12).view(2, 3, 8, 12).float()
WIDE = torch.zeros(1, 3, 64, 96)
SQUARE = torch.zeros(1, 3, 640, 640)
NUMBERS = torch.tensor([[0, 2, 3, 0], [2, 2, 0, 0]]).repeat_interleave(2, 0).repeat_interleave(2, 1)  # 4 x 8


@dataclass
class Found:
    """An output as networks define their own."""

    logits: torch.Tensor


class Named(NamedTuple):
    """An output whose logits do not come first."""

    aux: Any
    logits: torch.Tensor


def read(found, *, multi_label=False, output="auto", n_names=0) -> torch.Tensor:
    """Examine an output for one image of its size, as for the image that is explained, and return logits."""
    reading, images = OutputReading(output), torch.zeros(1, 1, 4, 8)
    found = located(found, images)
    reading.examine(found, multi_label=multi_label)
    return reading.logits(found, images, multi_label=multi_label, n_names=n_names)


@pytest.mark.parametrize(
    "output",
    [
        LOGITS,
        {"out": LOGITS, "aux": None},
        {"logits": LOGITS},
        SimpleNamespace(logits=LOGITS),
        (LOGITS, "features"),
        [LOGITS],
        {"out": SimpleNamespace(logits=(LOGITS,))},
        SimpleNamespace(out=LOGITS, boxes="of regions"),
        Named(None, LOGITS),
        Found(LOGITS),
        [LOGITS, LOGITS[..., ::2, ::2], LOGITS[..., ::4, ::4]],  # deep supervision
        [LOGITS[..., ::4, ::4], LOGITS],
    ],
)
def test_logits_are_found_in_every_kind_of_output(output):
    assert to_logits(output, IMAGES) is LOGITS


@pytest.mark.parametrize(
    "output",
    [
        LOGITS.movedim(1, -1),
        list(LOGITS),
        LOGITS.numpy(),
        LOGITS.movedim(1, -1).numpy()[:, ::-1][:, ::-1],
        SimpleNamespace(__array__=LOGITS.numpy().__array__, shape=LOGITS.shape),
    ],
    ids=[
        "channels last",
        "a tensor for each image",
        "array",
        "view of an array, channels last",
        "array of another package",
    ],
)
def test_arrays_and_channels_at_the_end_are_understood(output):
    assert torch.equal(to_logits(output, IMAGES), LOGITS)


@pytest.mark.parametrize("drop_channel", [False, True])
def test_one_channel_becomes_two_logits_whose_softmax_is_the_sigmoid(drop_channel):
    z = torch.linspace(-3, 3, 2 * 8 * 12, dtype=torch.float64).view(2, 1, 8, 12)
    logits = to_logits(z[:, 0] if drop_channel else z, IMAGES)
    assert logits.shape == (2, 2, 8, 12)
    torch.testing.assert_close(logits.softmax(1)[:, 1], z[:, 0].sigmoid(), rtol=0, atol=1e-15)  # float64 rounding


def test_small_logits_are_upsampled_bilinearly():
    small = torch.randn(2, 3, 2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    got = to_logits(small, IMAGES)
    expected = bilinear(small[1, 2].numpy(), 8, 12)
    np.testing.assert_allclose(got[1, 2].numpy(), expected, rtol=0, atol=1e-14)  # float64 rounding


@pytest.mark.parametrize(
    ("output", "images", "message"),
    [
        ({"mask": LOGITS}, IMAGES, r"returned dict with keys \['mask'\]"),
        ("logits", IMAGES, "returned str; expected logits"),
        ([], IMAGES, "returned list"),
        (None, IMAGES, "returned NoneType"),
        (np.array(["a"]), IMAGES, "returned ndarray, which is no array of numbers"),
        (LOGITS[:1], IMAGES, r"shape \(1, 3, 8, 12\) for images \(2, 1, 8, 12\): 1 results for 2 images"),
        (LOGITS[0, 0, 0], IMAGES, "1 axes; expected N x classes x H x W"),
        (LOGITS.to(torch.complex64), IMAGES, "complex64 of shape .*complex numbers"),
        (LOGITS[:, :0], IMAGES, "it is empty"),
        (LOGITS[:1, :, None], IMAGES[:1], "5 axes; expected N x classes x H x W"),  # of a network for volumes
        (LOGITS[0], IMAGES[:1], "the axis of the images is missing"),
        (LOGITS[0, 0], IMAGES[:1], "the axis of the images is missing"),
        (torch.zeros(1, 16, 24, 3), WIDE, "the classes seem to be the last axis"),
        ((torch.zeros(1, 37, 96), torch.zeros(1, 32, 16, 24)), WIDE, r"\(1, 37, 96\) .* boxes or queries"),
        (torch.zeros(1, 116, 8400), SQUARE, "boxes or queries"),
        (torch.zeros(1, 100, 92), SQUARE, "boxes or queries"),
        (torch.zeros(1, 3, 25200, 85), SQUARE, "boxes or tokens"),
        (torch.zeros(1, 1, 200, 7), SQUARE, "boxes or tokens"),
        (LOGITS.mT, IMAGES, r"\(2, 3, 12, 8\) .* its sides are those of the image in another order"),
        (torch.zeros(1, 2, 4, 16, 8), torch.zeros(1, 1, 16, 8, 4), "of the image in another order"),
        (torch.zeros(1, 1000), SQUARE, "2 axes, as of a classifier"),
        (torch.zeros(1, 512, 1, 1), SQUARE, "one value for a whole image"),
        ([{"boxes": 0, "masks": 0}], WIDE, r"dict with keys \['boxes', 'masks'\].* objects or queries"),
        ({"logits": torch.zeros(1, 16, 24), "pred_boxes": 0}, WIDE, "objects or queries"),
        (SimpleNamespace(logits=torch.zeros(1, 16, 24), pred_masks=0), WIDE, "objects or queries"),
        ({"class_queries_logits": 0, "masks_queries_logits": 0}, WIDE, "objects or queries"),
    ],
)
def test_other_outputs_are_refused_in_one_line(output, images, message):
    with pytest.raises(MisureError, match=message) as caught:
        to_logits(output, images)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("shape", "sides"),
    [((16, 24), (64, 96)), ((9, 13), (65, 97)), ((8, 12), (65, 97)), ((130, 194), (65, 97)), ((37, 37), (518, 518))],
)
def test_one_class_without_its_axis_may_have_any_scaled_size(shape, sides):
    assert located(torch.zeros(1, *shape), torch.zeros(1, 3, *sides)).shape == (1, 1, *shape)


def test_an_image_squeezed_into_a_square_is_stretched_back():
    assert to_logits(torch.zeros(1, 4, 24, 24), torch.zeros(1, 3, 20, 30)).shape == (1, 4, 20, 30)


@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.int32, torch.uint16])
@pytest.mark.parametrize(
    "layout",
    [lambda n: n[None], lambda n: n[None, None], lambda n: n[None, :, :, None], lambda n: n[None, ::2, ::2]],
    ids=["N x H x W", "N x 1 x H x W", "N x H x W x 1", "N x h x w"],
)
def test_class_numbers_become_logits_of_these_classes(dtype, layout):
    logits = read(layout(NUMBERS.to(dtype)))
    assert torch.equal(logits.argmax(1)[0], NUMBERS)
    assert logits.shape[1] == 5  # 0 to 3, and any other
    torch.testing.assert_close(logits.softmax(1).amax(1), torch.ones(1, 4, 8))


def test_class_numbers_that_come_up_on_masked_images_are_no_class_of_the_image():
    reading, images = OutputReading(), torch.zeros(1, 1, 4, 8)
    reading.examine(located(NUMBERS[None], images), multi_label=False)
    later = reading.logits(located(NUMBERS[None] + 2, images), images, multi_label=False)
    assert later.argmax(1).unique().tolist() == [2, 4]
    assert read(NUMBERS[None], n_names=7).shape[1] == 8


def test_floats_are_class_numbers_only_where_that_is_said():
    with pytest.raises(MisureError, match=r"values from 0 to 3, all whole: give .* output='class_numbers' or "):
        read(NUMBERS[None].float())
    assert torch.equal(read(NUMBERS[None].float(), output="class_numbers").argmax(1)[0], NUMBERS)
    assert read(NUMBERS[None].float(), output="logits").argmax(1).unique().tolist() == [0, 1]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_a_softmax_is_recognised_and_its_probabilities_stay(dtype):
    probabilities = torch.randn(1, 3, 4, 8, generator=torch.Generator().manual_seed(0)).mul(9).softmax(1).to(dtype)
    logits = read(probabilities)
    assert torch.equal(logits.argmax(1), probabilities.argmax(1))
    share = probabilities.to(logits.dtype) / probabilities.to(logits.dtype).sum(1, keepdim=True)
    torch.testing.assert_close(logits.softmax(1), share, rtol=0, atol=1e-6)
    assert torch.equal(read(probabilities, output="logits"), probabilities)


@pytest.mark.parametrize(("channels", "multi_label"), [(1, False), (1, True), (3, True)])
def test_a_sigmoid_is_refused_until_it_is_told(channels, multi_label):
    probabilities = torch.linspace(0, 1, channels * 32, dtype=torch.float64).view(1, channels, 4, 8)
    with pytest.raises(MisureError, match=f"shape \\(1, {channels}, 4, 8\\) with values from 0 to 1.*'probabilities'"):
        read(probabilities, multi_label=multi_label)
    told = read(probabilities, multi_label=multi_label, output="probabilities")
    found = told.sigmoid() if multi_label else told.softmax(1)[:, 1:]
    torch.testing.assert_close(found, probabilities, rtol=0, atol=1e-15)  # float64 rounding
    logits = read(probabilities, multi_label=multi_label, output="logits")
    assert torch.equal(logits if multi_label else logits[:, 1:], probabilities)


def test_sigmoids_of_classes_that_are_not_said_to_overlap_are_named():
    probabilities = torch.linspace(0, 1, 96).view(1, 3, 4, 8)
    with pytest.warns(UserWarning, match="taken for logits: give .*'probabilities'"):
        assert torch.equal(read(probabilities), probabilities)


def test_gradients_pass_through_probabilities_however_small():
    probabilities = torch.tensor([1.0, 1e-30, 0.0]).view(1, 3, 1, 1).expand(1, 3, 4, 8).clone().requires_grad_()
    read(probabilities).softmax(1)[:, 0].sum().backward()
    assert probabilities.grad.isfinite().all()


@pytest.mark.parametrize(
    ("output", "found", "message"),
    [
        ("auto", torch.full((1, 2, 4, 8), torch.nan), r"NaN or infinity for the image itself \(32 values"),
        ("logits", torch.full((1, 1, 4, 8), torch.inf), r"NaN or infinity for the image itself \(32 values"),
        ("auto", torch.full((1, 2, 4, 8), -torch.inf), "NaN or infinity"),
        ("auto", torch.zeros(1, 5, 4, 8, dtype=torch.int64), "int64 of shape .* neither logits nor class numbers"),
        ("auto", torch.full((1, 4, 8), 26001), "int64 .* 2.6e\\+04, which are no class numbers, 0 to 999"),
        ("auto", torch.full((1, 4, 8), -1), "no class numbers"),
        ("probabilities", torch.full((1, 2, 4, 8), 7.0), "values from 7 to 7, which are no probabilities"),
        ("class_numbers", torch.full((1, 4, 8), 0.5), "no class numbers"),
        ("class_numbers", torch.zeros(1, 2, 4, 8), "no class numbers"),
    ],
)
def test_values_that_are_not_what_they_should_be_are_refused(output, found, message):
    with pytest.raises(MisureError, match=message):
        read(found, output=output)


def test_a_class_that_is_switched_off_by_minus_infinity_is_none():
    logits = LOGITS[:1, :, :4, :8].clone()
    logits[:, 2] = -torch.inf
    assert read(logits).argmax(1).unique().tolist() == [1]


def test_an_unknown_kind_of_output_names_those_there_are():
    with pytest.raises(
        MisureError, match="output=sigmoid is not known: choose auto or logits or probabilities or class_numbers"
    ):
        misure.SegmentationModel(lambda x: x, output="sigmoid")


def test_the_first_image_says_what_a_network_returns():
    """A logit head that is sure of an object everywhere in a later image is not taken for a sigmoid."""
    model = misure.SegmentationModel(lambda x: x)
    assert model(torch.full((1, 1, 4, 8), -1.0)).argmax(1).sum() == 0
    assert model(torch.full((1, 1, 4, 8), 0.5)).argmax(1).sum() == 32


def test_class_numbers_are_explained_without_gradients():
    image = torch.zeros(1, 16, 16)
    image[:, 4:10, 4:10] = 1
    model = misure.SegmentationModel(lambda x: (2 * (x[:, 0] > 0.5)).long())
    found = misure.explain(model, image, 2, "occlusion", window=4, stride=4)
    assert found.target.size == 36
    assert found.saliency.max() > 0
    with pytest.raises(MisureError, match="gives no gradients, and msr needs them: choose another method, out of"):
        misure.explain(model, image, 2, "msr")


def test_class_numbers_with_names_are_asked_for_by_name():
    """The class that stands for numbers which no image has shown needs none."""
    model = misure.SegmentationModel(lambda x: (x[:, 0] > 0.5).long(), class_names=["background", "marked"])
    made = misure.explain(model, torch.tensor([[[0.0, 1.0, 1.0]]]), "marked", "prediction")
    assert made.target.region.tolist() == [[False, True, True]]
