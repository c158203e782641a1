"""Other packages' versions of our methods, one file each, called as their documentation shows.

Each file imports its package and has one function ``explain(model, image, target, explainer)`` that takes what there is
to choose from our explainer. The packages come with the extra ``bench``; one that is absent is named in the report.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any

from torch import Tensor

from misure.bench.literal import LiteralMap
from misure.models.wrapper import SegmentationModel
from misure.target import Target

OneImage = Callable[[SegmentationModel, Tensor, Target, Any], LiteralMap]
"""Explains one image (C x H x W) for a target, with the parameters of one of our explainers."""


@dataclass(frozen=True)
class Peer:
    """A package that has one of our methods.

    Attributes:
        name: As it is installed, ``pip install <name>``.
        package: As it is imported.
        file: The file of this folder that calls it.
    """

    name: str
    package: str
    file: str

    @property
    def version(self) -> str | None:
        """The installed version, or None."""
        try:
            return version(self.name) if find_spec(self.package) else None
        except PackageNotFoundError:
            return None

    def load(self) -> OneImage:
        """Import the package and return the function that explains with it."""
        explain: OneImage = importlib.import_module(f"{__name__}.{self.file}").explain
        return explain


PEERS: dict[str, tuple[Peer, ...]] = {
    "rise": (Peer("xaitk-saliency", "xaitk_saliency", "xaitk"),),
    "seg_grad_cam": (Peer("grad-cam", "pytorch_grad_cam", "grad_cam"), Peer("torchcam", "torchcam", "torchcam")),
    "integrated_gradients": (Peer("captum", "captum", "captum"),),
}
"""The packages that have a method, by our name of it. Nobody else has MSR."""


def peers_of(method: str) -> tuple[Peer, ...]:
    """Return a method's peers that are installed."""
    return tuple(peer for peer in PEERS.get(method, ()) if peer.version)


def absent_peers(methods: tuple[str, ...]) -> tuple[Peer, ...]:
    """Return these methods' peers that are not installed."""
    return tuple(peer for method in methods for peer in PEERS.get(method, ()) if not peer.version)
