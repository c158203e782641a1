"""HiResCAM, Seg-XRes-CAM, Score-CAM and Ablation-CAM: hand-set weights, slow oracles, the grad-cam package, 3-D."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from oracles import cams
from oracles.cams import as_image
from oracles.toys import Awkward, Convolutional, HandSet, Tokens, UNet3D, as_numpy_predict, random_images
from torch import nn

import misure
from misure.errors import MisureError
from misure.explainers.activations import without_channels
from misure.models.compute import Compute
from misure.models.wrapper import FrozenNetwork

CAMS = ("seg_grad_cam", "hires_cam", "score_cam", "ablation_cam")


def explain(network, images, method, target=1, layer="features", **options):
    return misure.explain(network, images, target, method, layer=layer, precision="32", **options)


ROW = torch.tensor([[[1.0, -1.0, 2.0, -3.0]]], dtype=torch.float64)
"""With HandSet, pixels 0 and 2 are the target; features are x and -2 x; their masks (x + 3) / 5 and (4 - 2 x) / 10."""


@pytest.mark.parametrize(
    ("method", "options", "expected"),
    [
        ("seg_grad_cam", {}, [2.5, 0, 5, 0]),  # two of four pixels are the target: 2 / 4 (3 x + (-1) (-2 x))
        ("hires_cam", {}, [5, 0, 10, 0]),  # the gradient lies on the target alone: 3 x + (-1) (-2 x)
        ("hires_cam", {"pool": 9}, [3, 0, 6, 0]),  # the largest gradients are 3 and 0
        ("score_cam", {}, [0, 1 / 3, 0, 1]),  # the second mask hides pixel 2: Dice 1 and 2/3
        ("ablation_cam", {}, [0, 0.2, 0, 0.6]),  # 3 of 5 are lost without the first, 2 of 5 without the second
    ],
)
def test_hand_set_weights(method, options, expected):
    explanation = explain(HandSet().double(), ROW, method, **options)
    expected = torch.tensor([expected], dtype=torch.float64)
    torch.testing.assert_close(explanation.saliency, expected, rtol=0, atol=1e-14)  # float64 rounding


class Pooled(nn.Module):
    """Every pixel of an image has its mean as logit, so that one position of a layer feels the whole target."""

    def __init__(self):
        super().__init__()
        self.features = nn.Conv2d(1, 2, 1, bias=False)
        nn.init.constant_(self.features.weight, 1)

    def forward(self, images):
        pooled = self.features(images.mean((2, 3), keepdim=True)).sum(1, keepdim=True)
        return torch.cat([-pooled, pooled], 1).expand(-1, -1, *images.shape[2:])


@pytest.mark.parametrize("method", ["seg_grad_cam", "hires_cam"])
def test_a_gradient_that_float16_cannot_hold(method):
    """The second image's target is small, so that its gradient is taken as it is."""
    images = torch.rand(2, 1, 300, 300, generator=torch.Generator().manual_seed(0))
    region = torch.ones(2, 300, 300, dtype=torch.bool)
    region[1, 10:] = False
    full, half = (explain(net, images, method, region=region) for net in (Pooled(), Pooled().half()))
    for one, other in zip(half, full, strict=True):
        torch.testing.assert_close(one.saliency, other.saliency, rtol=2e-3, atol=0)
    assert full[0].saliency.max() > 65504 > full[1].saliency.max()


def test_hand_set_weights_of_score_cam_s_original_reading():
    explanation = explain(HandSet().double(), ROW, "score_cam", score="logit")
    logits = np.array([5 * (0.8 * 1 + 1 * 2) / 2, 5 * (0.2 * 1 + 0 * 2) / 2])
    first, second = np.exp(logits) / np.exp(logits).sum()
    expected = np.maximum((first - 2 * second) * ROW[0].numpy(), 0)
    np.testing.assert_allclose(explanation.saliency.numpy(), expected, rtol=1e-12)


def test_score_cam_masks_with_the_blanking():
    """On the image's mean, -0.25, the second mask leaves pixel 2 at -0.25 as before, and pixel 0 at 0.2 - 0.2 = 0."""
    explanation = explain(HandSet().double(), ROW, "score_cam", blanking="mean")
    expected = torch.relu(ROW[0])  # Dice 1 and 0
    torch.testing.assert_close(explanation.saliency, expected, rtol=0, atol=1e-14)  # float64 rounding


