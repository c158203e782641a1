"""Batch normalisation folded into the convolutions before it, while a frozen network makes many passes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

Foldable = tuple[Any, Any]
"""A convolution, and the batch normalisation that alone reads its output."""

_CONVOLUTIONS = (nn.Conv2d, nn.Conv3d)
_NORMALISATIONS = (nn.BatchNorm2d, nn.BatchNorm3d)


class _Uses(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Watches the operations of layers, each known by a tensor of its own, and the readers of convolutions' outputs."""

    def __init__(self, layers: list[Any]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.layers = {
            id(layer.weight if type(layer) in _CONVOLUTIONS else layer.running_mean): layer for layer in layers
        }
        self.operations: Counter[Any] = Counter()
        self.outputs: dict[int, tuple[Tensor, Any]] = {}  # tensors kept alive, so that no identity is used twice
        self.readers: dict[int, list[Any]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        inputs = {id(leaf) for leaf in tree_leaves((args, kwargs))}
        layer = next((self.layers[key] for key in inputs if key in self.layers), None)
        for key in inputs & self.outputs.keys():
            self.readers[key].append(layer)
        result = func(*args, **kwargs)
        if layer is not None:
            self.operations[layer] += 1
            if type(layer) in _CONVOLUTIONS:
                self.outputs[id(result)], self.readers[id(result)] = (result, layer), []
        return result


@torch.no_grad()
def foldable_layers(modules: Sequence[nn.Module], run: Callable[[], Any]) -> list[Foldable]:
    """Find the convolutions whose output goes into a batch normalisation and nowhere else.

    Args:
        modules: Those of the network, in evaluation mode.
        run: Makes one forward pass and returns its output.

    Returns:
        (convolution, normalisation), each called once in the pass and used in no other way (such as ``F.conv2d`` with
        its weight), without hooks or shared weights.
    """
    layers = list(dict.fromkeys(layer for module in modules for layer in module.modules()))
    if not any(type(layer) in _NORMALISATIONS for layer in layers):
        return []
    owners = Counter(p for m in layers for p in nn.Module.parameters(m, recurse=False))
    candidates = [m for m in layers if _is_plain(m) and all(owners[p] == 1 for p in m.parameters())]
    uses, calls = _Uses(candidates), Counter[Any]()
    with ExitStack() as undo:
        for layer in candidates:
            undo.callback(layer.register_forward_hook(lambda called, *_: calls.update([called])).remove)
        undo.enter_context(uses)
        output = run()
    returned = {id(leaf) for leaf in tree_leaves(output)}
    return [
        (convolution, readers[0])
        for key, (_, convolution) in uses.outputs.items()
        if key not in returned and len(readers := uses.readers[key]) == 1 and type(readers[0]) in _NORMALISATIONS
        if all(uses.operations[layer] == calls[layer] == 1 for layer in (convolution, readers[0]))
    ]


def _is_plain(layer: nn.Module) -> bool:
    if type(layer) not in _CONVOLUTIONS + _NORMALISATIONS:
        return False
    if any(vars(layer).get(name) for name in ("_forward_hooks", "_forward_pre_hooks", "forward")):
        return False
    if isinstance(layer, _NORMALISATIONS):
        return not layer.training and layer.running_mean is not None
    return isinstance(layer.weight, nn.Parameter)


@contextmanager
def folded(foldable: list[Foldable]) -> Iterator[None]:
    """Let convolutions do what the normalisations after them do; give both back bit by bit.

    Args:
        foldable: From :func:`foldable_layers`.
    """
    with ExitStack() as undo:
        for convolution, normalisation in foldable:
            weight, bias = _fused(convolution, normalisation)
            undo.callback(_give_back, convolution, convolution.weight.data, convolution.bias)
            convolution.weight.data = weight
            convolution.bias = nn.Parameter(bias, requires_grad=False)
            undo.callback(delattr, normalisation, "forward")
            normalisation.forward = nn.Identity().forward
        yield


@torch.no_grad()
def _fused(convolution: Any, normalisation: Any) -> tuple[Tensor, Tensor]:
    """Return the weight, in its memory format, and the bias of both layers in one; worked out in float64."""
    weight, bias = fuse_conv_bn_weights(
        convolution.weight.double(),
        _double(convolution.bias),
        normalisation.running_mean.double(),
        normalisation.running_var.double(),
        normalisation.eps,
        _double(normalisation.weight),
        _double(normalisation.bias),
    )
    return torch.empty_like(convolution.weight).copy_(weight), bias.to(convolution.weight.dtype)


def _double(parameter: Tensor | None) -> Tensor | None:
    return None if parameter is None else parameter.double()


def _give_back(convolution: Any, weight: Tensor, bias: nn.Parameter | None) -> None:
    convolution.weight.data = weight
    convolution.bias = bias
