"""What is changed before explaining, to see whether maps notice: sanity checks after Adebayo et al. (NeurIPS 2018).

Either the network's weights are drawn anew from the output towards the input, or another class is explained.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from misure.errors import MisureError
from misure.explainers.base import Explainer
from misure.explainers.msr import MSR
from misure.explainers.msr_fast import FastMSR
from misure.explainers.sufficient_region import SufficientRegion
from misure.metrics import dice
from misure.models.wrapper import FrozenNetwork, SegmentationModel
from misure.randomness import integers
from misure.target import EmptyTargetError, TargetBatch

_NONE, _OTHER_TARGET, _RANDOMISED = "none", "other_target", "randomised_"
_KEY = 86028121  # keeps the draws of weights apart from everything else keyed by the seed
_EMBEDDING_STD = (
    0.02  # of what is neither a weight nor a bias: position embeddings and tokens, as vision transformers do
)
_SEEDS = 2**31 - 1


@dataclass(frozen=True)
class Intervention:
    """A change made before explaining.

    Attributes:
        randomised: Share of the network's modules with parameters whose weights are drawn anew, counted from the
            output, 0..1. What is explained stays the prediction of the untouched network.
        other_target: Whether another class that is predicted in the same image is explained instead.
    """

    randomised: float = 0.0
    other_target: bool = False

    @classmethod
    def of(cls, text: str) -> Intervention:
        """Read the configuration's or a record's text: ``none``, ``other_target`` or such as ``randomised_0.25``.

        Raises:
            MisureError: If it is anything else.
        """
        if text in {_NONE, ""}:
            return cls()
        if text == _OTHER_TARGET:
            return cls(other_target=True)
        try:
            share = float(str(text).removeprefix(_RANDOMISED)) if str(text).startswith(_RANDOMISED) else 0.0
        except ValueError:
            share = 0.0
        if not 0 < share <= 1:
            raise MisureError(
                f"intervention={text} is not known: choose {_NONE}, {_OTHER_TARGET} or {_RANDOMISED}<share of the "
                f"weights from the output on, above 0 and up to 1>, such as {_RANDOMISED}0.25"
            )
        return cls(randomised=share)

    @property
    def text(self) -> str:
        """What identifies it in records; empty for no change."""
        if self.randomised:
            return f"{_RANDOMISED}{self.randomised:g}"
        return _OTHER_TARGET if self.other_target else ""


NOTHING = Intervention()
"""No change."""


class Interventions:
    """Lends what an intervention makes of a network and a method; keeps one randomised copy of a network at a time."""

    def __init__(self) -> None:
        self._made: tuple[SegmentationModel, float, int] | None = None
        self._copy: SegmentationModel | None = None

    def apply(
        self, intervention: Intervention, model: SegmentationModel, explainer: Explainer, images: Tensor, seed: int
    ) -> tuple[SegmentationModel, Explainer]:
        """Return the network and the method to explain with.

        Args:
            intervention: What to change.
            model: The network, which stays as it is.
            explainer: The method.
            images: N x C x H x W, of which one goes through the network to see in which order its modules run.
            seed: Key of the weights drawn.

        Raises:
            MisureError: If weights are to be drawn for a network that is no module.
        """
        if not intervention.randomised:
            return model, explainer
        wanted = (model, intervention.randomised, seed)
        if self._copy is None or self._made != wanted:
            self._copy = None  # frees it before the next is made
            self._copy = randomised(model, images[:1], intervention.randomised, seed)
            self._made = wanted
        return self._copy, _of_another_network(explainer)


def randomised(model: SegmentationModel, image: Tensor, share: float, seed: int) -> SegmentationModel:
    """Copy a network and draw the weights of its last modules anew.

    Weights come from He's normal distribution, biases become 0, normalisation starts as the identity: scale 1,
    shift 0, running mean 0 and variance 1. The running statistics are reset because they were learned too and
    describe activations that no longer exist. A module has the same new weights at every share that reaches it.

    Args:
        model: The network, which stays as it is.
        image: 1 x C x H x W, shows in which order modules run.
        share: Of the modules with parameters of their own, counted from the output, 0..1.
        seed: Key of the weights.

    Raises:
        MisureError: If the network is no module.
    """
    if model.module is None:
        raise MisureError("this network is a plain callable, not an nn.Module, so it has no weights to randomise")
    changed = copy.copy(model)
    changed.network = module = copy.deepcopy(model.module).eval()
    changed.recall = replace(model.recall) if model.recall else None  # an empty one
    from_output = list(reversed(_in_order(changed, module, image)))
    for rank, part in enumerate(from_output[: math.ceil(share * len(from_output))]):
        generator = torch.Generator().manual_seed(int(integers(0, _SEEDS, seed, _KEY, rank)))
        _draw_anew(part, generator)
    return changed


@torch.no_grad()
def _in_order(model: SegmentationModel, module: nn.Module, image: Tensor) -> list[nn.Module]:
    """List the modules with parameters of their own in the order in which they first run.

    One whose parameters are used without running it takes the place of the module that it is a part of.
    """
    started: dict[str, int] = {}
    with ExitStack() as hooks:
        for name, part in module.named_modules():

            def note(_module: nn.Module, _inputs: Any, name: str = name) -> None:
                started.setdefault(name, len(started))

            hooks.callback(part.register_forward_pre_hook(note).remove)
        model(image.to(model.device or image.device, model.dtype or image.dtype))

    def place(name: str) -> int:
        while name not in started:
            name = name.rpartition(".")[0]
        return started[name]

    owners = [
        (name, part) for name, part in module.named_modules() if any(True for _ in part.parameters(recurse=False))
    ]
    return [part for _, part in sorted(owners, key=lambda owner: place(owner[0]))]


@torch.no_grad()
def _draw_anew(module: nn.Module, generator: torch.Generator) -> None:
    for name, parameter in module.named_parameters(recurse=False):
        if name.endswith("bias"):
            parameter.zero_()
        elif not name.endswith("weight"):
            parameter.copy_(_EMBEDDING_STD * torch.randn(parameter.shape, generator=generator))
        elif parameter.ndim < 2:
            parameter.fill_(1)
        else:
            fan_in = parameter[0].numel()
            parameter.copy_(math.sqrt(2 / fan_in) * torch.randn(parameter.shape, generator=generator))
    for name, start in (("running_mean", 0), ("running_var", 1)):
        statistics = getattr(module, name, None)
        if isinstance(statistics, Tensor):
            statistics.fill_(start)


@torch.no_grad()
def other_class(network: FrozenNetwork, image: Tensor, class_id: int) -> int:
    """Choose another class to explain: the largest other object predicted in an image, else its background.

    Args:
        network: The frozen network.
        image: 1 x C x H x W.
        class_id: The class that is not wanted.

    Raises:
        EmptyTargetError: If that class is not predicted, or nothing else is.
    """
    logits = network(image)
    areas = torch.bincount(logits.argmax(1).flatten(), minlength=logits.shape[1]).tolist()
    if not areas[class_id]:
        raise EmptyTargetError(f"class {class_id} was not predicted in this image: there is no map to compare with")
    others = [c for c, area in enumerate(areas) if area and c != class_id]
    if not others:
        raise EmptyTargetError(f"nothing but class {class_id} was predicted in this image: there is no other target")
    return max(others, key=lambda c: (c != 0, areas[c], -c))


def _of_another_network(explainer: Explainer) -> Explainer:
    """Return a method that may explain the prediction of another network than the one it looks at."""
    tolerant: dict[type[Explainer], type[_Tolerant]] = {
        MSR: _TolerantMSR,
        FastMSR: _TolerantFastMSR,
        SufficientRegion: _TolerantSufficientRegion,
    }
    kind = tolerant.get(type(explainer))
    return explainer if kind is None else kind(**asdict(explainer))


def _dilations_to_whole(mask: Tensor, grow: Callable[[Tensor], Tensor]) -> int:
    """Count the dilations after which an object (bool, H x W) fills the image."""
    count = 0
    while not mask.all():
        mask, count = grow(mask[None])[0], count + 1
    return count


class _Tolerant(SufficientRegion):
    """Stage 1 of another network's prediction, for which no region may suffice.

    Where not even the whole image reaches ``tau``, the whole image is the region that stage 1 would grow to; it is
    taken at once, so that a useless search costs one forward pass.
    """

    def search(self, network: FrozenNetwork, images: Tensor, targets: TargetBatch) -> tuple[Tensor, Tensor]:
        """Return the masks M_SR and the numbers of dilations."""

        @torch.no_grad()
        def score(part: slice) -> Tensor:
            return dice(targets[part].hits(network(images[part])), targets[part].regions)

        reached = network.map(score, len(images), images[0]) > self.tau
        regions = torch.ones_like(targets.regions)
        counts = [_dilations_to_whole(mask, self.dilate) for mask in targets.regions]
        n_dilations = torch.tensor(counts, device=images.device)
        if reached.any():
            regions[reached], n_dilations[reached] = super().search(network, images[reached], targets[reached])
        return regions, n_dilations


@dataclass(frozen=True, kw_only=True)
class _TolerantSufficientRegion(_Tolerant):
    """Stage 1 alone."""


@dataclass(frozen=True, kw_only=True)
class _TolerantMSR(_Tolerant, MSR):
    """Both stages."""


@dataclass(frozen=True, kw_only=True)
class _TolerantFastMSR(_Tolerant, FastMSR):
    """Both, in fewer steps."""
