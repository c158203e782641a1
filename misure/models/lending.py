"""Lending a network: evaluation mode, no parameter gradients, and given back exactly as it was."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parameter import is_lazy

from misure.errors import MisureError
from misure.models.compute import Compute, tf32
from misure.models.hidden import found_in
from misure.models.random_sources import RandomSources
from misure.models.turns import TURNS


@contextmanager
def lent(network: Callable[..., Any], compute: Compute, device: torch.device, seed: int = 0) -> Iterator[RandomSources]:
    """Lend a network, in evaluation mode and without parameter gradients.

    Training flags, ``requires_grad``, gradients, weights, buffers and random states are restored, also after an
    exception and if lending itself fails. The network has copies of its weights, which it may write into. Threads are
    lent networks in turns (:mod:`misure.models.turns`), different ones too: random states are the process's. Compiled
    modules run as what they were compiled from: compiled code ignores hooks and would be compiled anew for every size
    of batch.

    Args:
        network: A module, or a callable, whose modules are looked for (:func:`misure.models.hidden.found_in`).
        compute: Says whether TF32 is allowed and whether the weights become channels-last.
        device: Where the images are.
        seed: Of the random numbers that the network draws.

    Yields:
        The sources of these.

    Raises:
        MisureError: If the network has no weights yet.
    """
    modules, generators = found_in(network)
    parts = list(dict.fromkeys(part for module in modules for part in module.modules()))
    check_weights(parts)
    sources = RandomSources(device, generators)
    with ExitStack() as undo:
        undo.enter_context(TURNS.taken([*parts, *sources.generators]))
        undo.enter_context(torch.inference_mode(mode=False))
        undo.enter_context(torch.enable_grad())
        undo.enter_context(torch.autocast(device.type, enabled=False))
        if device.type == "cuda":
            undo.enter_context(tf32(allowed=compute.allow_tf32))
        if is_compiled(network, parts):
            undo.enter_context(torch.compiler.set_stance("force_eager"))
        undo.enter_context(sources.kept())
        layout = torch.channels_last if compute.channels_last else None
        for part in parts:
            _lend_tensors(part, layout, undo)
            if hasattr(part, "training"):  # frozen TorchScript has none
                undo.callback(setattr, part, "training", part.training)
        with _attributes_kept(parts, undo):
            for module in modules:
                with suppress(NotImplementedError):  # nor have programs of torch.export
                    if hasattr(module, "training"):
                        module.eval()
        for parameter in chain.from_iterable(map(weights_of, modules)):
            parameter.requires_grad_(False)
        sources.seed(seed)
        yield sources


def check_weights(parts: list[nn.Module]) -> None:
    """Raise a MisureError if modules have no weights yet: on the meta device, or of a lazy layer that never ran."""
    for tensor in chain.from_iterable(chain(weights_of(p, recurse=False), p.buffers(recurse=False)) for p in parts):
        if is_lazy(tensor):
            raise MisureError(
                "a lazy layer of the network has no weights yet: run it once on an image, then explain it"
            )
        if tensor.is_meta:
            raise MisureError("the network is on the meta device, without weights: load them before it is explained")


def is_compiled(network: Callable[..., Any], parts: list[nn.Module]) -> bool:
    """Say whether a function or any of some modules was compiled by ``torch.compile``."""
    if "torch._dynamo" not in sys.modules:
        return False
    compiled = sys.modules["torch._dynamo"].OptimizedModule
    return hasattr(network, "_torchdynamo_orig_callable") or any(
        isinstance(part, compiled) or getattr(part, "_compiled_call_impl", None) is not None for part in parts
    )


def mixes_images(modules: list[nn.Module]) -> bool:
    """Say whether a batch normalisation keeps no statistics, so that in evaluation mode it takes those of the batch."""
    parts = chain.from_iterable(module.modules() for module in modules)
    return any(isinstance(part, _BatchNorm) and part.running_mean is None for part in parts)


def set_layout(parameter: nn.Parameter, layout: torch.memory_format) -> None:
    """Bring a convolution's weight into a memory format, if it can be."""
    if parameter.ndim == 4:
        with suppress(RuntimeError, TypeError):  # quantised and sparse ones cannot
            parameter.data = parameter.data.contiguous(memory_format=layout)