def test_channels_that_show_no_place_are_left_out():
    network = HandSet().double()
    network.features.weight.data[1] = 0
    network.features.bias = nn.Parameter(torch.tensor([0.0, 7.0], dtype=torch.float64))
    explanation = explain(network, ROW + 3, "score_cam")
    torch.testing.assert_close(explanation.saliency, (ROW + 3)[0].relu(), rtol=0, atol=0)
    network.features.weight.data[0] = 0
    network.head.bias = nn.Parameter(torch.tensor([0.0, 8.0], dtype=torch.float64))
    for score in ("dice", "logit"):
        explanation = explain(network, ROW, "score_cam", score=score)
        assert torch.equal(explanation.saliency, torch.zeros(1, 4, dtype=torch.float64))


def test_ablation_keeps_the_sign_of_a_loss_where_logits_are_negative():
    class Low(HandSet):
        def forward(self, images):
            return super().forward(images) - 100

    explanation = explain(Low().double(), -ROW, "ablation_cam")
    score = 5 * (1 + 3) - 2 * 100  # the target is where -x > 0
    drops = np.array([3 * 4, 2 * 4]) / -score
    expected = np.maximum((drops[0] - 2 * drops[1]) * -ROW[0].numpy(), 0)
    np.testing.assert_allclose(explanation.saliency.numpy(), expected, rtol=1e-12)
    assert expected.max() > 0


def oracle(method, network, layer, image, region, *, options):
    module = network.get_submodule(layer)
    activation, gradient = cams.look_inside(network, module, image, 1, region)
    if method == "hires_cam":
        return cams.hires(activation, gradient, region.shape, options.get("pool", 1), options.get("pool_mode", "max"))
    if method == "seg_grad_cam":
        weights = [g.mean() for g in gradient]
    elif method == "ablation_cam":
        weights = cams.losses_of_channels(network, module, image, 1, region, n_channels=len(activation))
    else:
        weights = cams.dice_of_channels(as_numpy_predict(network), activation, image, 1, region)
    return cams.weighted(weights, activation, region.shape)


POOLED = [{}, {"pool": 2}, {"pool": 3, "pool_mode": "mean"}]
CASES = [*(("hires_cam", options) for options in POOLED), *((method, {}) for method in CAMS if method != "hires_cam")]
SHAPES = {"image": (2, 13, 18), "volume": (2, 5, 7, 6)}
# features.1 goes into an in-place layer
LAYERS = [("image", "features.0"), ("image", "features.1"), ("image", "bottleneck"), ("image", "head")]


@pytest.mark.parametrize(("kind", "layer"), [*LAYERS, ("volume", "encoder"), ("volume", "bottleneck")])
@pytest.mark.parametrize(("method", "options"), CASES)
def test_maps_equal_the_oracle(method, options, kind, layer):
    toy, seed = (Convolutional, 4) if kind == "image" else (UNet3D, 2)
    network, plain = (toy(2, seed=seed).double().eval() for _ in range(2))
    images = random_images(2, *SHAPES[kind])
    if kind == "image":
        plain.features[2].inplace = False
    for image, explanation in zip(images, explain(network, images, method, layer=layer, **options), strict=True):
        expected = oracle(method, plain, layer, image, explanation.target.region.numpy(), options=options)
        np.testing.assert_allclose(explanation.saliency.numpy(), expected, rtol=1e-9, atol=1e-10)  # float64 rounding
        assert expected.max() > 0


@pytest.mark.parametrize(
    ("method", "their_name", "layer", "options"),
    [
        ("seg_grad_cam", "GradCAM", "features", {}),
        ("seg_grad_cam", "GradCAM", "bottleneck", {}),
        ("hires_cam", "HiResCAM", "bottleneck", {}),
        ("score_cam", "ScoreCAM", "features", {"score": "logit"}),  # at full size: they align corners in masks
        ("ablation_cam", "AblationCAM", "features.2", {}),  # after a ReLU: elsewhere they subtract 1e7, not to zero
    ],
)
def test_maps_equal_the_grad_cam_package(method, their_name, layer, options, make_images):
    pytest.importorskip("pytorch_grad_cam", reason="grad-cam is not installed", exc_type=ImportError)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what other packages warn about while they are imported
        import pytorch_grad_cam
        from pytorch_grad_cam.utils.model_targets import SemanticSegmentationTarget
    toy, images = Convolutional(3, seed=6).eval(), make_images(2, 3, 16, 24).float()
    toy.features[2].inplace = False
    explanations = explain(toy, images, method, layer=layer, **options)
    shares = [e.target.region.float().numpy() / e.target.size for e in explanations]
    targets = [SemanticSegmentationTarget(1, share) for share in shares]
    with getattr(pytorch_grad_cam, their_name)(toy, [toy.get_submodule(layer)]) as cam:
        theirs = cam(images, targets)
    for explanation, their in zip(explanations, theirs, strict=True):
        ours = explanation.saliency.numpy()
        assert ours.max() > 0
        ours = (ours - ours.min()) / (ours.max() - ours.min())
        # float32 and their own small numbers in denominators; at the bottleneck, OpenCV's 11-bit bilinear weights
        np.testing.assert_allclose(ours, their, rtol=0, atol=2e-3 if layer == "bottleneck" else 2e-5)


