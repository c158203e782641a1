"""Other people's networks: they write into images, view, are compiled, wrapped or random."""

from __future__ import annotations

import random
import warnings
from functools import partial

import numpy as np
import pytest
import torch
from oracles.toys import Convolutional
from torch import nn
from torch.utils.checkpoint import checkpoint

import misure
from misure.models.compute import Compute
from misure.models.wrapper import SegmentationModel, frozen

CPU = torch.device("cpu")


class Bright(nn.Module):
    """Class 1 where the mean of the channels is above 0.5, with a step before the convolution."""

    def __init__(self, step, channels=3, kind=nn.Conv2d):
        super().__init__()
        self.step, self.conv = step, kind(channels, 2, 1)
        with torch.no_grad():
            self.conv.weight.zero_(), self.conv.bias.zero_()
            self.conv.weight[1], self.conv.bias[1] = 10 / channels, -5.0

    def forward(self, x):
        return self.conv(self.step(x))


def bright_image(*shape, dtype=torch.float32):
    image = torch.rand(shape, generator=torch.Generator().manual_seed(0), dtype=dtype) * 0.05
    image[..., 2:9, 3:8] += 0.9
    return image


METHODS = {
    "rise": {"n_masks": 8},
    "msr": {"mask_size": 8, "n_iterations": 3},
    "integrated_gradients": {"n_steps": 3},
    "hires_cam": {"layer": "conv"},
    "ablation_cam": {"layer": "conv"},
}


def assert_explained_alike(network, like, image, **options):
    """Compare every kind of method on two networks."""
    for method, parameters in METHODS.items():
        expected, found = (
            misure.explain(n, image, 1, method, precision="32", **parameters, **options) for n in (like, network)
        )
        assert found.target.size == expected.target.size > 0
        torch.testing.assert_close(found.saliency, expected.saliency, rtol=0, atol=1e-5)


def in_place(x):
    x -= 0.25
    x *= 2
    return x.relu_()


def on_first_channel(x):
    x[:, :1].sub_(0.25).mul_(2)
    return x


def through_numpy(x):
    x.detach().cpu().numpy()[...] -= 0.01
    return x


PURE = {in_place: lambda x: ((x - 0.25) * 2).relu(), through_numpy: lambda x: x - 0.01}
PURE[on_first_channel] = lambda x: torch.cat([(x[:, :1] - 0.25) * 2, x[:, 1:]], 1)


@pytest.mark.parametrize("step", PURE)
@pytest.mark.parametrize(
    ("shape", "kind", "dtype"),
    [
        ((1, 12, 16), nn.Conv2d, torch.float32),
        ((3, 12, 16), nn.Conv2d, torch.float64),
        ((1, 4, 12, 16), nn.Conv3d, torch.float32),
    ],
)
def test_a_network_that_writes_into_its_input_changes_nothing_of_the_user_s(step, shape, kind, dtype):
    original = bright_image(*shape, dtype=dtype)
    networks = [Bright(s, shape[0], kind).to(dtype) for s in (step, PURE[step])]
    for image in (original.clone(), original.clone().movedim(0, -1).contiguous().movedim(-1, 0)):
        assert_explained_alike(*networks, image)
        assert torch.equal(image, original)


def test_a_hook_that_writes_and_an_expanded_image():
    network, like = Bright(nn.Identity(), 1), Bright(PURE[in_place], 1)
    network.register_forward_pre_hook(lambda _module, inputs: in_place(inputs[0]))
    row = bright_image(1, 1, 16)
    row[..., 3:8] = 0.9
    image = row.expand(1, 12, 16)
    assert_explained_alike(network, like, image)
    assert float(image.max()) == pytest.approx(0.9)


def test_a_model_called_by_itself_leaves_its_images_alone():
    images = bright_image(2, 1, 12, 16)
    before, model = images.clone(), SegmentationModel(Bright(in_place, 1))
    model(images)
    model.layers(images[0])
    model.suggest_bottleneck(images[0])
    assert torch.equal(images, before)


class Step(nn.Module):
    def __init__(self, step):
        super().__init__()
        self.step = step

    def forward(self, x):
        return self.step(x)


class ContiguousBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x * 1

    @staticmethod
    def backward(ctx, gradient):
        return gradient.view(-1).view(gradient.shape)


def demanding(x):
    if not x.is_contiguous():
        raise RuntimeError("input must be contiguous")
    return x


def asserting(x):
    assert x.is_contiguous()
    return x


