"""The target of an explanation: a class within a region. The same object goes to explainers and to metrics."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from misure.errors import MisureError
from misure.models.description import Wanted, class_index, first_pass, wanted_classes
from misure.models.wrapper import FrozenNetwork, SegmentationModel
from misure.regions import as_region, border_of, component_at, point_within, predicted_as, regions_of
from misure.validation import check_arguments, is_real, shown, whole

_Frozen = TypeVar("_Frozen")

_NO_OBJECT = re.compile(
    r".*background.*|bg|(un|not ?)(labell?ed|classified|defined|assigned)|void|others?|none|nothing|null|ignored?"
    r"|unknown|empty|clear|rest|outside|negative|normal|healthy|n ?a|no ?data|((class|label) ?)?0?"
    r"|(no|non|not|without) .*|hintergrund|achtergrond|arri.re ?(fond|plan)|fond|s?fondo|fundo"
)
"""Names of a class 0 that is no object, in small letters and digits, with a space for whatever is between them."""


class EmptyTargetError(MisureError):
    """The class was not predicted, or not inside the region; a sweep skips and counts such samples."""


@dataclass(frozen=True)
class Target:
    """A class within a region of one image, with the reference prediction frozen.

    Sizes are H x W here; in a volume, D x H x W.

    Attributes:
        class_id: The class ``l`` that is explained.
        region: bool, H x W: the pixels predicted as that class and inside the chosen region.
        ignored: bool, H x W: pixels predicted as that class outside the region. They count neither
            for nor against a perturbed prediction.
        background: bool, H x W: the pixels predicted as class 0; with a multi-label head, those not
            predicted as the class.
        reference: 2 x H x W, the reference probabilities of background (class 0) and of the class.
        multi_label: Whether every class is a yes or no of its own, predicted where its logit is above
            0. Class 0 is a class like any other then.
    """

    class_id: int
    region: Tensor
    ignored: Tensor
    background: Tensor
    reference: Tensor
    multi_label: bool = False

    @classmethod
    def from_logits(
        cls,
        logits: Tensor,
        class_id: int,
        region: Any = None,
        *,
        at: Any = None,
        border: int | None = None,
        multi_label: bool = False,
    ) -> Target:
        """Freeze the reference prediction.

        Args:
            logits: L x H x W, on the unperturbed image.
            class_id: 0..L-1.
            region: bool, H x W, or what :func:`misure.regions.as_region` takes; None means the whole predicted class.
            at: A point (row, column), of any numbers: keep only the connected component there.
            border: Keep only the inner rim of that many pixels of what is left.
            multi_label: Whether the logits are those of a multi-label sigmoid head.

        Raises:
            EmptyTargetError: If no pixel is left to explain.
            MisureError: If there is no such class, the region has another shape or the point is not on it.
        """
        check_arguments(cls.from_logits, {"logits": logits, "multi_label": multi_label})
        number = whole(class_id)
        if logits.ndim not in {3, 4} or not is_real(logits):
            raise MisureError(f"logits are {logits.dtype}, {tuple(logits.shape)}: expected float, classes x H x W")
        if number is None:
            raise MisureError(f"class {shown(class_id)} is not the number of a class: give one, or a name")
        class_id = number
        if not 0 <= class_id < len(logits):
            raise MisureError(f"class {shown(class_id)} does not exist: the network has classes 0 to {len(logits) - 1}")
        chosen = logits[class_id] > 0 if multi_label else predicted_as(logits[None], (class_id,))[0]
        if not chosen.any():
            present = predicted_classes(logits, multi_label=multi_label)
            raise EmptyTargetError(f"class {class_id} was not predicted in this image; predicted classes: {present}")
        region = chosen if region is None else as_region(region)
        if region.shape != chosen.shape:
            raise MisureError(f"the region has shape {tuple(region.shape)}, the image {tuple(chosen.shape)}")
        region = chosen & region.to(chosen.device)
        if not region.any():
            raise EmptyTargetError(f"class {class_id} was not predicted inside the region: choose another region")
        if at is not None:
            region = component_at(region, at)
        if border is not None:
            region = border_of(region, border)
        reference = _against_zero(logits[class_id]) if multi_label else logits.softmax(0)[[0, class_id]]
        background = ~chosen if multi_label else predicted_as(logits[None], (0,))[0]
        return cls(class_id, region, chosen & ~region, background, reference, multi_label)

    @property
    def size(self) -> int:
        """Number of pixels that are explained."""
        return int(self.region.sum())

    @property
    def confidence(self) -> float:
        """Mean reference probability of the class over the region, 0..1."""
        return float(self.reference[1][self.region].mean())

    def cpu(self) -> Target:
        """Return the same target with its tensors on the CPU."""
        names = ("region", "ignored", "background", "reference")
        return replace(self, **{name: getattr(self, name).cpu() for name in names})


@dataclass(frozen=True)
class TargetBatch:
    """Targets of N images as tensors, for batched arithmetic. Methods ask it rather than the logits.

    Attributes:
        class_ids: One an image; a batch of one target also takes the logits of several images.
        regions: bool, N x H x W.
        counted: bool, N x H x W; False on ignored pixels.
        backgrounds: bool, N x H x W.
        references: N x 2 x H x W.
        multi_label: See :class:`Target`.
    """

    class_ids: tuple[int, ...]
    regions: Tensor
    counted: Tensor
    backgrounds: Tensor
    references: Tensor
    multi_label: bool = False

    @classmethod
    def stack(cls, targets: Sequence[Target], device: torch.device | None = None) -> TargetBatch:
        """Stack single targets of equal image size and one network."""
        device = device or targets[0].region.device
        return cls(
            tuple(t.class_id for t in targets),
            torch.stack([t.region for t in targets]).to(device),
            ~torch.stack([t.ignored for t in targets]).to(device),
            torch.stack([t.background for t in targets]).to(device),
            torch.stack([t.reference for t in targets]).to(device),
            targets[0].multi_label,
        )

    def __getitem__(self, part: slice | Tensor) -> TargetBatch:
        known = {f.name: getattr(self, f.name) for f in fields(self)}
        tensors: dict[str, Any] = {name: t[part] for name, t in known.items() if isinstance(t, Tensor)}
        if len({*self.class_ids}) == 1:  # no GPU is waited for
            ids = self.class_ids[:1] * len(tensors["regions"])
        else:
            places = torch.arange(len(self.class_ids))[part.cpu() if isinstance(part, Tensor) else part]
            ids = tuple(self.class_ids[place] for place in places.tolist())
        return replace(self, class_ids=ids, **tensors)

    @property
    def are_background(self) -> Tensor:
        """Whether the explained class is the background itself: bool, N."""
        known = [number == 0 and not self.multi_label for number in self.class_ids]
        return torch.tensor(known, dtype=torch.bool, device=self.regions.device)

    def hits(self, logits: Tensor) -> Tensor:
        """Return the pixels of perturbed images that are predicted as their class: bool, N x H x W."""
        if self.multi_label:
            return (self.scores(logits) > 0) & self.counted
        return predicted_as(logits.detach(), self.class_ids) & self.counted

    def scores(self, logits: Tensor) -> Tensor:
        """Return the logits of each image's own class, N x H x W; gradients pass through."""
        if len({*self.class_ids}) == 1:
            return logits[:, self.class_ids[0]]
        own = torch.tensor(self.class_ids, dtype=torch.int64, device=logits.device)
        return logits[torch.arange(len(logits), device=logits.device), own]

    def probabilities(self, logits: Tensor, passes: int = 1) -> Tensor:
        """Return the probabilities of background and of each image's own class, N x 2 x H x W.

        Args:
            logits: N x L x H x W.
            passes: How often softmax is applied.

        Raises:
            MisureError: On further passes with a multi-label head, which has no softmax.
        """
        if self.multi_label:
            if passes > 1:
                raise MisureError(f"softmax_passes={passes}: a multi-label sigmoid head has no softmax, use 1")
            return _against_zero(self.scores(logits), dim=1)
        probabilities = logits
        for _ in range(passes):
            probabilities = probabilities.softmax(1)
        return torch.stack([probabilities[:, 0], self.scores(probabilities)], 1)


