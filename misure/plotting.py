"""Drawing of images, maps and outlines, with Matplotlib and on pixels; scaling for display happens here."""

from __future__ import annotations

import base64
import io
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

MAP_COLOURS = "cividis"
"""Perceptually uniform and readable with every common colour-vision deficiency."""

Pixels = NDArray[np.uint8]
"""H x W x 3."""

JPEG_QUALITY = 88


@dataclass(frozen=True)
class Style:
    """How a method is drawn: a colour of Okabe and Ito's palette (grey for chance) and a marker of Matplotlib's."""

    colour: str
    marker: str


_STYLES = {
    "msr": Style("#d55e00", "D"),
    "msr_fast": Style("#000000", "d"),
    "sufficient_region": Style("#e69f00", "P"),
    "rise": Style("#0072b2", "o"),
    "seg_grad_cam": Style("#009e73", "s"),
    "prediction": Style("#cc79a7", "p"),
    "random_map": Style("#7f7f7f", "v"),
    "extremal_perturbation": Style("#56b4e9", "X"),
    "hires_cam": Style("#000000", "^"),
    "ablation_cam": Style("#b8a800", "<"),
    "score_cam": Style("#56b4e9", ">"),
    "grid_saliency": Style("#000000", "h"),
    "meaningful_perturbation": Style("#b8a800", "X"),
    "integrated_gradients": Style("#56b4e9", "^"),
    "smooth_grad": Style("#000000", "<"),
    "occlusion": Style("#b8a800", ">"),
}
"""All different; the colour #b8a800 is Okabe and Ito's yellow, darkened to be seen on white."""

_OTHERS = tuple(Style(colour, marker) for marker in "Hdp8v*" for colour in ("#56b4e9", "#000000", "#b8a800"))


def style_of(name: str) -> Style:
    """Return how a method is drawn, the same in every figure and in the report."""
    return _STYLES[name] if name in _STYLES else _OTHERS[zlib.crc32(name.encode()) % len(_OTHERS)]


def heat(scaled: NDArray[Any]) -> NDArray[np.floating]:
    """Return the colours, H x W x 3 in [0, 255], of a map that was scaled to [0, 1] (or to 0 to 255 as uint8)."""
    colours: NDArray[np.floating] = mpl.colormaps[MAP_COLOURS](scaled)[..., :3] * 255
    return colours


def outline(
    pixels: Pixels,
    region: NDArray[np.bool_],
    colour: tuple[int, ...],
    *,
    width: int = 1,
    rim: tuple[int, ...] | None = None,
) -> None:
    """Draw a region's border, just inside it, into pixels.

    Args:
        pixels: They are changed.
        region: H x W.
        colour: Red, green and blue, 0 to 255.
        width: Of the line.
        rim: Colour of a second line, just outside the region.
    """
    from scipy import ndimage

    if rim is not None:
        pixels[ndimage.binary_dilation(region) & ~region] = rim
    pixels[region & ~ndimage.binary_erosion(region, iterations=width)] = colour


def brought_to(pixels: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    """Copy pixels, H x W or H x W x 3, at another size (H x W): smaller by averaging, larger by repeating."""
    if pixels.shape[:2] == size:
        return pixels.copy()
    return np.array(Image.fromarray(pixels).resize(size[::-1], Image.Resampling.BOX))


def picture_uri(pixels: Pixels, *, photograph: bool) -> str:
    """Return a picture as a ``data:`` address: as JPEG if it shows a photograph, else as PNG."""
    kind, options = ("jpeg", {"quality": JPEG_QUALITY}) if photograph else ("png", {})
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind, optimize=True, **options)
    return data_uri(stream.getvalue(), f"image/{kind}")


