"""Logits out of whatever a segmentation network returns: the gate that understands an output or refuses it."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from misure.errors import MisureError
from misure.regions import resized

OutputKind = Literal["auto", "logits", "probabilities", "class_numbers"]
"""What a network's output is; log-probabilities are logits."""

_OBJECTS = ("boxes", "pred_boxes", "pred_masks", "proto", "class_queries_logits", "masks_queries_logits", "iou_scores")
"""What detectors and networks of queries or prompts return, beside or instead of logits."""

_MOST_CLASSES = 1000
"""Whole numbers beyond are no class numbers, but such as a scan's values or an instance's number."""

_MOST_DISTORTED = 4.0
"""How much more a network may scale one side than another: one that squeezes every image into a square may do so."""

_CONFIDENT = 0.1
"""A trained sigmoid comes so near to 0 and 1 somewhere; so do hardly ever several logits that stay within [0, 1]."""


def to_logits(output: Any, images: Tensor, *, multi_label: bool = False) -> Tensor:
    """Normalise a network's output, known to be logits, to N x L x spatial of the images' size.

    Args:
        output: See :func:`located`.
        images: N x C x spatial, what it was given.
        multi_label: Keep a single channel as it is, rather than making it the two logits ``(0, z)``.

    Returns:
        Smaller logits are upsampled, bilinearly or in volumes trilinearly.

    Raises:
        MisureError: If no logits can be found in the output, or their shape does not fit.
    """
    return OutputReading("logits").logits(located(output, images), images, multi_label=multi_label)


def located(output: Any, images: Tensor) -> Tensor:
    """Find what a network says of every pixel.

    Args:
        output: A tensor or array; a mapping or object with ``out`` or ``logits``; a sequence that begins with one of
            these, or whose tensors differ in size alone (deep supervision), of which the largest counts; a list with
            classes x spatial for each image.
        images: N x C x spatial, what it was given.

    Returns:
        N x L x spatial, of any real type and size; the channels may have been the last axis or, a single one, none.

    Raises:
        MisureError: If there is nothing of the kind, or its shape is not that of a scaled image.
    """
    found = _find(output, images)
    sides = images.shape[2:]
    if found.ndim == images.ndim - 1 and len(found) == len(images) and _is_scaled(found.shape[1:], sides):
        found = found[:, None]
    elif found.ndim == images.ndim and found.shape[1:-1] == sides and not _is_scaled(found.shape[2:], sides):
        found = found.movedim(-1, 1)
    if reason := _misfit(found, images):
        raise MisureError(
            f"the network returned {_described(found)} for images {tuple(images.shape)}: {reason}; expected "
            f"N x classes x {'H x W' if len(sides) == 2 else 'D x H x W'}: wrap it in a function that returns these"
        )
    return found


def as_tensor(output: Any, images: Tensor) -> Tensor:
    """Copy an array of any package to the images' device.

    Raises:
        MisureError: If it is no array of numbers.
    """
    try:
        return torch.from_numpy(np.array(output)).to(images.device)
    except (TypeError, ValueError) as error:
        raise MisureError(f"the network returned {type(output).__name__}, which is no array of numbers") from error