def _against_zero(logits: Tensor, dim: int = 0) -> Tensor:
    """Return (1 - sigmoid, sigmoid) along a new axis, as the softmax over (0, logit) that they are."""
    return torch.stack([torch.zeros_like(logits), logits], dim).softmax(dim)


def predicted_classes(logits: Tensor, *, multi_label: bool = False) -> list[int]:
    """Return the classes that are predicted anywhere, background included, ascending.

    Args:
        logits: L x H x W, or any other shape after the classes.
        multi_label: Whether a class is predicted where its logit is above 0, rather than the largest.
    """
    if not multi_label:
        return [int(class_id) for class_id in torch.unique(logits.argmax(0))]
    return [int(class_id) for class_id in (logits > 0).reshape(len(logits), -1).any(1).nonzero()]


def has_background(model: SegmentationModel) -> bool:
    """Say whether class 0 is what is no object, rather than such as the wall of ADE20K or the road of Cityscapes.

    It is one where it has no name, or one of :data:`_NO_OBJECT`, and beside a single other class whatever its name.
    """
    names = model.class_names or ()
    name = re.sub(r"[\W_]+", " ", names[0].casefold()).strip() if len(names) > 2 else ""
    return not model.multi_label and bool(_NO_OBJECT.fullmatch(name))


