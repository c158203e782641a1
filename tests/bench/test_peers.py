"""Other packages' maps equal ours where their recipe is the same; absent ones are named."""

from __future__ import annotations

import pytest
import torch
from bench_networks import toy_images, toy_model, toy_targets

from misure.bench.compare import run_bench
from misure.bench.peers import PEERS, Peer, absent_peers, peers_of
from misure.bench.speed import speed_page
from misure.errors import MisureError
from misure.explainers import RISE, Explainer, IntegratedGradients, SegGradCAM, make_explainer
from misure.metrics import dice, keep, min_max
from misure.models.compute import Compute
from misure.models.wrapper import SegmentationModel, frozen
from misure.target import TargetBatch

NOT_INSTALLED = "a package of the extra bench is not installed"


def by_peer_and_by_us(peer: Peer, explainer: Explainer) -> tuple[torch.Tensor, torch.Tensor]:
    model, images = toy_model(torch.float32), toy_images(1, torch.float32)
    targets = toy_targets(model, images)
    ours = explainer.explain(model, images, targets, Compute("32"))[0].saliency
    return peer.load()(model, images[0], targets[0], explainer).saliency, ours


@pytest.mark.parametrize("layer", [None, "0"])
@pytest.mark.parametrize("peer", PEERS["seg_grad_cam"], ids=lambda peer: peer.name)
def test_seg_grad_cam_of_others_is_ours_scaled(peer: Peer, layer: str | None) -> None:
    pytest.importorskip(peer.package, reason=NOT_INSTALLED)
    theirs, ours = by_peer_and_by_us(peer, SegGradCAM(layer=layer))
    assert ours.max() > ours.min()
    # both scale to [0, 1], with an epsilon of at most 1e-7 beside the range; the rest is float32 rounding
    torch.testing.assert_close(min_max(theirs[None])[0], min_max(ours[None])[0], rtol=0, atol=1e-5)


def test_integrated_gradients_are_captums() -> None:
    pytest.importorskip("captum", reason=NOT_INSTALLED)
    (peer,) = PEERS["integrated_gradients"]
    theirs, ours = by_peer_and_by_us(peer, make_explainer("integrated_gradients", n_steps=5))
    assert ours.max() > ours.min()
    # the same sums of float32 in another order
    torch.testing.assert_close(theirs, ours, rtol=1e-4, atol=1e-6)


def test_xaitk_weighs_its_own_masks_by_our_dice() -> None:
    pytest.importorskip("xaitk_saliency", reason=NOT_INSTALLED)
    from xaitk_saliency.impls.perturb_image.rise import RISEGrid

    (peer,) = PEERS["rise"]
    rise = RISE(n_masks=20, grid=4)
    model, images = toy_model(torch.float32), toy_images(1, torch.float32)
    targets = toy_targets(model, images)
    grid = RISEGrid(n=20, s=4, p1=rise.keep_probability, seed=rise.seed)
    masks = torch.from_numpy(grid(images[0].permute(1, 2, 0).numpy()))
    with frozen(model, Compute("32", 1), images.device) as network:
        batch = TargetBatch.stack(targets * 20, images.device)
        scores = dice(batch.hits(network(keep(images.expand(20, -1, -1, -1), masks))), batch.regions)
    expected = (scores[:, None, None] * masks).sum(0)
    theirs = peer.load()(model, images[0], targets[0], rise).saliency
    # a sum of 20 float32 masks
    torch.testing.assert_close(theirs.double(), expected / expected.max(), rtol=0, atol=1e-6)


def test_a_plain_callable_has_no_layers_for_others() -> None:
    model, images = toy_model(torch.float32), toy_images(1, torch.float32)
    plain = SegmentationModel(model)
    targets = toy_targets(model, images)
    for peer in peers_of("seg_grad_cam"):
        with pytest.raises(MisureError, match="plain callable"):
            peer.load()(plain, images[0], targets[0], SegGradCAM())


def test_an_absent_package_is_named_and_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("misure.bench.peers.find_spec", lambda name: None)
    assert {peer.name for peer in absent_peers(("msr", "rise", "seg_grad_cam"))} == {
        "torchcam", "grad-cam", "xaitk-saliency",
    }  # fmt: skip
    model, images = toy_model(torch.float32), toy_images(1, torch.float32)
    targets = toy_targets(model, images)
    gradients = {"integrated_gradients": IntegratedGradients()}
    both = {"seg_grad_cam": SegGradCAM(), **gradients}
    bench = run_bench(model, images, targets, both, repeats=1, progress=False)
    assert set(zip(bench["method"], bench["contestant"], strict=True)) == {
        ("seg_grad_cam", "literal"), ("seg_grad_cam", "misure"),
    }  # fmt: skip
    assert "captum was not measured" in speed_page(bench)
    with pytest.raises(MisureError, match=r"pip install 'misure\[bench\]'"):
        run_bench(model, images, targets, gradients, progress=False)