@dataclass
class OutputReading:
    """How a network's output is read: as it was told, or as the first unperturbed image shows.

    Attributes:
        kind: ``"auto"`` until it is known.
        n_numbers: One more than the largest class number seen.
    """

    kind: OutputKind = "auto"
    n_numbers: int = 0

    def examine(self, found: Tensor, *, multi_label: bool) -> None:
        """Look at the values for unperturbed images, and learn from them what was not told.

        Args:
            found: What :func:`located` gives for them.
            multi_label: Whether each channel is a yes or no of its own.

        Raises:
            MisureError: If they are not finite, not of the kind that was told, or could mean several things.
        """
        values, single = found.detach() if found.is_floating_point() else found.long(), found.shape[1] == 1
        bad = int(unsound(values, multi_label=multi_label or single).sum())
        if bad:
            raise MisureError(
                f"the network returned NaN or infinity for the image itself ({bad} values or pixels of "
                f"{_described(found)}): check its weights and how the image is normalised"
            )
        low, high = (float(v) for v in torch.aminmax(values))
        seen = f"{_described(found)} with values from {low:.3g} to {high:.3g}"
        if self.kind == "auto":
            self.kind = _recognised(values, low, high, seen, multi_label=multi_label)
        if self.kind == "probabilities" and not (low >= 0 and high <= 1 + _tolerance(values)):
            raise MisureError(f"the network returned {seen}, which are no probabilities: {_give()}")
        if self.kind == "class_numbers":
            if multi_label or not single or low < 0 or high >= _MOST_CLASSES or not _are_whole(values):
                raise MisureError(
                    f"the network returned {seen}, which are no class numbers, 0 to {_MOST_CLASSES - 1} in one channel "
                    f"without multi_label: {_give()}"
                )
            self.n_numbers = max(self.n_numbers, int(high) + 1)

    def logits(self, found: Tensor, images: Tensor, *, multi_label: bool, n_names: int = 0) -> Tensor:
        """Turn what :func:`located` gives into logits of the images' size.

        Args:
            found: N x L x spatial.
            images: N x C x spatial.
            multi_label: Keep a single channel as it is, rather than making it the two logits ``(0, z)``.
            n_names: How many classes have names; class numbers become at least that many classes, and one more for
                numbers that no unperturbed image has shown.
        """
        whole = not found.is_floating_point()
        if self.kind == "class_numbers" or (self.kind == "auto" and whole and found.shape[1] == 1 and not multi_label):
            n_classes = max(n_names, self.n_numbers or int(found.long().max()) + 1)
            return _log(_one_hot(found, images, n_classes))
        values = resized(found.to(images.dtype) if whole else found, images.shape[2:])
        single = values.shape[1] == 1 and not multi_label
        if self.kind == "probabilities":
            values = values.to(torch.promote_types(values.dtype, torch.float32))
            values = _log(values) - _log(1 - values) if single or multi_label else _log(values)
        return torch.cat([torch.zeros_like(values), values], dim=1) if single else values


def unsound(logits: Tensor, *, multi_label: bool) -> Tensor:
    """Return where logits say nothing: NaN, infinity or, in every class of a pixel, minus infinity.

    Args:
        logits: N x L x spatial.
        multi_label: Whether each channel is a yes or no of its own.

    Returns:
        bool, N x spatial; N x L x spatial with a multi-label head.
    """
    logits = logits.detach()
    if not logits.is_floating_point():
        return torch.zeros_like(logits, dtype=torch.bool)
    return ~(logits < math.inf) if multi_label else ~logits.amax(1).isfinite()


def _recognised(values: Tensor, low: float, high: float, seen: str, *, multi_label: bool) -> OutputKind:
    """Tell by its values what an output is, and refuse one that could be several things."""
    single = values.shape[1] == 1
    if not values.is_floating_point():
        if single and not multi_label:
            return "class_numbers"
        raise MisureError(f"the network returned {seen}, neither logits nor class numbers: {_give()}")
    if low < 0 or high == 0:
        return "logits" if low < 0 else "auto"
    shares = high <= 1 + _tolerance(values)
    if (single or multi_label) and shares:
        raise MisureError(
            f"the network returned {seen}, which are probabilities (after a sigmoid) or logits of objects everywhere: "
            f"{_give('probabilities', 'logits')}"
        )
    if single and not multi_label and _are_whole(values):
        raise MisureError(f"the network returned {seen}, all whole: {_give('class_numbers', 'logits')}")
    if not shares or single:
        return "logits"
    if bool(((values.sum(1, dtype=torch.float32) - 1).abs() <= _tolerance(values)).all()):
        return "probabilities"
    if low < _CONFIDENT < 1 - _CONFIDENT < high:
        warnings.warn(
            f"the network returned {seen}, taken for logits: {_give('probabilities', 'logits')}, and multi_label=True "
            "if classes overlap",
            stacklevel=2,
        )
    return "logits"


def _find(output: Any, images: Tensor) -> Tensor:
    if isinstance(output, Tensor):
        return output
    if hasattr(output, "__array__"):
        return as_tensor(output, images)
    parts = _parts(output)
    key = next((key for key in ("out", "logits") if key in parts), None)
    objects = [name for name in _OBJECTS if name in parts]
    if key and (key == "out" or not objects):
        return _find(parts[key], images)
    if not parts and isinstance(output, Sequence) and output and not isinstance(output, str | bytes):
        maps = [o for o in output if isinstance(o, Tensor) and o.ndim in (images.ndim - 1, images.ndim)]
        if len(maps) == len(output) and len({(o.ndim, o.shape[:2]) for o in maps}) == 1:
            if maps[0].ndim == images.ndim:
                return max(maps, key=Tensor.numel)
            if isinstance(output, list) and len(maps) == len(images) and len({o.shape for o in maps}) == 1:
                return torch.stack(maps)
        return _find(output[0], images)
    keys = f" with keys {sorted(map(str, parts))}" if parts else ""
    raise MisureError(
        f"the network returned {type(output).__name__}{keys}; expected logits as a tensor, under 'out' or as .logits"
        + (": these are objects or queries, so wrap it in a function that returns N x classes x H x W" * bool(objects))
    )