class AsConvolutions(nn.Module):
    """What Tokens computes, with feature maps in place of tokens."""

    def __init__(self, tokens):
        super().__init__()
        self.embed, self.mix, self.head = tokens.embed, nn.Conv2d(7, 7, 1), nn.Conv2d(7, 3, 1)
        for mine, linear in ((self.mix, tokens.mixer), (self.head, tokens.head)):
            mine.weight = nn.Parameter(linear.weight.detach()[:, :, None, None].clone())
            mine.bias = nn.Parameter(linear.bias.detach().clone())

    def forward(self, x):
        return self.head(torch.tanh(self.mix(self.embed(x))))


@pytest.mark.parametrize("method", CAMS)
def test_token_layers_equal_a_layer_that_gives_images(method, make_images):
    toy, images = Tokens(seed=1).double(), make_images(2, 1, 14, 21)
    tokens = misure.SegmentationModel(toy, bottleneck="mixer", reshape=lambda t: as_image(t, *Tokens.grid(14, 21)))
    target = int(tokens(images).argmax(1).mode().values.mode().values[0])
    other = explain(AsConvolutions(toy).double(), images, method, target, layer="mix")
    for one, two in zip(explain(tokens, images, method, target, layer=None), other, strict=True):
        torch.testing.assert_close(one.saliency, two.saliency, rtol=1e-9, atol=1e-12)  # float64 rounding
        assert one.saliency.max() > 0


def test_a_class_token_survives_an_ablation():
    tokens = torch.arange(1.0, 31.0).view(2, 5, 3)  # a class token and 2 x 2 tokens of 3 channels
    model = misure.SegmentationModel(nn.Identity(), reshape=lambda t: as_image(t[:, 1:], 2, 2))
    network = FrozenNetwork(model, Compute(), torch.device("cpu"))
    expected = tokens.clone()
    expected[0, 1:, 2] = 0
    expected[1, 1:, 0] = 0
    assert torch.equal(without_channels(network, tokens, torch.tensor([2, 0]), rank=4), expected)


@pytest.mark.parametrize("method", CAMS)
@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ("twice", "layer twice ran 2 times: name another"),
        ("listing", "the layer gives a list, not a tensor"),
        ("twce", "no layer 'twce'; close names: twice"),
        (None, "no layer is named"),
    ],
)
def test_layers_that_cannot_be_explained_at(method, layer, message):
    with pytest.raises(MisureError, match=message):
        explain(Awkward(), torch.ones(1, 4, 5), method, layer=layer)


@pytest.mark.parametrize(
    ("method", "layer"),
    [("seg_grad_cam", "unused"), ("seg_grad_cam", "cut"), ("hires_cam", "cut"), ("ablation_cam", "unused")],
)
def test_layers_without_influence(method, layer):
    with pytest.raises(MisureError, match=f"layer {layer} does not influence the logits"):
        explain(Awkward(), torch.ones(1, 4, 5), method, layer=layer)


def test_a_layer_that_is_multiplied_by_zero_loses_nothing():
    explanation = explain(Awkward(), torch.ones(1, 4, 5), "ablation_cam", layer="cut")
    assert torch.equal(explanation.saliency, torch.zeros(4, 5))


@pytest.mark.parametrize("method", CAMS)
def test_layers_that_give_no_feature_map(method, make_images):
    with pytest.raises(MisureError, match=r"gives shape \(1, 24, 7\), not N x C x H x W.*reshape"):
        explain(Tokens().double(), make_images(1, 1, 14, 21), method, layer="mixer")


@pytest.mark.parametrize(("method", "extra"), [("score_cam", 1), ("ablation_cam", 3)])
def test_one_pass_per_channel_in_batches_of_the_asked_size(method, extra, make_images):
    """Five channels; one more pass for the target and, with each of two thresholds, one for the evaluation."""
    toy, sizes = Convolutional(1, seed=4).double(), []
    handle = toy.features.register_forward_hook(lambda _m, _i, output: sizes.append(len(output)))
    explain(toy, make_images(1, 1, 13, 18), method, layer="bottleneck", batch_size=2)
    handle.remove()
    assert max(sizes) == 2
    assert sum(sizes) == 5 + extra + 1 + 2
