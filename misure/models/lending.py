"""Lending a network: evaluation mode, no parameter gradients, and given back exactly as it was."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from misure.errors import MisureError
from misure.models.compute import Compute, tf32
from misure.models.hidden import found_in
from misure.models.random_sources import RandomSources


@contextmanager
def lent(network: Callable[..., Any], compute: Compute, device: torch.device, seed: int = 0) -> Iterator[RandomSources]:
    """Lend a network, in evaluation mode and without parameter gradients.

    Training flags, ``requires_grad``, gradients, weight storage, buffers and random states are restored, also after an
    exception and if lending itself fails. Compiled modules run as what they were compiled from: compiled code ignores
    hooks and would be compiled anew for every size of batch.

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
        undo.enter_context(torch.inference_mode(mode=False))
        undo.enter_context(torch.enable_grad())
        if device.type == "cuda":
            undo.enter_context(tf32(allowed=compute.allow_tf32))
        if is_compiled(network, parts):
            undo.enter_context(torch.compiler.set_stance("force_eager"))
        undo.enter_context(sources.kept())
        for part in parts:
            _lend_tensors(part, undo)
            if hasattr(part, "training"):  # frozen TorchScript has none
                undo.callback(setattr, part, "training", part.training)
        for module in modules:
            with suppress(NotImplementedError):  # nor have programs of torch.export
                if hasattr(module, "training"):
                    module.eval()
        for parameter in dict.fromkeys(p for part in parts for p in part.parameters(recurse=False)):
            undo.callback(_restore_parameter, parameter, parameter.requires_grad, parameter.data)
            parameter.requires_grad_(False)
            if compute.channels_last:
                set_layout(parameter, torch.channels_last)
        sources.seed(seed)
        yield sources


def check_weights(parts: list[nn.Module]) -> None:
    """Raise a MisureError if modules have no weights yet: on the meta device, or of a lazy layer that never ran."""
    for tensor in chain.from_iterable(chain(p.parameters(recurse=False), p.buffers(recurse=False)) for p in parts):
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


def set_layout(parameter: nn.Parameter, layout: torch.memory_format) -> None:
    """Bring a convolution's weight into a memory format, if it can be."""
    if parameter.ndim == 4:
        with suppress(RuntimeError, TypeError):  # quantised and sparse ones cannot
            parameter.data = parameter.data.contiguous(memory_format=layout)


def own_copy(images: Tensor, dtype: torch.dtype | None, *, channels_last: bool) -> Tensor:
    """Copy images for a network, which may write into them, in its type and memory format."""
    copy = images.to(dtype or images.dtype)
    if channels_last and copy.ndim == 4 and not copy.is_contiguous(memory_format=torch.channels_last):
        copy = copy.contiguous(memory_format=torch.channels_last)
    return copy.clone() if copy is images else copy


def _lend_tensors(part: nn.Module, undo: ExitStack) -> None:
    """Let a module have copies of tensors made in inference mode, which no gradient passes; keep the buffers."""
    for name, parameter in list(part.named_parameters(recurse=False, remove_duplicate=False)):
        if parameter.is_inference():
            undo.callback(setattr, part, name, parameter)
            setattr(part, name, nn.Parameter(parameter.detach().clone(), requires_grad=False))
    for name, buffer in list(part.named_buffers(recurse=False, remove_duplicate=False)):
        if buffer.is_inference():
            undo.callback(setattr, part, name, buffer)
            setattr(part, name, buffer.clone())
        else:
            undo.callback(_restore_buffer, part, name, buffer, buffer.detach().clone())


@torch.no_grad()
def _restore_buffer(part: nn.Module, name: str, buffer: Tensor, values: Tensor) -> None:
    if getattr(part, name, None) is not buffer:
        setattr(part, name, buffer)
    if not torch.equal(buffer, values):
        buffer.copy_(values)


def _restore_parameter(parameter: nn.Parameter, requires_grad: bool, data: Tensor) -> None:
    parameter.data = data
    parameter.requires_grad_(requires_grad)
