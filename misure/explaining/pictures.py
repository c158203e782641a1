"""Pictures of one explanation at its image's own proportions: the object's outline, the map over the image, curves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from misure.evaluation.curves import Curve
from misure.explanation import Explanation
from misure.plotting import MAP_COLOURS, displayable, style_of

_SHORTER_SIDE = 480  # pixels of a picture at least, and
_LONGER_SIDE = 1600  # at most
_DPI = 100
_OUTLINE = "#ff3b30"
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
    for name, outlined, mapped in (("image", False, False), ("target", True, False), ("overlay", True, True)):
        axes = _bare_axes(image)
        axes.imshow(displayable(image.mean(0, keepdim=True) if mapped else image), cmap="gray")
        if mapped:
            _show_saliency(axes, saliency)
        if outlined:
            _outline(axes, region)
        figure = axes.get_figure()
        assert isinstance(figure, Figure)  # noqa: S101 - for the type checker: a figure of its own
        figure.savefig(folder / f"{name}.png", dpi=_DPI)


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


def _bare_axes(image: Tensor) -> Axes:
    """Axes that fill a figure of the image's proportions."""
    height, width = image.shape[-2:]
    scale = max(_SHORTER_SIDE / min(height, width), 1)
    scale = min(scale, _LONGER_SIDE / max(height, width))
    figure = Figure(figsize=(width * scale / _DPI, height * scale / _DPI))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    return axes


def _show_saliency(axes: Axes, saliency: Tensor) -> None:
    values = saliency.float().numpy()
    top = float(values.max())
    share = np.clip(values / top, 0, 1) if top > 0 else np.zeros_like(values)
    axes.imshow(share, cmap=MAP_COLOURS, vmin=0, vmax=1, alpha=_OPAQUE * share)


def _outline(axes: Axes, region: Tensor) -> None:
    """Draw a region's border along the edges of its pixels."""
    height, width = region.shape
    padded = np.pad(region.numpy().astype(float), 1)
    axes.contour(
        np.arange(-1, width + 1), np.arange(-1, height + 1), padded, levels=[0.5], colors=[_OUTLINE], linewidths=1.5
    )
    axes.set_xlim(-0.5, width - 0.5)
    axes.set_ylim(height - 0.5, -0.5)