def _parts(output: Any) -> Mapping[Any, Any]:
    """Return the entries of a mapping, or the attributes of an object by which it is understood."""
    if isinstance(output, Mapping):
        return output
    return {name: getattr(output, name) for name in ("out", "logits", *_OBJECTS) if hasattr(output, name)}


def _misfit(found: Tensor, images: Tensor) -> str:
    """Say why an output cannot be N x classes x spatial of the images, or nothing."""
    sides, shape = images.shape[2:], found.shape
    reason = ""
    if found.is_complex():
        reason = "complex numbers"
    elif found.ndim == images.ndim - 1 and len(found) == len(images):
        reason = "its sides are not those of a scaled image, as of a detector's boxes or queries"
    elif len(sides) <= found.ndim < images.ndim and len(images) == 1 and _is_scaled(shape[-len(sides) :], sides):
        reason = "the axis of the images is missing"
    elif found.ndim != images.ndim:
        reason = f"{found.ndim} axes" + (", as of a classifier" if found.ndim == 2 else "")
    elif len(found) != len(images):
        reason = f"{len(found)} results for {len(images)} images"
    elif not found.numel():
        reason = "it is empty"
    return reason or (_misfit_of_sides(shape, sides) if found.ndim == images.ndim else "")


def _misfit_of_sides(shape: Sequence[int], sides: Sequence[int]) -> str:
    """Say why N x classes x spatial cannot be of images with these sides, or nothing."""
    if _is_scaled(shape[1:-1], sides) and not _is_scaled(shape[2:], sides):
        return "the classes seem to be the last axis"
    if tuple(shape[2:]) != tuple(sides) and sorted(shape[2:]) == sorted(sides):
        return "its sides are those of the image in another order"
    scales = [new / old for new, old in zip(shape[2:], sides, strict=True)]
    if max(scales) > _MOST_DISTORTED * min(scales):
        return "its sides are not those of a scaled image, as of a detector's boxes or tokens"
    if math.prod(shape[2:]) == 1 < min(sides):
        return "one value for a whole image, as of a classifier"
    return ""


def _is_scaled(shape: Sequence[int], sides: Sequence[int]) -> bool:
    """Say whether one factor, with rounding, turns an image's sides into these; equal sides stay equal."""
    if len({*zip(shape, sides, strict=True)}) > len({*sides}) or not all(shape):
        return False
    most = min(side / (new - 1) if new > 1 else math.inf for new, side in zip(shape, sides, strict=True))
    return max(side / (new + 1) for new, side in zip(shape, sides, strict=True)) < most


def _one_hot(numbers: Tensor, images: Tensor, n_classes: int) -> Tensor:
    """Return class numbers, N x 1 x spatial, as N x (classes + 1) x spatial; the last class is any other number."""
    numbers = numbers.to(torch.promote_types(images.dtype, torch.float32))
    if numbers.shape[2:] != images.shape[2:]:
        numbers = interpolate(numbers, size=tuple(images.shape[2:]), mode="nearest-exact")
    classes = torch.arange(n_classes, device=numbers.device).view(-1, *(1,) * (images.ndim - 2))
    known = numbers == classes
    return torch.cat([known, ~known.any(1, keepdim=True)], dim=1).to(numbers.dtype)


def _log(probabilities: Tensor) -> Tensor:
    """Return logarithms, those of 0 finite and so large that gradients through them do not overflow."""
    return probabilities.clamp(min=torch.finfo(probabilities.dtype).tiny ** 0.5).log()


def _are_whole(values: Tensor) -> bool:
    return not values.is_floating_point() or bool((values == values.round()).all())


def _tolerance(values: Tensor) -> float:
    """Rounding of sums of probabilities in the type of an output."""
    return max(1e-3, 8 * torch.finfo(values.dtype).eps) if values.is_floating_point() else 0.0


def _give(*kinds: str) -> str:
    """Say how to tell what a network returns."""
    names = " or ".join(f"output='{kind}'" for kind in kinds) or "another output=..."
    return f"give SegmentationModel {names} (on the command line, network_output=)"


def _described(found: Tensor) -> str:
    return f"{str(found.dtype).removeprefix('torch.')} of shape {tuple(found.shape)}"
