"""Toy networks: some with answers known by hand, some random, every kind of output."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate


def random_images(*shape: int, seed: int = 0) -> Tensor:
    """Draw normal values in float64: N x C x H x W, or N x C x D x H x W for volumes."""
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape))


def set_randomly(network: nn.Module, scale: float, seed: int) -> None:
    """Draw every parameter from a normal distribution of this standard deviation."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale)


class PerPixel(nn.Module):
    """Class 1 where the first channel exceeds ``threshold``: every pixel depends on itself alone."""

    def __init__(self, threshold: float = 0.5, gain: float = 4.0) -> None:
        super().__init__()
        self.threshold, self.gain = threshold, gain

    def forward(self, images: Tensor) -> Tensor:
        logit = self.gain * (images[:, 0] - self.threshold)
        return torch.stack([torch.zeros_like(logit), logit], 1)


class Trigger(nn.Module):
    """Predicts a fixed block as class 1 exactly if one pixel is bright; nothing else matters."""

    def __init__(self, block: Tensor, pixel: tuple[int, int], gain: float = 4.0) -> None:
        super().__init__()
        self.block, self.pixel, self.gain = block, pixel, gain

    def forward(self, images: Tensor) -> Tensor:
        switch = self.gain * (images[:, 0, self.pixel[0], self.pixel[1]] - 0.5)
        logit = torch.where(self.block, switch.view(-1, 1, 1), images.new_tensor(-self.gain))
        return torch.stack([torch.zeros_like(logit), logit], 1)


class Shifts(nn.Module):
    """Three classes from shifted copies of the image, without convolutions or matrix products.

    Every pixel is computed by the same scalar operations whatever the batch, which PyTorch's
    convolutions do not promise: results must be equal to the last bit.
    """

    def __init__(self, channels: int = 1) -> None:
        super().__init__()
        self.bottleneck = nn.Tanh()
        self.weights = [0.3 + 0.1 * c for c in range(channels)]

    def forward(self, images: Tensor) -> Tensor:
        grey = sum(w * images[:, c : c + 1] for c, w in enumerate(self.weights))
        shifted = [grey.roll(s, dims=(2, 3)) for s in ((0, 0), (1, 0), (0, 2), (-3, -1))]
        features = self.bottleneck(torch.cat(shifted, 1))
        a, b, c, d = features.unbind(1)
        return torch.stack([0.1 - a * d, 2 * a + b - 0.5 * d, c - a], 1)


class Convolutional(nn.Module):
    """A small random network with batch normalisation, dropout, in-place layers and a stride-4 bottleneck.

    Args:
        channels: Image channels.
        classes: Channels of the logits.
        output: ``tensor``, ``dict``, ``quarter`` (an object whose ``.logits`` are at H/4) or ``sigmoid``.
        seed: Of the weights.
    """

    def __init__(self, channels: int = 1, classes: int = 3, output: str = "tensor", seed: int = 0) -> None:
        super().__init__()
        self.output = output
        self.features = nn.Sequential(
            nn.Conv2d(channels, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(inplace=True), nn.Dropout(0.5)
        )
        self.bottleneck = nn.Conv2d(6, 5, 3, stride=4, padding=1)
        self.head = nn.Conv2d(5 if output == "quarter" else 11, 1 if output == "sigmoid" else classes, 1)
        set_randomly(self, 0.8, seed)

    def forward(self, images: Tensor):
        fine = self.features(images)
        coarse = torch.tanh(self.bottleneck(fine))
        if self.output == "quarter":
            return SimpleNamespace(logits=self.head(coarse), hidden_states=None)
        logits = self.head(torch.cat([fine, interpolate(coarse, size=fine.shape[2:], mode="nearest")], 1))
        return {"aux": None, "out": logits} if self.output == "dict" else logits


class Tokens(nn.Module):
    """Patches become tokens (N x T x C), a linear layer, and logits at H/4."""

    def __init__(self, channels: int = 1, classes: int = 3, seed: int = 0) -> None:
        super().__init__()
        self.embed = nn.Conv2d(channels, 7, 4, stride=4, padding=2)
        self.mixer = nn.Linear(7, 7)
        self.head = nn.Linear(7, classes)
        set_randomly(self, 0.6, seed)

    def forward(self, images: Tensor) -> Tensor:
        patches = self.embed(images)
        tokens = torch.tanh(self.mixer(patches.flatten(2).transpose(1, 2)))
        return self.head(tokens).transpose(1, 2).reshape(len(images), -1, *patches.shape[2:])

    @staticmethod
    def grid(height: int, width: int) -> tuple[int, int]:
        return height // 4 + 1, width // 4 + 1


class UNet3D(nn.Module):
    """Two levels, a few channels, random weights; ``across`` is the depth of its kernels."""

    def __init__(self, channels: int = 1, classes: int = 3, across: int = 3, seed: int = 0) -> None:
        super().__init__()
        kernel = {"kernel_size": (across, 3, 3), "padding": (across // 2, 1, 1)}
        self.encoder = nn.Sequential(nn.Conv3d(channels, 4, **kernel), nn.BatchNorm3d(4), nn.ReLU(inplace=True))
        self.bottleneck = nn.Sequential(nn.Conv3d(4, 6, stride=(1 + across // 2, 2, 2), **kernel), nn.Tanh())
        self.head = nn.Conv3d(10, classes, 1)
        set_randomly(self, 0.6, seed)

    def forward(self, volumes: Tensor) -> Tensor:
        fine = self.encoder(volumes)
        coarse = interpolate(self.bottleneck(fine), size=fine.shape[2:], mode="nearest")
        return self.head(torch.cat([fine, coarse], 1))


class HandSet(nn.Module):
    """Two feature maps, x and -2x, enter class 1 with weights 3 and -1, so each logit is 5x."""

    def __init__(self, sign: float = 1.0) -> None:
        super().__init__()
        self.features = nn.Conv2d(1, 2, 1, bias=False)
        self.head = nn.Conv2d(2, 2, 1, bias=False)
        with torch.no_grad():
            self.features.weight.copy_(torch.tensor([1.0, -2.0]).view(2, 1, 1, 1))
            self.head.weight.copy_(torch.tensor([[0.0, 0.0], [3.0, -1.0]]).view(2, 2, 1, 1))
            self.head.weight.mul_(sign)

    def forward(self, images):
        return self.head(self.features(images))


class Awkward(nn.Module):
    """A layer that is unused, one that runs twice, one that gives a list, one cut off from the gradient."""

    def __init__(self):
        super().__init__()
        self.twice, self.unused, self.cut = nn.Identity(), nn.Identity(), nn.Identity()
        self.listing = self.Listing()

    class Listing(nn.Module):
        def forward(self, x):
            return [x, x]

    def forward(self, x):
        self.unused(x)
        with torch.no_grad():
            detached = self.cut(x)
        return PerPixel()(self.twice(self.twice(self.listing(x)[0] + 0 * detached)))


def as_numpy_network(network):
    """See :data:`oracles.msr.Network`; the network returns a tensor of the image's size."""

    def run(image: np.ndarray):
        x = torch.from_numpy(np.ascontiguousarray(image))[None].requires_grad_()
        with torch.enable_grad():
            logits = network(x)[0]

        def pull_back(slope: np.ndarray) -> np.ndarray:
            return torch.autograd.grad(logits, x, torch.from_numpy(slope))[0][0].numpy()

        return logits.detach().numpy(), pull_back

    return run


def as_numpy_predict(network):
    """Image C x H x W to predicted classes, in NumPy."""
    run = as_numpy_network(network)
    return lambda image: run(image)[0].argmax(axis=0)
