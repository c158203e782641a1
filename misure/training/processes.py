"""One training in several processes, a device each: how they begin and end, and what they calculate together."""

from __future__ import annotations

import copy
import os
import pickle
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.multiprocessing.spawn import ProcessExitedException, ProcessRaisedException, start_processes
from torch.nn.modules.batchnorm import _BatchNorm

from misure.errors import MisureError, brief
from misure.io.locks import end_with_parent
from misure.models.compute import default_device

_START = "spawn"  # the only way that CUDA goes along with

_GRACE = 5.0  # seconds in which the others may end by themselves when one has failed

_ERROR = "error"  # the file that holds the line of a process's MisureError

_together = False  # whether this process is one of several that train one network


def in_processes(n: int, work: Callable[[nn.Module], object], network: nn.Module) -> None:
    """Call ``work`` in ``n`` new processes that can calculate together; in each the network is a copy.

    They are spawned, so that this one stays what it is, goes on afterwards and may have used CUDA before. They meet at
    a file, and so need no port and nothing of what torchrun or SLURM say of other processes. When one ends with an
    error the others are ended as well, and when this one ends, however it does, so do they.

    Raises:
        MisureError: If one of them raised it, was killed, or if what it is given cannot be sent to it.
    """
    with tempfile.TemporaryDirectory(prefix="misure-") as name:
        try:
            begun = start_processes(  # type: ignore[no-untyped-call]
                _begin, (n, Path(name), work, network), n, join=False, start_method=_START
            )
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise MisureError(
                f"training.devices={n}: the network or its data cannot be sent to other processes "
                f"({brief(error)}); take training.devices=1"
            ) from error
        try:
            while not begun.join(grace_period=_GRACE):
                pass
        except (ProcessRaisedException, ProcessExitedException) as error:
            if (told := Path(name, _ERROR)).exists():
                raise MisureError(told.read_text(encoding="utf-8")) from error
            if isinstance(error, ProcessExitedException):
                raise MisureError(
                    f"training.devices={n}: {brief(error)} (is the memory too small?); "
                    "train again to go on from the last whole epoch"
                ) from error
            raise
        finally:
            for process in begun.processes:
                process.kill()


def _begin(rank: int, n: int, folder: Path, work: Callable[[nn.Module], object], network: nn.Module) -> None:
    global _together  # noqa: PLW0603 - a process is one of several from its beginning to its end
    _together = True
    end_with_parent()  # else it trains on and writes its state while another session has the lock
    os.environ.update(LOCAL_RANK=str(rank), NODE_RANK="0")  # what Lightning asks: it begins no processes then
    torch.set_num_threads(max(1, torch.get_num_threads() // n))
    device: dict[str, Any] = {"device_id": torch.device("cuda", rank)} if default_device().type == "cuda" else {}
    distributed.init_process_group(
        "nccl" if device else "gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=n, **device
    )
    try:
        work(copy.deepcopy(network))  # it came in memory that all processes share
    except MisureError as error:
        (folder / _ERROR).write_text(str(error), encoding="utf-8")
        raise
    distributed.destroy_process_group()


@contextmanager
def ending_when_told() -> Iterator[None]:
    """Let SIGTERM end this process as it ends others: Lightning makes of it an exit with code 0."""
    from pytorch_lightning.utilities.exceptions import SIGTERMException  # here, as tables do not need Lightning

    try:
        yield
    except SIGTERMException:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTERM)
        os._exit(128 + signal.SIGTERM)  # the first process of a container, which no signal ends by itself


def summed(values: Tensor) -> Tensor:
    """Sum over the processes of a training, with gradients of the sum of all their losses; alone, the values."""
    total: Tensor = _SumOfAll.apply(values) if _together else values
    return total


class _SumOfAll(torch.autograd.Function):
    @staticmethod
    def forward(_context: Any, values: Tensor) -> Tensor:
        total = values.clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(_context: Any, gradient: Tensor) -> Tensor:
        return _SumOfAll.forward(None, gradient)


def gathered(values: Tensor) -> Tensor:
    """Put N values of each process into one list, the first of all before the second of all; alone, the values."""
    if not _together:
        return values
    parts = [torch.empty_like(values) for _ in range(distributed.get_world_size())]
    distributed.all_gather(parts, values)
    return torch.stack(parts, 1).flatten()


def with_shared_statistics(network: nn.Module) -> nn.Module:
    """Let batch normalisation take its statistics of the images of all processes; names and weights stay."""
    if default_device().type == "cuda":
        return nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call, no-any-return]
    for module in network.modules():
        if isinstance(module, _BatchNorm):
            module.__class__ = _BatchNormOfAll
    return network


class _BatchNormOfAll(_BatchNorm):
    """What PyTorch's SyncBatchNorm is on GPUs, for CPUs; each process has equally many images."""

    def _check_input_dim(self, _images: Tensor) -> None:
        """It had any number of axes before."""

    def forward(self, images: Tensor) -> Tensor:
        if not self.training:
            return super().forward(images)
        n, axes = distributed.get_world_size(), (0, *range(2, images.ndim))
        precise = images.to(torch.promote_types(images.dtype, torch.float32))
        mean = summed(precise.mean(axes, keepdim=True)) / n
        variance = summed((precise - mean).square().mean(axes, keepdim=True)) / n
        self._keep(mean.detach().flatten(), variance.detach().flatten(), n * images.numel() // images.shape[1])
        result = (precise - mean) * (variance + self.eps).rsqrt()
        if self.affine:
            result = result * self.weight.view_as(mean) + self.bias.view_as(mean)
        return result.to(images.dtype)

    @torch.no_grad()
    def _keep(self, mean: Tensor, variance: Tensor, count: int) -> None:
        """Move the running statistics towards those of ``count`` values."""
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked += 1
        share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, share)
        self.running_var.lerp_(variance * count / max(count - 1, 1), share)
