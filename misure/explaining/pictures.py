"""Pictures of one explanation at its image's own proportions: the object's outline, the map over the image, curves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from misure.evaluation.curves import Curve
from misure.explanation import Explanation
from misure.plotting import brought_to, displayable, heat, outline, style_of

_SHORTER_SIDE = 480  # pixels of a picture at least, and
_LONGER_SIDE = 1600  # at most
_OUTLINE = (255, 59, 48)
_LINE = 2
_OPAQUE = 0.75  # at the map's maximum


def write_overlays(explanation: Explanation, image: Tensor, folder: Path) -> None:
    """Write ``image.png``, ``target.png`` (outline of what is explained) and ``overlay.png`` (the map over the image).

    Of a volume, the slice with the most of the object is shown. The map is drawn from zero to its maximum and is the
    more transparent the lower it is.

    Args:
        explanation: Of a picture or a volume.
        image: float, C x H x W or C x D x H x W, before normalisation.
        folder: Where the files go.
    """
    region, saliency = explanation.target.region, explanation.saliency
    if region.ndim == 3:
        shown = int(region.flatten(1).sum(1).argmax())
        image, region, saliency = image[:, shown], region[shown], saliency[shown]
    size = _shown_size(*region.shape)
    top = max(float(saliency.max()), 0.0)
    share = brought_to((saliency.float() / (top or 1)).clamp(0, 1).numpy(), size)
    opacity = _OPAQUE * share[..., None]
    overlay = heat(share) * opacity + _pixels(image.mean(0, keepdim=True), size) * (1 - opacity)
    pictures = {name: _pixels(image, size) for name in ("image", "target")} | {"overlay": overlay.astype(np.uint8)}
    for name in ("target", "overlay"):
        outline(pictures[name], brought_to(region.byte().numpy(), size) > 0, _OUTLINE, width=_LINE)
    for name, pixels in pictures.items():
        Image.fromarray(pixels).save(folder / f"{name}.png")


def _shown_size(height: int, width: int) -> tuple[int, int]:
    scale = min(max(_SHORTER_SIDE / min(height, width), 1), _LONGER_SIDE / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))


def _pixels(image: Tensor, size: tuple[int, int]) -> np.ndarray:
    """Bring an image, C x H x W, to 8 bits, three colours and a size."""
    values = np.round(255 * displayable(image)).astype(np.uint8)
    return brought_to(values if values.ndim == 3 else np.repeat(values[..., None], 3, axis=2), size)


def write_curve(explanation: Explanation, curve: Curve, folder: Path) -> None:
    """Write ``curve.png``: Dice explained against the perturbation ratio, beside the loss where the method has one.

    Args:
        explanation: For its loss and its method's colour.
        curve: As :func:`misure.evaluation.curves.explanation_curves` returns it.
        folder: Where the file goes.
    """
    panels = 1 + bool(explanation.curve)
    figure = Figure(figsize=(4.6 * panels, 3.6), layout="constrained")
    axes = figure.subplots(1, panels, squeeze=False)[0]
    style = style_of(explanation.method)
    axes[0].plot(curve["curve_ratio"], curve["curve_dice"], color=style.colour, marker=style.marker, markersize=4)
    axes[0].set_xscale("symlog", linthresh=0.05)
    axes[0].set_ylim(-0.02, 1.02)
    axes[0].set_xlim(left=0)
    axes[0].set_xlabel("kept pixels / pixels of the object")
    axes[0].set_ylabel("Dice explained")
    axes[0].grid(alpha=0.3)
    if explanation.curve:
        axes[1].plot(range(1, len(explanation.curve) + 1), explanation.curve, color=style.colour)
        axes[1].set_xlabel("iteration")
        axes[1].set_ylabel("loss")
        axes[1].grid(alpha=0.3)
    figure.savefig(folder / "curve.png", dpi=150)
