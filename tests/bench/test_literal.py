"""Literal versions give the explainers' answers."""

from __future__ import annotations

import pytest
import torch
from bench_networks import toy_images, toy_model, toy_targets

from misure.bench.compare import as_the_paper
from misure.bench.literal import literal_msr, literal_rise, literal_seg_grad_cam
from misure.explainers import MSR, RISE, SegGradCAM


@pytest.mark.parametrize("radius", [1, 3])
def test_literal_msr_gives_the_explainers_masks(radius: int) -> None:
    model, images = toy_model(), toy_images(2)
    targets = toy_targets(model, images)
    msr = MSR(n_iterations=12, mask_size=8, tau=0.99, dilation_radius=radius)
    explained = msr.explain(model, images, targets)
    for image, target, expected in zip(images, targets, explained, strict=True):
        literal = literal_msr(model, image, target, msr)
        assert literal.n_dilations == expected.n_dilations
        assert torch.equal(literal.sufficient_region, expected.sufficient_region)
        # float64: summation order differs, 12 Adam steps amplify it by far less than 1e5
        torch.testing.assert_close(literal.saliency, expected.saliency, rtol=0, atol=1e-10)
    assert max(e.n_dilations for e in explained) > 0


def test_literal_rise_and_seg_grad_cam_give_the_explainers_maps() -> None:
    model, images = toy_model(), toy_images(2)
    targets = toy_targets(model, images)
    rise, cam = as_the_paper(RISE(), 7), SegGradCAM()
    by_rise, by_cam = rise.explain(model, images, targets), cam.explain(model, images, targets)
    for i, (image, target) in enumerate(zip(images, targets, strict=True)):
        torch.testing.assert_close(literal_rise(model, image, target, rise).saliency, by_rise[i].saliency)
        torch.testing.assert_close(literal_seg_grad_cam(model, image, target, cam).saliency, by_cam[i].saliency)