def own_copy(images: Tensor, dtype: torch.dtype | None, *, channels_last: bool) -> Tensor:
    """Copy images for a network, which may write into them, in its type and memory format.

    Images of one channel are contiguous in both formats: convolutions see which one is meant by the copy's strides.
    """
    layout = torch.channels_last if channels_last and images.ndim == 4 else torch.preserve_format
    return images.to(dtype or images.dtype).clone(memory_format=layout)


def weights_of(module: nn.Module, *, recurse: bool = True) -> Iterator[nn.Parameter]:
    """Yield a module's parameters, also where it has a ``parameters`` of its own, such as those that are trained."""
    return nn.Module.parameters(module, recurse)


def _lend_tensors(part: nn.Module, layout: torch.memory_format | None, undo: ExitStack) -> None:
    """Let a module have copies of its weights and of tensors made in inference mode; keep the buffers."""
    for kind in ("_parameters", "_buffers", "_modules"):
        if isinstance(entries := vars(part).get(kind), dict):
            undo.callback(_restore_entries, entries, dict(entries))
    for name, parameter in list(part.named_parameters(recurse=False, remove_duplicate=False)):
        if parameter.is_inference():
            undo.callback(setattr, part, name, parameter)
            setattr(part, name, nn.Parameter(parameter.detach().clone(), requires_grad=False))
    for parameter in weights_of(part, recurse=False):
        undo.callback(_restore_parameter, parameter, parameter.requires_grad, parameter.data)
        if not isinstance(part, nn.RNNBase):  # whose weights share one piece of memory on a GPU
            _lend_copy(parameter, layout)
    for name, buffer in list(part.named_buffers(recurse=False, remove_duplicate=False)):
        if buffer.is_inference():
            undo.callback(setattr, part, name, buffer)
            setattr(part, name, buffer.clone())
        else:
            undo.callback(_restore_buffer, part, name, buffer, buffer.detach().clone())


def _lend_copy(parameter: nn.Parameter, layout: torch.memory_format | None) -> None:
    own = data = parameter.data
    with suppress(RuntimeError, TypeError):  # quantised and sparse ones have no layout
        own = data.contiguous(memory_format=layout) if layout and data.ndim == 4 else data
    with suppress(RuntimeError, TypeError):
        parameter.data = data.clone() if own is data else own


@contextmanager
def _attributes_kept(parts: list[nn.Module], undo: ExitStack) -> Iterator[None]:
    """Have the attributes given back that change meanwhile, such as whether ``eval()`` has merged weights."""
    before = [(vars(part), dict(vars(part))) for part in parts]
    try:
        yield
    finally:
        for attributes, values in before:
            changed = {name: value for name, value in values.items() if attributes.get(name) is not value}
            undo.callback(_restore_attributes, attributes, changed, attributes.keys() - values.keys())


def _restore_attributes(attributes: dict[str, Any], changed: dict[str, Any], added: set[str]) -> None:
    attributes.update(changed)
    for name in added & attributes.keys():
        del attributes[name]


def _restore_entries(entries: dict[str, Any], before: dict[str, Any]) -> None:
    entries.clear()
    entries.update(before)


@torch.no_grad()
def _restore_buffer(part: nn.Module, name: str, buffer: Tensor, values: Tensor) -> None:
    if getattr(part, name, None) is not buffer:
        setattr(part, name, buffer)
    if buffer.shape != values.shape:
        buffer.data = values
    elif buffer.layout == torch.strided and not torch.equal(buffer, values):
        buffer.copy_(values)


def _restore_parameter(parameter: nn.Parameter, requires_grad: bool, data: Tensor) -> None:
    parameter.data = data
    parameter.requires_grad_(requires_grad)