@pytest.mark.parametrize(
    "step",
    [
        lambda x: x.view(-1).view(x.shape),
        lambda x: torch.view_as_real(torch.view_as_complex(x.unflatten(-1, (-1, 2)))).flatten(-2),
        torch.vmap(lambda one: one.view(-1).view(one.shape)),
        demanding,
        asserting,
        ContiguousBackward.apply,
    ],
    ids=["view", "view_as_complex", "vmap", "RuntimeError", "assert", "backward"],
)
def test_channels_last_is_given_up_where_a_network_does_not_take_it(step):
    body = nn.Conv2d(3, 3, 1, bias=False)
    with torch.no_grad():
        body.weight.copy_(torch.eye(3)[..., None, None])
    network, like = (Bright(nn.Sequential(body, s), 3) for s in (Step(step), nn.Identity()))
    weights = body.weight.data_ptr(), body.weight.stride()
    for image in (bright_image(3, 12, 16), bright_image(3, 12, 16, dtype=torch.float64)):
        networks = [n.to(image.dtype) for n in (network, like)]
        assert_explained_alike(*networks, image)
        assert_explained_alike(*networks, image, channels_last=False)
        assert body.weight.stride() == weights[1]


def test_a_layout_that_was_given_up_stays_so_for_the_model_and_an_error_of_another_kind_does_not():
    model, passes = SegmentationModel(Bright(demanding)), []
    model.network.conv.register_forward_pre_hook(lambda _module, inputs: passes.append(inputs[0].is_contiguous()))
    images = bright_image(1, 3, 12, 16)
    for _ in range(2):
        with frozen(model, Compute("32"), CPU) as network:
            network(images)
    assert (model.takes_channels_last, passes) == (False, [True, True])
    other = SegmentationModel(Bright(lambda x: x.view(7)))
    with (
        frozen(other, Compute("32"), CPU) as network,
        pytest.raises(RuntimeError, match="is invalid for input of size"),
    ):
        network(images)
    assert other.takes_channels_last


CHECKPOINTED = partial(checkpoint, lambda x: x * 1, use_reentrant=True)


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
@pytest.mark.parametrize(
    ("step", "reason"),
    [
        (lambda x: torch.from_numpy(x.numpy() * 1), "RuntimeError: Can't call numpy"),
        (CHECKPOINTED, "RuntimeError: When use_reentrant=True"),
        (lambda x: {False: x}[x.requires_grad], "KeyError: True"),
    ],
    ids=["numpy", "checkpoint", "key"],
)
@pytest.mark.parametrize("method", ["msr", "integrated_gradients"])
def test_a_network_that_fails_only_with_gradients_is_one_line(step, reason, method):
    image = bright_image(3, 12, 16)
    with pytest.raises(misure.MisureError, match=f"Bright fails in {method} .{reason}.*: choose another method"):
        misure.explain(Bright(step), image, 1, method, precision="32", **METHODS[method])
    alone = misure.explain(Bright(nn.Identity()), image, 1, "rise", precision="32", n_masks=4).saliency
    assert torch.equal(misure.explain(Bright(step), image, 1, "rise", precision="32", n_masks=4).saliency, alone)


@pytest.mark.parametrize("error", [RuntimeError, ValueError, AssertionError, KeyError, misure.CancelledError])
def test_whatever_a_watcher_raises_ends_the_explanation(error):
    def watch(step):
        seen.append(step.stage)
        if step.stage == "minimising" and seen.count(step.stage) == 2:
            raise error("enough")

    seen, model = [], SegmentationModel(Bright(nn.Identity()))
    with pytest.raises(error, match="enough"):
        misure.explain(model, bright_image(3, 12, 16), 1, "msr", precision="32", watch=watch, **METHODS["msr"])
    assert seen.count("minimising") == 2
    assert model.takes_channels_last


@pytest.mark.parametrize("method", ["msr", "meaningful_perturbation", "rise"])
def test_autocast_around_an_explanation_lowers_nothing_of_it(method):
    options = {**METHODS, "meaningful_perturbation": {"grid": 4, "n_iterations": 2}}[method] | {"blanking": "blur"}
    network, image = Bright(nn.Identity()), bright_image(3, 12, 16)
    expected = misure.explain(network, image, 1, method, precision="32", **options).saliency
    with torch.autocast("cpu", torch.bfloat16):
        found = misure.explain(network, image, 1, method, precision="32", **options).saliency
    assert torch.equal(found, expected)


