"""Batch normalisation folded into convolutions: equal results, only where it is right, given back bit by bit."""

import copy

import pytest
import torch
from torch import nn

import misure
from misure.models.compute import Compute
from misure.models.fusion import foldable_layers, folded
from misure.models.logits import to_logits
from misure.models.wrapper import SegmentationModel, frozen

# Sums of a hundred products in another order, in float64.
ROUNDING = 1e-12


class Branches(nn.Module):
    """Rows of two (a, b); a convolution read elsewhere as well (c), returned (d) or used twice (e)."""

    def __init__(self, convolution: type[nn.Module] = nn.Conv2d, norm: type[nn.Module] = nn.BatchNorm2d) -> None:
        super().__init__()
        self.a, self.norm_a = convolution(1, 4, 3, padding=1), norm(4)
        self.b, self.norm_b = convolution(4, 4, 3, padding=1, bias=False), norm(4, affine=False)
        self.c, self.norm_c = convolution(4, 4, 1), norm(4)
        self.d, self.norm_d = convolution(4, 2, 1), norm(2)
        self.e, self.norm_e = convolution(4, 4, 1, bias=False), norm(4)
        for layer in self.modules():
            if isinstance(layer, norm):
                layer.running_mean.uniform_(-1, 1)
                layer.running_var.uniform_(0.5, 2)

    def forward(self, x):
        x = self.norm_b(self.b(self.norm_a(self.a(x)).relu()))
        c = self.c(x)
        x = self.norm_c(c) + c
        x = self.norm_e(self.e(self.norm_e(self.e(x))))  # used twice
        d = self.d(x)
        return {"out": self.norm_d(d), "raw": d}


@pytest.fixture(params=[(nn.Conv2d, nn.BatchNorm2d, 2), (nn.Conv3d, nn.BatchNorm3d, 3)], ids=["2-D", "3-D"])
def case(request):
    torch.manual_seed(0)
    *layers, rank = request.param
    return Branches(*layers).double().eval(), torch.rand(2, 1, *(6,) * rank, dtype=torch.float64)


def test_only_convolutions_read_by_a_normalisation_alone_are_found(case):
    network, x = case
    assert foldable_layers([network], lambda: network(x)) == [(network.a, network.norm_a), (network.b, network.norm_b)]


@pytest.mark.parametrize("obstacle", ["hook", "training", "shared"])
def test_layers_that_must_stay_as_they_are_are_left_alone(case, obstacle):
    network, x = case
    if obstacle == "hook":
        network.a.register_forward_hook(lambda *_: None)
    elif obstacle == "training":
        network.norm_a.train()
    else:
        network.c.weight = network.e.weight
        network.d.bias = None
        network.other = nn.Conv2d(1, 1, 1)
        network.other.weight = network.a.weight
    assert foldable_layers([network], lambda: network(x)) == [(network.b, network.norm_b)]


def test_a_weight_that_is_read_elsewhere_too_is_left_alone():
    class Reader(nn.Sequential):
        def forward(self, x):
            return super().forward(x) + nn.functional.conv2d(x, self[0].weight)

    network = Reader(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2)).eval()
    assert foldable_layers([network], lambda: network(torch.rand(1, 1, 2, 2))) == []


def test_an_identity_that_is_used_again_makes_no_pair():
    """A hooked convolution's output is not watched; when it is gone, a later one's may have its identity."""
    torch.manual_seed(0)
    blocks = [nn.Sequential(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1)) for _ in range(40)]
    for block in blocks[::2]:
        block[0].register_forward_hook(lambda *_: None)
    network = nn.Sequential(*blocks).eval()
    found = foldable_layers([network], lambda: network(torch.rand(1, 1, 2, 2)))
    assert found == [(block[0], block[1]) for block in blocks[1::2]]


def test_results_and_gradients_agree(case):
    network, x = case
    x.requires_grad_()
    plain = network(x)["out"]
    (gradient,) = torch.autograd.grad(plain.square().sum(), x)
    with folded(foldable_layers([network], lambda: network(x))):
        called = []
        handle = network.norm_a.register_forward_hook(lambda _m, given, out: called.append(given[0] is out))
        quick = network(x)["out"]
        (quick_gradient,) = torch.autograd.grad(quick.square().sum(), x)
        handle.remove()
    assert called == [True], "the normalisation still computes"
    torch.testing.assert_close(quick, plain, rtol=0, atol=ROUNDING)
    torch.testing.assert_close(quick_gradient, gradient, rtol=0, atol=ROUNDING * float(gradient.abs().max()) * 10)