def objects_in(model: SegmentationModel, logits: Tensor) -> list[int]:
    """Return the classes of objects that are predicted anywhere: all but the background, ascending."""
    present = predicted_classes(logits, multi_label=model.multi_label)
    return [class_id for class_id in present if class_id or not has_background(model)]


def _nothing_predicted(where: str) -> EmptyTargetError:
    return EmptyTargetError(f"only background was predicted{where}: there is no object to explain")


def make_targets(
    network: FrozenNetwork,
    images: Tensor,
    target: Any,
    region: Any = None,
    *,
    at: Any = None,
    border: int | None = None,
) -> list[Target]:
    """Predict the unperturbed images and freeze one target each.

    Args:
        network: The frozen network.
        images: N x C x H x W or N x C x D x H x W.
        target: See :func:`misure.models.description.wanted_classes`; None where a single foreground class is
            predicted (at the point, if there is one).
        region: H x W, N x H x W or N x 1 x H x W, see :func:`misure.regions.as_region`; None means the whole predicted
            class.
        at: A point, see :meth:`Target.from_logits`, which also names the errors.
        border: Width of a rim, likewise.

    Raises:
        MisureError: If ``target`` is None and ambiguous, or the network does not take the images.
    """
    wanted = wanted_classes(target, len(images))

    def freeze(logits: Tensor, inside: Tensor | None, i: int) -> Target:
        class_id = _class_index(network.model, wanted[i], logits, at)
        return Target.from_logits(logits, class_id, inside, at=at, border=border, multi_label=network.model.multi_label)

    return _of_predictions(network, images, region, freeze)


def make_all_targets(
    network: FrozenNetwork, images: Tensor, region: Any = None, *, border: int | None = None
) -> list[list[Target]]:
    """Freeze one target for every object's class that is predicted, inside the region if there is one.

    Args:
        network: The frozen network.
        images: N x C x H x W or N x C x D x H x W.
        region: As in :func:`make_targets`.
        border: See :meth:`Target.from_logits`.

    Returns:
        For each image its targets by ascending class; an image without any raises an EmptyTargetError.
    """
    multi_label = network.model.multi_label

    def freeze(logits: Tensor, inside: Tensor | None, _i: int) -> list[Target]:
        seen, where = (logits, "") if inside is None else (logits[:, inside], " inside the region")
        foreground = objects_in(network.model, seen)
        if not foreground:
            raise _nothing_predicted(where)
        return [Target.from_logits(logits, c, inside, border=border, multi_label=multi_label) for c in foreground]

    return _of_predictions(network, images, region, freeze)


def _of_predictions(
    network: FrozenNetwork, images: Tensor, region: Any, freeze: Callable[[Tensor, Tensor | None, int], _Frozen]
) -> list[_Frozen]:
    """Call ``freeze`` with the logits, the region and the number of every image; what a network raises is one line."""
    inside = None if region is None else regions_of(region, images)

    @torch.no_grad()
    def predict(part: slice) -> list[_Frozen]:
        return [
            freeze(logits, None if inside is None else inside[i], i)
            for i, logits in enumerate(network(images[part], unperturbed=True), part.start)
        ]

    with first_pass(network.model.title, images.shape[1:]):
        return network.map(predict, len(images), images[0])


def _class_index(model: SegmentationModel, target: Wanted, logits: Tensor, at: Any) -> int:
    if isinstance(target, str):
        n_classes = len(logits) - (model.output.kind == "class_numbers")  # whose last stands for any other number
        return class_index(model.class_names, target, n_classes)
    if target is not None:
        return target
    where = ""
    if at is not None:
        place = point_within(at, logits.shape[1:])
        logits, where = logits.movedim(0, -1)[place], f" at {place}"
    present = objects_in(model, logits)
    if len(present) == 1:
        return present[0]
    if not present:
        raise _nothing_predicted(where)
    raise MisureError(f"several classes are predicted{where}: choose one with target=..., out of {present}")
