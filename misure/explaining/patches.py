"""Patches of a case for nnU-Net, prepared as its plans say, and one of them around the object that is explained.

nnU-Net predicts a scan patch by patch, and so it is explained: one patch of the plans' size. Left out of its inference
are mirrored passes, the blending of overlapping patches, the other folds of an ensemble, and the way back to the
scan's own spacing; the patch's affine says where it lies.
"""

from __future__ import annotations

import contextlib
import io
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from misure.errors import MisureError
from misure.io.finding import image_name
from misure.io.images import LoadedImage
from misure.io.reading import reading
from misure.io.volume import Grid
from misure.models.nnunet import Result
from misure.models.wrapper import SegmentationModel
from misure.regions import predicted_as

_STEP = 0.5
"""From one patch to the next, in patches, as nnU-Net predicts them."""


@dataclass(frozen=True)
class PatchGrid(Grid):
    """Where a patch lies: its own axes are those of what is written."""

    def to_file(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return a map as it is, with three axes, and the patch's affine."""
        return values if values.ndim == 3 else values[None], self.affine


@dataclass(frozen=True)
class Patch(LoadedImage):
    """A part of a case that the network takes at once, D x H x W or H x W, before the network's normalisation.

    Attributes:
        point: The point that it was asked for, in the patch.
    """

    point: list[int] | None = None


@dataclass(frozen=True)
class Case:
    """A case as the plans prepare it: transposed, cropped, normalised, resampled, padded to a patch at least.

    Attributes:
        pixels: float32, C x D x H x W.
        scale: Voxels of the file for one of these, by axis.
        offset: Where the first of these voxels lies, in voxels of the file, whose axes are transposed like these.
        affine: 4 x 4, from indices (D, H, W) to millimetres (RAS); None where the file does not say.
        axes: Of the file's array, in the order in which they are here.
        n_slices: How many the file has along the first of these.
    """

    pixels: Tensor
    scale: np.ndarray
    offset: np.ndarray
    affine: np.ndarray | None
    axes: Sequence[int] = (0, 1, 2)
    n_slices: int = 1

    @classmethod
    def of(cls, result: Result, file: Path) -> Case:
        """Read and prepare a case.

        Args:
            result: The plans.
            file: The image; of several channels ``<case>_0000.<ending>``, beside which the others lie.

        Raises:
            MisureError: If a file is missing, damaged or of another format or number of channels than the training's.
        """
        from acvl_utils.cropping_and_padding.padding import pad_nd_image

        files = [str(path) for path in _files(result, file)]
        prepare = result.configuration.preprocessor_class(verbose=False)
        with reading(file, "give an image like those of the training"), contextlib.redirect_stdout(io.StringIO()):
            pixels, _, known = prepare.run_case(files, None, result.plans, result.configuration, result.dataset)
        if len(pixels) != result.channels:
            raise MisureError(f"{file} has {len(pixels)} channels, the network takes {result.channels}")
        padded, inside = pad_nd_image(np.asarray(pixels, np.float32), result.patch_size, return_slicer=True)
        scale = np.array(known["shape_after_cropping_and_before_resampling"]) / pixels.shape[1:]
        cropped = np.array([low for low, _ in known["bbox_used_for_cropping"]], float)
        padding = np.array([axis.start for axis in inside[1:]])
        offset = cropped + scale * (0.5 - padding) - 0.5  # resampling keeps borders, half a voxel before centres
        affine, n_slices = _affine(result, known, scale, offset), int(known["shape_before_cropping"][0])
        return cls(torch.from_numpy(padded), scale, offset, affine, result.plans.transpose_forward, n_slices)

    def index(self, place: Sequence[int]) -> np.ndarray:
        """Return which voxel lies at a voxel of the file, whose axes are those of its array."""
        nearest: np.ndarray = np.rint((np.array(place)[list(self.axes)] - self.offset) / self.scale).astype(int)
        return nearest

    def slice_at(self, slice_index: int, file: Path) -> int:
        """Return which slice along the first axis is a slice of the file.

        Raises:
            MisureError: If it is none of those that are kept.
        """
        index = int(np.rint((slice_index - self.offset[0]) / self.scale[0]))
        if not 0 <= index < self.pixels.shape[1]:
            kept = [self.slice_in_file(i) for i in (0, self.pixels.shape[1] - 1)]
            raise MisureError(
                f"slice={slice_index} lies outside of what nnU-Net keeps of {file}, {kept[0]} to {kept[1]}"
            )
        return index

    def slice_in_file(self, index: int) -> int:
        """Return which slice of the file lies at one along the first axis."""
        return int(np.rint(self.offset[0] + self.scale[0] * index))

    def centre(self, at: Sequence[int], slice_index: int | None, file: Path) -> np.ndarray:
        """Return which voxel is meant by a point of the file, or by one of a slice of it.

        Raises:
            MisureError: If it is none of those that are kept.
        """
        place = list(at)
        if len(place) == 2:
            if slice_index is None and self.n_slices > 1:
                raise MisureError(f"at={place} can lie in any of {self.n_slices} slices of {file}: add slice=<number>")
            place.insert(self.axes[0], slice_index or 0)
        if len(place) != 3:
            raise MisureError(f"at={place} is no voxel: at=[z,y,x], or [y,x] of a picture or a slice")
        if slice_index is not None and slice_index != place[self.axes[0]]:
            raise MisureError(f"at={place} does not lie in slice={slice_index}: give one of them")
        centre = self.index(place)
        if any(not 0 <= i < side for i, side in zip(centre, self.pixels.shape[1:], strict=True)):
            raise MisureError(f"at={list(at)} lies outside of what nnU-Net keeps of {file}")
        return centre


def patch_of(
    result: Result,
    file: Path,
    model: SegmentationModel,
    target: int | None = None,
    *,
    at: Sequence[int] | None = None,
    slice_index: int | None = None,
) -> Patch:
    """Take a patch of a case around a point; or around what is predicted in that of nnU-Net's patches with the most.

    Args:
        result: The plans.
        file: As :meth:`Case.of` takes it.
        model: The network.
        target: The class that is looked for; None for any but the background.
        at: A voxel of the file in the order of its array, (z, y, x) of a scan and (y, x) of a picture or a slice.
        slice_index: Where a network of slices is to look, counted in the file along the axis that it slices; None for
            all of them.

    Raises:
        MisureError: If the file cannot be used, nothing of the class is predicted, or the point lies outside.
    """
    case, n_axes = Case.of(result, file), len(result.patch_size)
    size = (1,) * (3 - n_axes) + tuple(result.patch_size)
    shape = case.pixels.shape[1:]
    only = None if slice_index is None else case.slice_at(slice_index, file)
    centre: np.ndarray | None
    if at is not None:
        centre = case.centre(at, slice_index, file)
    else:
        cuts = ((start, _cut(case, start, size)) for start in _starts(shape, result.patch_size, only))
        centre = _middle(cuts, model, target)
    if centre is None:
        what = "nothing but background" if target is None else f"no {model.class_label(target)}"
        raise MisureError(f"{what} is predicted in any patch of {file}")
    start = np.clip(centre - np.array(size) // 2, 0, np.array(shape) - size)
    grid = None
    if case.affine is not None:
        affine = case.affine.copy()
        affine[:3, 3] += affine[:3, :3] @ start
        grid = PatchGrid(affine, affine, "nnU-Net")
    return Patch(
        image_name(file),
        _before_normalisation(_cut(case, start, size), model),
        file,
        grid,
        None if n_axes == 3 else case.slice_in_file(start[0]),
        None if at is None else (centre - start)[-n_axes:].tolist(),
    )


def _files(result: Result, file: Path) -> list[Path]:
    """The files of a case's channels, which are one where a format holds them all."""
    ending = str(result.dataset["file_ending"])
    stem = file.name.removesuffix(ending)
    if stem == file.name:
        raise MisureError(f"{file} is no {ending} file, as those are that this network was trained on")
    if result.channels == 1 or not stem.endswith("_0000"):
        return [file]
    beside = [file.with_name(f"{stem[:-4]}{channel:04d}{ending}") for channel in range(result.channels)]
    return [path for path in beside if path.is_file()]


def _affine(result: Result, known: Mapping[str, Any], scale: np.ndarray, offset: np.ndarray) -> np.ndarray | None:
    """From a prepared case's indices to millimetres; a file's array has its axes in reverse, z y x."""
    affine = np.eye(4)
    if "nibabel_stuff" in known:
        told = known["nibabel_stuff"]
        affine = np.array(told.get("reoriented_affine", told.get("original_affine")))
    elif len(known.get("sitk_stuff", {}).get("spacing", ())) == 3:
        told = known["sitk_stuff"]
        affine[:3, :3] = np.reshape(told["direction"], (3, 3)) * told["spacing"]
        affine[:3, 3] = told["origin"]
        affine = np.diag([-1, -1, 1, 1]) @ affine  # ITK counts to the left and the back
    else:
        return None
    within = np.diag([*scale, 1.0])
    within[:3, 3] = offset
    whole: np.ndarray = affine[:, [*(2 - axis for axis in result.plans.transpose_forward), 3]] @ within
    return whole


def _cut(case: Case, start: Sequence[int] | np.ndarray, size: Sequence[int]) -> Tensor:
    z, y, x = (slice(int(i), int(i) + side) for i, side in zip(start, size, strict=True))
    part = case.pixels[:, z, y, x]
    return part[:, 0] if size[0] == 1 else part


def _before_normalisation(pixels: Tensor, model: SegmentationModel) -> Tensor:
    """Undo a network's mean and std, without cutting what lies outside [0, 1]."""
    mean, std = (pixels.new_tensor(x).view(-1, *[1] * (pixels.ndim - 1)) for x in (model.mean, model.std))
    return pixels * std + mean


def _starts(shape: Sequence[int], patch: Sequence[int], slice_index: int | None) -> Iterator[tuple[int, ...]]:
    from nnunetv2.inference.sliding_window_prediction import compute_steps_for_sliding_window

    steps: list[Sequence[int]] = compute_steps_for_sliding_window(shape[-len(patch) :], patch, _STEP)
    if len(patch) == 2:
        steps.insert(0, range(shape[0]) if slice_index is None else [slice_index])
    return itertools.product(*steps)


@torch.no_grad()
def _middle(
    cuts: Iterable[tuple[tuple[int, ...], Tensor]], model: SegmentationModel, target: int | None
) -> np.ndarray | None:
    """Find the middle of what is predicted of a class in the patch that has the most of it."""
    most, middle = 0, None
    for start, pixels in cuts:
        logits = model(pixels[None].to(model.device or pixels.device))
        if target is not None and not 0 <= target < logits.shape[1]:
            return None
        if model.multi_label:
            mask = (logits[0] > 0).any(0) if target is None else logits[0, target] > 0
        else:
            mask = ~predicted_as(logits, (0,))[0] if target is None else predicted_as(logits, (target,))[0]
        if (n_voxels := int(mask.sum())) > most:
            within = mask.nonzero().float().mean(0).round().int().tolist()
            most, middle = n_voxels, np.add(start, [*[0] * (3 - len(within)), *within])
    return middle