def warm(network):
    compiled = torch.compile(network.eval(), backend="eager")
    compiled(bright_image(1, 3, 12, 16))
    with torch.no_grad():
        compiled(bright_image(1, 3, 12, 16))
    return compiled.train()


def compiled_in_place(network):
    network.compile(backend="eager")
    return network


def compiled_part(network):
    network.conv = torch.compile(network.conv, backend="eager")
    return network


class Empty(nn.ModuleList):
    """A container that says that it is empty, or cannot say it."""

    def __len__(self):
        return 0

    def forward(self, x):
        return self.get_submodule("0")(x)


class Undecided(nn.Sequential):
    def __bool__(self):
        raise TypeError("undecided")


@pytest.mark.parametrize(
    ("wrap", "prefix"),
    [
        (lambda n: torch.compile(n, backend="eager"), ""),
        (lambda n: torch.compile(n, backend="eager"), "_orig_mod."),
        (lambda n: torch.compile(n, backend="aot_eager", fullgraph=True), ""),
        (warm, ""),
        (compiled_in_place, ""),
        (compiled_part, ""),
        (lambda n: torch.compile(lambda x: n(x), backend="eager"), ""),  # noqa: PLW0108
        (nn.DataParallel, "module."),
        (lambda n: Empty([n]), "0."),
        (Undecided, "0."),
        (lambda n: n.forward, ""),
        (lambda n: lambda x: {"out": n(x)}, ""),
    ],
)
def test_a_wrapped_network_is_explained_as_it_is_alone(wrap, prefix):
    network = nn.Sequential(nn.BatchNorm2d(3), nn.Dropout(0.5)).train()
    before = network[0].running_mean.clone()
    alone, wrapped = Bright(network), wrap(Bright(network))
    for method, parameters in METHODS.items():
        expected = misure.explain(alone, bright_image(3, 12, 16), 1, method, **parameters)
        named = {name: f"{prefix}{value}" if name == "layer" else value for name, value in parameters.items()}
        found = misure.explain(wrapped, bright_image(3, 12, 16), 1, method, **named)
        torch.testing.assert_close(found.saliency, expected.saliency, rtol=0, atol=1e-6)
    assert network.training
    assert torch.equal(network[0].running_mean, before)


def test_layers_of_a_compiled_network_have_the_names_that_they_were_given():
    image = torch.rand(1, 16, 24)
    plain, compiled = (SegmentationModel(n) for n in (Convolutional(), torch.compile(Convolutional(), backend="eager")))
    assert compiled.layers(image) == plain.layers(image)
    assert compiled.suggest_bottleneck(image) == plain.suggest_bottleneck(image)


class Noise(nn.Module):
    def __init__(self, draw):
        super().__init__()
        self.draw = draw
        self.torch, self.numpy, self.python = torch.Generator(), np.random.default_rng(), random.Random()

    def forward(self, x):
        return x + 0.2 * float(self.draw(self))


class MonteCarlo(nn.Dropout):
    def train(self, mode=True):
        return super().train(mode=True)


RANDOM = {
    "torch": [Noise(lambda _: torch.rand(1)), Noise(lambda self: torch.rand(1, generator=self.torch)), MonteCarlo(0.1)],
    "NumPy": [Noise(lambda _: np.random.random()), Noise(lambda self: self.numpy.random())],  # noqa: NPY002
    "Python": [Noise(lambda _: random.random()), Noise(lambda self: self.python.random())],
}


@pytest.mark.parametrize(("package", "step"), [(name, step) for name in RANDOM for step in RANDOM[name]])
@pytest.mark.parametrize("method", METHODS)
def test_a_network_that_stays_random_is_named_once_and_seeded(package, step, method):
    model, image, maps = SegmentationModel(Bright(step)), bright_image(3, 12, 16), []
    for state, seed in enumerate((0, 0, 7)):
        torch.manual_seed(state)
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            maps.append(misure.explain(model, image, 1, method, seed=seed, **METHODS[method]))
        named = [
            str(w.message)
            for w in said
            if f"Bright is random in evaluation mode (draws from {package})" in str(w.message)
        ]
        assert len(named) == (state == 0)
    assert torch.equal(maps[0].saliency, maps[1].saliency)
    assert maps[0].curve == maps[1].curve
    assert method != "msr" or maps[0].curve != maps[2].curve


@pytest.mark.parametrize("method", METHODS)
def test_a_network_that_is_not_random_is_not_named(method):
    misure.explain(
        Bright(nn.Dropout(0.5)), bright_image(3, 12, 16), 1, method, **METHODS[method]
    )  # warnings are errors
