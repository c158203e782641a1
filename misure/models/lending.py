"""Lending a network: evaluation mode, no parameter gradients, and given back exactly as it was."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from misure.models.compute import Compute, tf32


@contextmanager
def lent(module: nn.Module | None, compute: Compute, device: torch.device) -> Iterator[None]:
    """Lend a network, in evaluation mode and without parameter gradients.

    Training flags, ``requires_grad``, gradients, weight storage and the random state of torch,
    NumPy and Python are restored, also after an exception.

    Args:
        module: The network, or None for a plain callable, of which only the process's state is kept.
        compute: Says whether TF32 is allowed and whether the weights become channels-last.
        device: Where the images are.
    """
    with ExitStack() as undo:
        undo.enter_context(torch.inference_mode(mode=False))
        undo.enter_context(torch.enable_grad())
        undo.enter_context(torch.random.fork_rng(devices=[device] if device.type == "cuda" else []))
        if device.type == "cuda":
            undo.enter_context(tf32(allowed=compute.allow_tf32))
        undo.callback(random.setstate, random.getstate())
        undo.callback(np.random.set_state, np.random.get_state())  # noqa: NPY002 - the user's global state
        if module is not None:
            undo.callback(_restore_flags, [(m, m.training) for m in module.modules()])
            module.eval()
            for parameter in module.parameters():
                undo.callback(_restore_parameter, parameter, parameter.requires_grad, parameter.data)
                parameter.requires_grad_(False)
                if compute.channels_last and parameter.ndim == 4:
                    parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
        yield


def _restore_flags(flags: list[tuple[nn.Module, bool]]) -> None:
    for module, training in flags:
        module.training = training


def _restore_parameter(parameter: nn.Parameter, requires_grad: bool, data: Tensor) -> None:
    parameter.data = data
    parameter.requires_grad_(requires_grad)
