"""The pretended GPU gives the CPU's numbers and refuses what a GPU refuses."""

from __future__ import annotations

import pytest
import torch
from pretended_cuda import CUDA, PretendedTensor, pretended_cuda
from torch import nn


@pytest.fixture(autouse=True)
def _gpu():
    with pretended_cuda():
        yield


def numbers(device="cpu"):
    return torch.arange(6.0, device=device).view(2, 3)


@pytest.mark.parametrize(
    "mix",
    [
        lambda: numbers("cuda") + numbers(),
        lambda: torch.cat([numbers("cuda"), numbers()]),
        lambda: torch.where(numbers("cuda") > 0, numbers(), numbers("cuda")),
        lambda: nn.Linear(3, 2)(numbers("cuda")),
        lambda: nn.Linear(3, 2).to("cuda")(numbers()),
        lambda: numbers()[numbers("cuda") > 2],
        lambda: numbers().index_add_(0, torch.tensor([1, 0]), numbers("cuda")),
        lambda: numbers("cuda").gather(1, torch.zeros(2, 1, dtype=torch.int64)),
        lambda: nn.functional.cross_entropy(numbers("cuda"), torch.tensor([0, 1])),
        lambda: numbers("cuda").numpy(),
    ],
)
def test_tensors_of_two_devices_are_refused(mix):
    with pytest.raises(
        RuntimeError, match=r"same device|indices are on|cannot be put into|not supported for tensor sub"
    ):
        mix()


@pytest.mark.parametrize(
    "allowed",
    [
        lambda: numbers("cuda") * torch.tensor(2.0),  # a number on the CPU joins a GPU's tensors
        lambda: numbers("cuda")[torch.tensor([1])],  # and so do indices
        lambda: numbers("cuda").copy_(numbers()),
        lambda: numbers().to("cuda"),
        lambda: torch.tensor([1.0], device="cuda"),
        lambda: torch.zeros_like(numbers("cuda")),
        lambda: torch.nonzero(numbers("cuda") > 2),
        lambda: nn.Linear(3, 2).to("cuda").weight,
    ],
)
def test_what_a_gpu_allows_stays_on_it(allowed):
    made = allowed()
    assert isinstance(made, PretendedTensor)
    assert made.device == CUDA


def test_the_cpu_stays_the_cpu():
    for made in (numbers("cuda").cpu(), numbers("cuda").to("cpu", torch.int64), torch.zeros(3), numbers() + 1):
        assert type(made) is torch.Tensor
        assert made.device.type == "cpu"
    assert numbers("cuda").tolist() == numbers().tolist()
    assert float(numbers("cuda").sum()) == 15


def test_gradients_are_the_cpu_s():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Conv2d(3, 2, 1))
    images = torch.randn(2, 1, 6, 6)
    gradients = []
    for place in ("cpu", "cuda"):
        x = images.to(place).requires_grad_()
        chosen = network.to(place)(x)[torch.arange(2, device=place), torch.tensor([1, 0], device=place)]
        gradients.append(torch.autograd.grad(chosen.double().sum(), x)[0])
    assert gradients[1].device == CUDA
    assert torch.equal(gradients[1].cpu(), gradients[0])
