"""The network as a module that returns its logits as a tensor, for packages that want one."""

from __future__ import annotations

from torch import Tensor, nn

from misure.errors import MisureError
from misure.models.wrapper import SegmentationModel


class Logits(nn.Module):
    """A model as a module ``images -> logits``, the wrapper that grad-cam's tutorial on segmentation writes.

    Raises:
        MisureError: If the network is no module.
    """

    def __init__(self, model: SegmentationModel) -> None:
        super().__init__()
        if model.module is None:
            raise MisureError("the network is a plain callable: packages that look into layers need an nn.Module")
        self.network = model.module
        self.to_logits = model

    def forward(self, images: Tensor) -> Tensor:
        """Return logits, N x L x H x W."""
        return self.to_logits(images, unperturbed=False)