def test_given_back_bit_by_bit_after_an_exception(case):
    network, x = case
    before, parameters = copy.deepcopy(network.state_dict()), dict(network.named_parameters())
    storage = {name: p.data_ptr() for name, p in parameters.items()}
    with folded(foldable_layers([network], lambda: network(x))):
        assert not torch.equal(network.a.weight, before["a.weight"])
    with pytest.raises(ZeroDivisionError), folded(foldable_layers([network], lambda: network(x))):
        1 / 0  # noqa: B018
    after = network.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert all(network.get_parameter(name) is p and p.data_ptr() == storage[name] for name, p in parameters.items())
    assert network.b.bias is None
    assert all("forward" not in vars(layer) for layer in network.modules())
    assert not any(layer._forward_hooks or layer._forward_pre_hooks for layer in network.modules())


@pytest.mark.parametrize(
    ("precision", "allowed", "folds"), [("32", True, True), ("32", False, False), ("bf16", True, False)]
)
def test_a_frozen_network_folds_where_the_setting_and_the_precision_allow_it(precision, allowed, folds):
    network = Branches()
    image = torch.rand(1, 1, 6, 6)
    with frozen(SegmentationModel(network), Compute(precision, fold=allowed), torch.device("cpu")) as lent:
        plain = lent(image)
        with lent.folded(image[0]):
            assert ("forward" in vars(network.norm_a)) is folds
            # float32, a few dozen operations on values of order one.
            torch.testing.assert_close(lent(image), plain, rtol=0, atol=1e-4)
        assert torch.equal(lent(image), plain)
    assert network.training


def test_without_normalisation_no_pass_is_spent():
    assert foldable_layers([nn.Conv2d(1, 1, 3)], lambda: pytest.fail("a pass was made")) == []


@pytest.mark.parametrize("wrap", [lambda n: torch.compile(n, backend="eager"), lambda n: n.forward, nn.DataParallel])
def test_a_wrapped_network_folds_as_it_does_alone(wrap):
    network, image = Branches(), torch.rand(1, 1, 6, 6)
    with frozen(SegmentationModel(wrap(network)), Compute("32"), torch.device("cpu")) as lent, lent.folded(image[0]):
        assert "forward" in vars(network.norm_a)


@pytest.mark.filterwarnings("ignore:.*torch.jit.trace:FutureWarning")  # to make the file that users bring
def test_torchscript_runs_as_one_piece():
    network = torch.jit.trace(nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2)).eval(), torch.rand(1, 1, 4, 4))
    assert foldable_layers([network], lambda: network(torch.rand(1, 1, 4, 4))) == []


@pytest.mark.parametrize(
    ("method", "parameters"),
    [
        ("meaningful_perturbation", {"n_iterations": 2, "grid": 3, "blur_sigma": 1, "jitter": 0}),
        ("msr", {"n_iterations": 2, "mask_size": 6}),
        ("rise", {"n_masks": 5, "grid": 2}),
        ("occlusion", {"window": 4, "stride": 3}),
        ("grid_saliency", {"n_iterations": 2, "grid": 3}),
        ("extremal_perturbation", {"n_iterations": 2, "mask_size": 6}),
    ],
)
def test_methods_of_many_passes_fold_and_explain_the_same(case, method, parameters):
    """In float64, so that rounding stays below what two steps make of it."""
    network, images = case
    class_id = int(to_logits(network(images[:1]), images[:1]).argmax(1).flatten().mode().values)
    seen = []

    def watch(_progress):
        seen.append("forward" in vars(network.norm_a))

    folded_map, plain_map = (
        misure.explain(
            network, images[0], class_id, method, precision="32", fold=fold, watch=watch, **parameters
        ).saliency
        for fold in (True, False)
    )
    assert any(seen)
    # Sums of a few dozen products of order one.
    torch.testing.assert_close(folded_map, plain_map, rtol=0, atol=1e-9)


class ByFunction(nn.Module):
    """Pairs of which one layer is a call of its own and the other a function of its tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.norm_a = nn.Conv2d(1, 4, 3, bias=False), nn.BatchNorm2d(4)
        self.b, self.norm_b = nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4)
        for norm in (self.norm_a, self.norm_b):
            norm.running_mean.uniform_(-1, 1)

    def forward(self, x):
        x = self.norm_a(nn.functional.conv2d(x, self.a.weight, padding=1))
        return nn.functional.batch_norm(self.b(x), self.norm_b.running_mean, self.norm_b.running_var)


def test_layers_used_by_a_function_of_their_tensors_are_left_alone():
    torch.manual_seed(0)
    network = ByFunction().eval()
    assert foldable_layers([network], lambda: network(torch.rand(1, 1, 8, 8))) == []
    assert not any(module._forward_hooks for module in network.modules())
