"""Explanations of image files: read, prepared for the network, checked, explained and written, one after the other."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from torch import Tensor
from torch.nn.functional import interpolate

from misure.api import EVERY_CLASS, explain
from misure.config import build, compute_of
from misure.errors import FailedItems, MisureError, did_you_mean, some
from misure.evaluation.curves import explanation_curves
from misure.explainers.base import Explainer
from misure.explaining.bar import progress_bar
from misure.explaining.naming import image_names
from misure.explaining.network import NamedNetwork, content_digest, named_network
from misure.explaining.patches import Patch, patch_of
from misure.explaining.request import Request, plain_value
from misure.explaining.writing import Output
from misure.explanation import Explanation
from misure.io.finding import find_images
from misure.io.images import InputFormat, LoadedImage, read_image, read_mask
from misure.io.reading import user_path
from misure.models.hub import is_hub_id
from misure.models.normalisation import normalised
from misure.models.wrapper import frozen
from misure.regions import resized
from misure.sweep.networks import versions
from misure.target import EmptyTargetError, objects_in, predicted_classes

_REQUEST = ("target", "at", "border", "region", "size", "slice", "window", "axes", "dimensions")
_COMPUTE = ("precision", "batch_size", "allow_tf32", "fold")
_REFUSALS = (RuntimeError, ValueError, TypeError, IndexError, AssertionError, NotImplementedError)
"""Errors of networks on images that they cannot take."""


@dataclass(frozen=True)
class Command:
    """A checked ``misure explain``.

    Attributes:
        cfg: Its configuration.
        network: What is explained.
        explainer: By which method.
        reading: The format in which the network takes images.
    """

    cfg: DictConfig
    network: NamedNetwork
    explainer: Explainer
    reading: InputFormat

    @classmethod
    def of(cls, cfg: DictConfig) -> Command:
        """Build the method, then the network, whose loading takes longer.

        Raises:
            MisureError: If one of them cannot be had or a key is out of range.
        """
        explainer = build(cfg.explainer)
        network = named_network(cfg)
        command = cls(cfg, network, explainer, reading_of(cfg, network))
        command.check_target()
        return command

    def check_target(self) -> None:
        """Raise a MisureError for a class the network does not have, before any image is read."""
        target, names = self.cfg.target, self.network.model.class_names or ()
        of_that_name = [number for number, name in enumerate(names) if name == str(target)]
        if isinstance(target, str) and target != EVERY_CLASS and not of_that_name:
            hint = did_you_mean(target, names) if names else "; it names no classes: give a number, or class_names=..."
            raise MisureError(f"target={target}: the network has no class of that name{hint}")
        meant = {*of_that_name, target} if isinstance(target, int) else {*of_that_name}
        if len(meant) > 1:
            raise MisureError(
                f"target={target} can mean the classes of number {some(list(map(str, sorted(meant))))}: "
                "give other class_names=..., each once and not a number"
            )

    def run(self, path: Path, name: str) -> list[Path]:
        """Explain one image file.

        Args:
            path: The file, or the folder of a DICOM series.
            name: What the folders of its explanations begin with.

        Returns:
            The folders that were written.

        Raises:
            MisureError: If the image cannot be read or explained; nothing is written then.
        """
        image = replace(self._read(path), name=name)
        pixels = prepared(image, self.network, self.cfg)
        self._check_prediction(pixels)
        compute = compute_of(self.cfg)
        with progress_bar(f"{name}, {self.explainer.name}") as bar:
            explanations = explain(
                self.network.model,
                pixels[None],
                self.cfg.target,
                self.explainer,
                region=self._region(image, pixels),
                at=self._point(image, pixels),
                border=self.cfg.border,
                **{name: getattr(compute, name) for name in _COMPUTE},
                watch=bar,
            )[0]
        return [self._save(image, one) for one in (explanations if isinstance(explanations, list) else [explanations])]

    def _read(self, path: Path) -> LoadedImage:
        """Read an image, or of a case for nnU-Net the patch around the object."""
        if self.network.result is None:
            return read_image(path, self.reading)
        for key in ("region", "size"):
            if self.cfg[key] is not None:
                raise MisureError(f"{key}={plain_value(self.cfg[key])} is not for patches of nnU-Net: leave it out")
        target = self._class_id()
        return patch_of(
            self.network.result,
            path,
            self.network.model,
            target if isinstance(target, int) else None,
            at=plain_value(self.cfg.at),
            slice_index=self.cfg.slice,
        )

    def _class_id(self) -> Any:
        """The number of the class that is named; what else is asked for as it is."""
        target = self.cfg.target
        named = isinstance(target, str) and target != EVERY_CLASS
        return (self.network.model.class_names or ()).index(target) if named else target

    def _save(self, image: LoadedImage, explanation: Explanation) -> Path:
        curve = explanation_curves(
            self.network.model, explanation, self.explainer.fill, compute_of(self.cfg), n_steps=1
        )
        request = {key: plain_value(self.cfg[key]) for key in _REQUEST}
        if request["region"]:
            region = user_path(request["region"])
            request |= {"region": region.name, "region_sha256": content_digest(region)}
        output = Output(image, self.network, curve, request, versions())
        folder = output.save(explanation, user_path(self.cfg.output))
        ratio, dice = explanation.perturbation_ratio, explanation.dice_explained
        usual = output.folder_name(explanation)
        beside = "" if folder.name == usual else f" ({usual} holds another explanation, which is kept)"
        print(
            f"{image.path}: {output.class_name(explanation)}, {self.explainer.title}: Dice explained {dice:.3f}, "
            f"ratio {ratio:.2f}, {explanation.seconds:.1f} s -> {_short(folder)}{beside}",
            flush=True,
        )
        return folder

    @torch.no_grad()
    def _check_prediction(self, pixels: Tensor) -> None:
        """Raise a MisureError if the network cannot take the image, or does not predict the class in it."""
        model = self.network.model
        images = pixels[None].to(model.device or pixels.device, model.dtype or pixels.dtype)
        try:
            with frozen(model, compute_of(self.cfg), images.device) as network:
                logits = network(images, unperturbed=True)[0]
        except _REFUSALS as error:
            shape, reason = " x ".join(map(str, pixels.shape)), " ".join(str(error).split())[:160]
            raise MisureError(
                f"the network does not take an image of {shape} ({reason}): give another size=..., such as size=224, "
                "or in_channels=..."
            ) from error
        present = predicted_classes(logits, multi_label=model.multi_label)
        objects = objects_in(model, logits)
        named = ", ".join(model.class_label(class_id) for class_id in objects) or "only background"
        target = self.cfg.target
        index = self._class_id()
        if isinstance(index, int) and index < len(logits) and index not in present:
            raise EmptyTargetError(f"target={target} is not predicted in this image; predicted: {named}")
        if target is None and self.cfg.at is None and len(objects) > 1:
            raise MisureError(f"several classes are predicted: choose target=<class> out of {named}, or target=all")

    def _point(self, image: LoadedImage, pixels: Tensor) -> list[int] | None:
        """Where the point given in the image lies after resizing.

        Raises:
            MisureError: If it is no point of the image.
        """
        point, size = plain_value(self.cfg.at), image.pixels.shape[1:]
        if point is None:
            return None
        if isinstance(image, Patch):
            return image.point
        fits = isinstance(point, list) and len(point) == len(size) and all(type(i) is int for i in point)
        if not fits or not all(0 <= i < side for i, side in zip(point, size, strict=True)):
            raise MisureError(f"at={point} is not a point of an image of {' x '.join(map(str, size))}: at=[row,column]")
        return [int((i + 0.5) * new / old) for i, new, old in zip(point, pixels.shape[1:], size, strict=True)]

    def _region(self, image: LoadedImage, pixels: Tensor) -> Tensor | None:
        """Read the user's mask and bring it to the size of the network's image.

        Raises:
            MisureError: If it cannot be read or has another size than the image.
        """
        if self.cfg.region is None:
            return None
        mask = read_mask(user_path(self.cfg.region), self.reading, image)[None, None]
        nearest: Tensor = interpolate(mask.float(), size=pixels.shape[1:], mode="nearest-exact")[0, 0] > 0
        return nearest


def reading_of(cfg: DictConfig, network: NamedNetwork) -> InputFormat:
    """The format in which a network takes images.

    Raises:
        MisureError: If a key is out of range.
    """
    window = plain_value(cfg.window)
    dimensions = cfg.dimensions or network.dimensions
    return InputFormat(network.channels, dimensions, cfg.slice, None if window is None else tuple(window), cfg.axes)


def prepared(image: LoadedImage, network: NamedNetwork, cfg: DictConfig) -> Tensor:
    """Resize and normalise an image as its network expects.

    Returns:
        float32, C x H x W or C x D x H x W.

    Raises:
        MisureError: If the size is none, or the normalisation is for other channels.
    """
    pixels = image.pixels
    size = side_lengths(network.size if cfg.size is None else plain_value(cfg.size), pixels.ndim - 1)
    if size is not None and size != tuple(pixels.shape[1:]):
        pixels = resized(pixels[None], size, antialias=pixels.ndim == 3)[0].clamp(0, 1)
    return normalised(pixels, network.model.mean, network.model.std)


def side_lengths(size: Any, dimensions: int) -> tuple[int, ...] | None:
    """Read ``size``: one side for a square or cube, or a list of sides.

    Raises:
        MisureError: If it is neither.
    """
    if size is None:
        return None
    sides = [size] * dimensions if isinstance(size, int) else size
    whole = isinstance(sides, list) and all(type(side) is int and side >= 1 for side in sides)
    if not whole or len(sides) != dimensions:
        raise MisureError(f"size={size} is neither a side nor [{'height, width' if dimensions == 2 else 'd, h, w'}]")
    return tuple(sides)


def explain_files(cfg: DictConfig) -> None:
    """Explain every image of a configuration (``configs/explain.yaml``); one that fails does not stop the others.

    Raises:
        MisureError: If there is no image, or one of them failed; of several, each failure is a line on stderr.
    """
    sources = Request.of(cfg).image or ()
    failures, found = FailedItems(), list[Path]()
    for source in sources:
        with failures.tolerated(source, alone=len(sources) == 1):
            found += find_images(source)
    paths = list({path.absolute(): path for path in found}.values())
    n_images = len(paths) + len(failures.lines)
    if not n_images:
        raise MisureError("no image is given: misure explain <file, folder or glob>, see misure explain --help")
    if cfg.plan_only:
        print(_plan(cfg, len(paths)))
    else:
        command = Command.of(cfg)
        for path, name in zip(paths, image_names(paths), strict=True):
            with failures.tolerated(str(path), alone=len(paths) == len(sources) == 1):
                command.run(path, name)
    failures.check(n_images, "images could not be explained")


def _plan(cfg: DictConfig, n_images: int) -> str:
    """Say what would be done, in a few words; no network is loaded."""
    method: Explainer = build(cfg.explainer)
    forwards = "{} forward passes and {} with a gradient".format(*method.passes)
    download = "" if cfg.model_file or "weights" not in cfg.model else build(cfg.model.weights).download
    if cfg.model_file and is_hub_id(cfg.model_file):
        download = f"{cfg.model_file} of the Hugging Face Hub, unless it is in its cache"
    fetched = f"; download: {download}" if download else ""
    return f"plan: {n_images} images, {method.title} ({forwards} each), a folder for each in {cfg.output}{fetched}"


def _short(folder: Path) -> str:
    here = Path.cwd()
    return str(folder.relative_to(here) if folder.is_relative_to(here) else folder)
