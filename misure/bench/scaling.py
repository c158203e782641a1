"""Growth of time and memory with batch size, image size, masks and images: every point in a process of its own."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from misure.bench.memory import peak_memory
from misure.errors import MisureError
from misure.explainers import Explainer, make_explainer
from misure.models.compute import Compute, now
from misure.models.wrapper import FrozenNetwork, SegmentationModel, frozen
from misure.regions import resized
from misure.target import TargetBatch, make_targets

AXES = {"batch_size": "batch size", "size": "image size", "masks": "masks", "images": "images"}
"""Fields of a point that are varied one by one, with their names in the table."""


@dataclass(frozen=True)
class Point:
    """One measurement.

    Attributes:
        axis: Which of the fields below is varied, one of ``AXES``.
        method: ``"rise"`` or ``"msr"``.
        batch_size: Perturbed images per forward pass, or ``"auto"``.
        size: Side of the image.
        masks: Of RISE.
        images: Explained together.
        iterations: Of MSR, of which the first is not timed.
    """

    axis: str
    method: str
    batch_size: int | str = "auto"
    size: int = 224
    masks: int = 8
    images: int = 1
    iterations: int = 4


def make_points(axes: Mapping[str, Sequence[int]], **base: Any) -> list[Point]:
    """List what is measured: along each axis, RISE and MSR with everything else at its base value.

    Along the batch size, MSR explains as many images as the largest batch holds, since its batches consist of images.

    Args:
        axes: The values along each axis.
        **base: Other values than :class:`Point`'s own.

    Raises:
        MisureError: On an unknown axis.
    """
    points = []
    for axis, values in axes.items():
        if axis not in AXES:
            raise MisureError(f"there is no axis {axis!r}: choose from {', '.join(AXES)}")
        for value in values:
            for method in ("rise",) if axis == "masks" else ("rise", "msr"):
                images = {"images": max(values)} if axis == "batch_size" and method == "msr" else {}
                points.append(Point(axis, method, **{**base, **images, axis: value}))
    return points


def run_scaling(
    load: Callable[[], SegmentationModel],
    image: Tensor,
    points: Sequence[Point],
    *,
    limit: float = 180.0,
    progress: bool = True,
) -> pd.DataFrame:
    """Measure all points, one after the other, each in a fresh process.

    A point that takes longer than the limit, does not fit into the memory or that the network does not take is left
    out with the reason.

    Args:
        load: Loads the network; it is called in the fresh process, so it has to be importable there.
        image: C x H x W, resized to each point's size; what is explained is its most frequent predicted class.
        points: See :func:`make_points`.
        limit: Seconds a point may take, starting the process included.
        progress: Show a progress bar.

    Returns:
        One row per point: its fields, ``seconds`` an image, ``seconds_a_step`` (a mask or an iteration, per image),
        ``peak_bytes`` above the loaded network (see :func:`misure.bench.memory.peak_memory`), ``left_out``.
    """
    rows = []
    for point in tqdm(points, disable=not progress, unit="point", desc="scaling"):
        measured = _in_own_process(load, image.cpu().numpy(), point, limit)
        rows.append(asdict(point) | {"value": getattr(point, point.axis)} | measured)
    empty = {"seconds": np.nan, "seconds_a_step": np.nan, "peak_bytes": np.nan, "left_out": ""}
    frame = pd.DataFrame(rows).reindex(columns=[*asdict(points[0]), "value", *empty])
    return frame.fillna({"left_out": ""})


def _in_own_process(
    load: Callable[[], SegmentationModel], pixels: np.ndarray, point: Point, limit: float
) -> dict[str, Any]:
    context = _fresh_processes()
    receiver, sender = context.Pipe(duplex=False)
    arguments = (load, pixels, point, torch.get_num_threads(), sender)
    process = context.Process(target=_measure_and_send, args=arguments, daemon=True)
    process.start()
    sender.close()
    try:
        if not receiver.poll(limit):
            return {"left_out": f"took more than {limit:g} s"}
        measured: dict[str, Any] = receiver.recv()
    except EOFError:
        process.join()
        return {"left_out": f"the process ended with code {process.exitcode}: too little memory?"}
    else:
        return measured
    finally:
        process.kill()
        process.join()
        receiver.close()


def _fresh_processes() -> Any:
    """Return a context whose processes, where the system can, fork from a server that has computed nothing."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context


def _measure_and_send(
    load: Callable[[], SegmentationModel], pixels: np.ndarray, point: Point, threads: int, sender: Connection
) -> None:
    torch.set_num_threads(threads)
    try:
        sender.send(measure(load(), torch.from_numpy(pixels), point))
    except (MisureError, RuntimeError, MemoryError, ValueError, AssertionError) as error:
        sender.send({"left_out": " ".join(str(error).split())[:200] or type(error).__name__})


def measure(model: SegmentationModel, image: Tensor, point: Point) -> dict[str, Any]:
    """Measure one point in this process.

    Args:
        model: In any mode; it is given back as it was.
        image: C x H x W.
        point: What is measured.

    Returns:
        ``seconds``, ``seconds_a_step`` and ``peak_bytes``, see :func:`run_scaling`.
    """
    device = model.device or torch.device("cpu")
    pixels = resized(image[None].to(device), (point.size, point.size))
    with peak_memory(device) as peak:
        with frozen(model, Compute(batch_size=1), device) as network:
            targets = make_targets(network, pixels, _class_to_explain(network, pixels)) * point.images
        batch = TargetBatch.stack(targets, device)
        images = pixels.expand(point.images, -1, -1, -1).contiguous()

        def seconds(explainer: Explainer) -> float:
            started = now(device)
            with frozen(model, Compute(batch_size=point.batch_size), device) as network:
                explainer.saliency_maps(network, images, batch)
            return (now(device) - started) / point.images

        measured = _rise(seconds, point) if point.method == "rise" else _msr(seconds, point)
    return {**measured, "peak_bytes": peak.bytes}


def _rise(seconds: Callable[[Explainer], float], point: Point) -> dict[str, float]:
    seconds(make_explainer("rise", n_masks=1))  # kernels are chosen before anything is timed
    total = seconds(make_explainer("rise", n_masks=point.masks))
    return {"seconds": total, "seconds_a_step": total / point.masks}


def _msr(seconds: Callable[[Explainer], float], point: Point) -> dict[str, float]:
    """Time iterations alone: stage 1, ended at its first step by tau = 0, and the first iteration are taken off."""
    first = make_explainer("msr", n_iterations=1, tau=0.0)
    seconds(first)  # kernels are chosen before anything is timed
    start = seconds(first)
    total = seconds(make_explainer("msr", n_iterations=point.iterations, tau=0.0))
    return {"seconds": total, "seconds_a_step": (total - start) / max(point.iterations - 1, 1)}


def _class_to_explain(network: FrozenNetwork, image: Tensor) -> int:
    """The most frequent predicted class that is not background, if there is one."""
    classes = network.predict(image).flatten()
    foreground = classes[classes != 0]
    return int((foreground if len(foreground) else classes).mode().values)