def data_uri(content: bytes, kind: str) -> str:
    """Return content as an address that holds it; ``kind`` is its media type."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def displayable(image: Tensor, like: Tensor | None = None) -> np.ndarray:
    """Scale an image (C x H x W) to [0, 1], as ``like`` would be: H x W for one channel, else H x W x 3."""
    low, high = (float(end) for end in (image if like is None else like).detach().float().aminmax())
    array = image.detach().cpu().float().numpy()
    array = np.clip((array - low) / (high - low), 0, 1) if high > low else np.zeros_like(array)
    return array[:3].transpose(1, 2, 0) if len(array) >= 3 else array[0]


def show_image(axes: Axes, image: Tensor) -> None:
    """Draw an image without ticks."""
    axes.imshow(displayable(image), cmap="gray")
    axes.set_xticks([])
    axes.set_yticks([])


def show_mask(axes: Axes, mask: Tensor) -> None:
    """Draw a boolean map, H x W, white on black."""
    axes.imshow(mask.cpu().numpy(), cmap="gray", vmin=0, vmax=1)
    axes.set_xticks([])
    axes.set_yticks([])


def show_region(axes: Axes, image: Tensor | None, region: Tensor, blank: Sequence[float] = (0.0,)) -> None:
    """Draw an image as a network sees a region of it alone; without an image the region in white.

    ``blank`` is the value elsewhere, of each channel or of all: zero for an image as it goes into the network, the mean
    of its normalisation for one without.
    """
    if image is None:
        show_mask(axes, region)
        return
    elsewhere = image.new_tensor(blank).view(-1, 1, 1)
    seen = torch.where(region.to(image.device), image, elsewhere)
    axes.imshow(displayable(seen, like=image), cmap="gray", vmin=0, vmax=1)
    axes.set_xticks([])
    axes.set_yticks([])


def show_empty(axes: Axes, reason: str, *, aspect: float | None = None) -> None:
    """Leave a panel empty and say why; ``aspect`` is its height over its width."""
    axes.set_box_aspect(aspect)
    axes.set_facecolor("0.95")
    axes.text(0.5, 0.5, reason, ha="center", va="center", fontsize=8, color="0.3", transform=axes.transAxes)
    axes.set_xticks([])
    axes.set_yticks([])


def show_map(axes: Axes, saliency: Tensor, *, high: float | None = None) -> AxesImage:
    """Draw a saliency map on a scale from zero to ``high`` (its maximum by default)."""
    top = high if high is not None else float(saliency.max())
    drawn = axes.imshow(saliency.numpy(), cmap=MAP_COLOURS, vmin=0, vmax=top if top > 0 else 1)
    axes.set_xticks([])
    axes.set_yticks([])
    return drawn


def plot_map(
    image: Tensor,
    region: Tensor,
    saliency: Tensor,
    *,
    titles: tuple[str, str],
    sufficient_region: Tensor | None = None,
    n_dilations: int | None = None,
) -> Figure:
    """Draw an image, the prediction, the sufficient region if there is one, and the saliency map.

    Args:
        image: C x H x W; of a volume, C x D x H x W, the slice (along D) that holds most of the target is drawn, on the
            whole map's scale.
        region: bool, H x W: the prediction.
        saliency: float, H x W.
        titles: Of the prediction and of the map.
        sufficient_region: bool, H x W.
        n_dilations: Dilations it needed.
    """
    highest, place = float(saliency.max()), ""
    if region.ndim == 3:
        chosen = int(region.sum((1, 2)).argmax())
        place = f", slice {chosen} of 0 to {len(region) - 1}"
        image, region, saliency = image[:, chosen], region[chosen], saliency[chosen]
        sufficient_region = None if sufficient_region is None else sufficient_region[chosen]
    panels = 3 + (sufficient_region is not None)
    figure = Figure(figsize=(3 * panels + 0.8, 3.4), layout="constrained")
    axes = list(figure.subplots(1, panels))
    show_image(axes[0], image)
    axes[0].set_title(f"Image{place}")
    show_mask(axes[1], region)
    axes[1].set_title(titles[0])
    if sufficient_region is not None:
        show_region(axes[2], image, sufficient_region)
        axes[2].set_title(f"Sufficient region, {n_dilations} dilations")
    drawn = show_map(axes[-1], saliency, high=highest)
    axes[-1].set_title(titles[1])
    figure.colorbar(drawn, ax=axes[-1], label="saliency (not scaled)")
    return figure
