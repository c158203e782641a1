"""A CUDA device for machines without one.

Its tensors hold real values on the CPU, say that they are on ``cuda:0``, and every operation on them is first made with
torch's fake tensors, which refuse what a GPU refuses: tensors of several devices. So code that depends on values runs
to its end, which with fake tensors alone it does not.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensor,
    FakeTensorMode,
    UnsupportedOperatorException,
)
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

aten = torch.ops.aten
CUDA = torch.device("cuda", 0)
_INDEXING = (aten.index.Tensor, aten.index_put.default, aten.index_put_.default, aten._index_put_impl_.default)
_fake = FakeTensorMode(allow_fallback_kernels=False, allow_non_fake_inputs=False)


_torch_to = Tensor.to


def _to(tensor: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """``Tensor.to``, which PyTorch decides by the device that it sees itself."""
    if not any(isinstance(one, PretendedTensor) for one in (tensor, *args)):
        return _torch_to(tensor, *args, **kwargs)
    like = next((arg for arg in args if isinstance(arg, Tensor)), None)
    device, dtype, _, layout = (
        torch._C._nn._parse_to(*args, **kwargs) if like is None else (like.device, like.dtype, None, None)
    )
    device, dtype = device or tensor.device, dtype or tensor.dtype
    if (device.type, dtype) == (tensor.device.type, tensor.dtype) and layout is None:
        return tensor
    return aten._to_copy.default(tensor, dtype=dtype, device=device, memory_format=layout)


class PretendedTensor(Tensor):
    """A tensor on ``cuda:0`` as far as Python can see; PyTorch's autograd, which asks the driver, sees the CPU."""

    device = property(lambda self: CUDA)
    is_cuda = property(lambda self: True)
    is_cpu = property(lambda self: False)
    to = _to
    __torch_function__ = torch._C._disabled_torch_function_impl

    def cpu(self) -> Tensor:
        return self.to("cpu")

    def tolist(self) -> Any:
        return self.cpu().tolist()

    def new_tensor(self, data: Any, **options: Any) -> Tensor:
        return torch.tensor(data, **{"dtype": self.dtype, "device": self.device, **options})

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        copied = memo[id(self)] = self.detach().clone().requires_grad_(self.requires_grad)
        copied._is_param = getattr(self, "_is_param", False)
        return copied

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


class _Calls(TorchFunctionMode):
    """Knows whether PyTorch is at work on pretended tensors, where it believes itself to be on a CPU."""

    on_gpu = False

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        before, given = _Calls.on_gpu, tree_leaves((args, kwargs))
        _Calls.on_gpu = "device" not in kwargs and any(isinstance(leaf, PretendedTensor) for leaf in given)
        try:
            return func(*args, **kwargs)
        finally:
            _Calls.on_gpu = before


class _Mode(TorchDispatchMode):
    """Makes pretended tensors where ``device="cuda"`` is asked for."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


@contextmanager
def pretended_cuda() -> Iterator[None]:
    """Let ``device="cuda"`` mean the pretended one."""
    lifts = torch._C._only_lift_cpu_tensors()
    with pytest.MonkeyPatch.context() as patch:
        if not torch.cuda.is_available():
            torch._C._ensureCUDADeviceGuardSet()  # as FakeTensorMode does
            patch.setattr(torch.cuda, "_lazy_init", lambda: None)
        patch.setattr(torch.Tensor, "to", _to)
        patch.setattr(torch, "autocast", lambda _device_type, *args, **kwargs: _CPU_AUTOCAST(*args, **kwargs))
        patch.setattr(torch.__future__, "_overwrite_module_params_on_conversion", True)  # of nn.Module.to
        patch.setattr(torch.cuda, "is_available", lambda: True)
        patch.setattr(torch.cuda, "synchronize", lambda device: None)
        patch.setattr(torch.cuda, "mem_get_info", lambda device: (1 << 30, 1 << 34))
        patch.setattr(torch.cuda, "get_rng_state", lambda device: None)
        patch.setattr(torch.cuda, "set_rng_state", lambda state, device: None)
        torch._C._set_only_lift_cpu_tensors(
            True
        )  # torch.tensor(..., device="cuda") begins on the CPU, as in FakeTensorMode
        try:
            with _Calls(), _Mode():
                yield
        finally:
            torch._C._set_only_lift_cpu_tensors(lifts)


_CPU_AUTOCAST = partial(torch.autocast, "cpu")


def _run(func: Any, args: Any, kwargs: Any) -> Any:
    given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    asked = kwargs.get("device")
    if asked is not None and _Calls.on_gpu:
        asked = kwargs["device"] = CUDA  # PyTorch itself asks for the CPU, not its caller
    on_gpu = asked is not None and torch.device(asked).type == "cuda"
    if not on_gpu and not any(isinstance(tensor, PretendedTensor) for tensor in given):
        return func(*args, **kwargs)
    devices = iter(_devices(func, args, kwargs))
    originals: dict[int, Tensor] = {}

    def lowered(value: Any) -> Any:
        if isinstance(value, torch.device):
            return torch.device("cpu")
        if not isinstance(value, PretendedTensor):
            return value
        alias = torch.empty(0, dtype=value.dtype).set_(
            value.untyped_storage(), value.storage_offset(), value.size(), value.stride()
        )
        originals[id(alias)] = value
        return alias

    def raised(value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        device = next(devices)
        if id(value) in originals:  # changed in place
            return originals[id(value)]
        return Tensor._make_subclass(PretendedTensor, value) if device.type == "cuda" else value

    real_args, real_kwargs = tree_map(lowered, (args, kwargs))
    return tree_map(raised, func(*real_args, **real_kwargs))


def _devices(func: Any, args: Any, kwargs: Any) -> list[torch.device]:
    """Return the devices of an operation's results, as a GPU would give them.

    Raises:
        RuntimeError: If a GPU refuses the operation, since its tensors lie on different devices.
    """
    twins: dict[int, Tensor] = {}

    def fake(value: Any) -> Any:
        if isinstance(value, Tensor) and id(value) not in twins:
            device = value.device
            with _fake:
                twins[id(value)] = torch.empty_strided(value.size(), value.stride(), dtype=value.dtype, device=device)
        return twins.get(id(value), value)

    if func in _INDEXING:
        _check_indexing(*args)
    fake_args, fake_kwargs = tree_map(fake, (args, kwargs))
    try:
        with _fake:
            results = func(*fake_args, **fake_kwargs)
        return [leaf.device for leaf in tree_leaves(results) if isinstance(leaf, Tensor)]
    except (
        DynamicOutputShapeException,
        DataDependentOutputException,
        UnsupportedOperatorException,
    ):  # nonzero and its kin
        judged = fake_args[:1] if func in _INDEXING else (fake_args, fake_kwargs)
        return [FakeTensor._find_common_device(func, tree_leaves(judged))[0]] * 9


def _check_indexing(values: Tensor, indices: Any, *others: Any) -> None:
    """Refuse what fake tensors let pass: indices on a GPU for values on the CPU, and foreign values to put in."""
    for index in indices:
        if index is not None and index.device.type not in {"cpu", values.device.type}:
            raise RuntimeError(f"indices are on {index.device}, what they index is on {values.device}")
    if others and others[0].device.type != values.device.type and others[0].ndim:
        raise RuntimeError(f"values on {others[0].device} cannot be put into a tensor on {values.device}")
