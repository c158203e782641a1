"""ONNX files as networks, which give logits without gradients, and networks that take a fixed number of images."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from misure.errors import MisureError, brief
from misure.io.reading import reading
from misure.models.logits import as_tensor

Shape = Sequence[int | None]
"""N, C and the spatial sides that a network takes; None where any."""

_TYPES = {"tensor(float)": torch.float32, "tensor(double)": torch.float64, "tensor(float16)": torch.float16}

_NO_MEMORY = ("Failed to allocate memory", "bad_alloc", "bad allocation")
"""What onnxruntime says then, in exceptions of its own."""


class OnnxNetwork:
    """Images to logits through onnxruntime, on the CPU; the logits come back on the images' device.

    Args:
        session: The opened file.
        title: What messages call it.

    Attributes:
        shape: N, C and the spatial sides that it takes, None where any.
    """

    def __init__(self, session: Any, title: str) -> None:
        inputs = session.get_inputs()
        if len(inputs) != 1:
            names = ", ".join(i.name for i in inputs)
            raise MisureError(f"{title} takes {len(inputs)} inputs ({names}): export a network that takes images alone")
        if inputs[0].type not in _TYPES:
            raise MisureError(f"{title} takes {inputs[0].type}: export a network that takes normalised floating images")
        self.session = session
        self.title = title
        self.shape: Shape = tuple(side if isinstance(side, int) else None for side in inputs[0].shape)
        self._input, self._type = inputs[0].name, _TYPES[inputs[0].type]
        self._output = _output_name([o.name for o in session.get_outputs() if o.type.startswith("tensor(")], title)

    def __call__(self, images: Tensor) -> Tensor:
        """Return the output named ``logits`` or ``out``, or the first, for N x C x spatial; its type stays.

        Raises:
            MisureError: If the images have another size than the file takes, or onnxruntime fails on them.
        """
        return in_pieces(self._run, images, self.shape, self.title)

    def _run(self, images: Tensor) -> Tensor:
        array = images.detach().to("cpu", self._type).contiguous().numpy()
        try:
            (output,) = self.session.run([self._output], {self._input: array})
        except Exception as error:  # onnxruntime's own share no base
            if any(word in str(error) for word in _NO_MEMORY):
                raise MemoryError(brief(error)) from error
            sides = " x ".join(map(str, images.shape))
            raise MisureError(f"{self.title} fails on images of {sides} ({brief(error)}): resize them") from error
        found = as_tensor(output, images)
        return found.to(images.dtype) if found.is_floating_point() else found


def _output_name(names: Sequence[str], title: str) -> str:
    if not names:
        raise MisureError(f"{title} returns no tensor: export a network that returns logits")
    name = next((name for name in ("logits", "out") if name in names), names[0])
    if len(names) > 1 and name == names[0] and name not in {"logits", "out"}:
        warnings.warn(
            f"{title} has {len(names)} outputs ({', '.join(names)}), of which the first is explained: export the one "
            "that is meant alone, or name it logits",
            stacklevel=6,
        )
    return name


def open_onnx(path: Path, onnxruntime: Any) -> OnnxNetwork:
    """Open an ONNX file with as many threads as PyTorch uses.

    Args:
        path: The file.
        onnxruntime: The package.

    Raises:
        MisureError: If the file is damaged, or no network from images to logits.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    with reading(path, "it may be damaged, or no ONNX file"):
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return OnnxNetwork(session, path.name)


def in_pieces(run: Callable[[Tensor], Tensor], images: Tensor, shape: Shape, title: str) -> Tensor:
    """Run a network on as many images at a time as it takes.

    A last portion that is too small is filled up with copies of its last image, whose results are dropped.

    Args:
        run: The network, images to logits.
        images: N x C x spatial.
        shape: What it takes.
        title: What messages call it.

    Raises:
        MisureError: If it takes other images.
    """
    if len(shape) != images.ndim or any(
        want not in {None, have} for want, have in zip(shape[1:], images.shape[1:], strict=True)
    ):
        wanted = " x ".join("any" if side is None else str(side) for side in shape[1:])
        given = " x ".join(map(str, images.shape[1:]))
        raise MisureError(f"{title} takes images of {wanted}, not {given}: resize them, or export it for any size")
    size = shape[0] or len(images)
    if size == len(images):
        return run(images)
    parts = []
    for start in range(0, len(images), size):
        part = images[start : start + size]
        filling = part[-1:].expand(size - len(part), *part.shape[1:])
        parts.append(run(torch.cat([part, filling]))[: len(part)])
    return torch.cat(parts)
