"""Every method on the same objects: what it needs, what it costs, what it explains at equal perturbation ratio."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pandas as pd
from torch import Tensor, nn
from tqdm import tqdm

from misure.bench.page import page
from misure.errors import MisureError
from misure.evaluation.curves import Curve, dice_at, explanation_curves
from misure.explainers.base import Explainer
from misure.models.compute import Compute
from misure.models.logits import to_logits
from misure.models.wrapper import SegmentationModel
from misure.paper.published import DASH
from misure.paper.statistics import summarise
from misure.paper.table import duration, interval, markdown_table, measured
from misure.progress import Progress
from misure.target import Target

RATIOS = (0.5, 1.0, 2.0, 5.0)
"""Kept pixels over the object's at which methods are compared."""


@dataclass
class PassCount:
    """Images that went through a network while a method made its maps; it watches the explanation.

    Attributes:
        forward: All of them.
        gradient: Those whose output could be differentiated.
        counting: Whether the method is at work: neither before nor while its maps are evaluated.
    """

    forward: int = 0
    gradient: int = 0
    counting: bool = False

    def __call__(self, progress: Progress) -> None:
        """Begin and end with the method's own work."""
        self.counting = progress.stage != "evaluating"

    @contextmanager
    def of(self, module: nn.Module) -> Iterator[None]:
        """Count what passes through a module."""

        def add(_module: nn.Module, inputs: tuple[Tensor, ...], output: Any) -> None:
            if self.counting:
                self.forward += len(inputs[0])
                self.gradient += len(inputs[0]) if to_logits(output, inputs[0]).requires_grad else 0

        handle = module.register_forward_hook(add)
        try:
            yield
        finally:
            handle.remove()


def measure_methods(
    model: SegmentationModel,
    images: Tensor,
    targets: Sequence[Target],
    explainers: Sequence[Explainer],
    *,
    compute: Compute | None = None,
    ratios: Sequence[float] = RATIOS,
    progress: bool = True,
) -> pd.DataFrame:
    """Explain the same objects by every method, one image at a time.

    Args:
        model: The adapted network, an ``nn.Module``.
        images: N x C x H x W.
        targets: One per image.
        explainers: What is compared.
        compute: Precision and batch size.
        ratios: At which Dice explained is read off the threshold curve.
        progress: Show a progress bar.

    Returns:
        One row per method and image: ``method``, ``title``, ``needs_gradients``, ``needs_layer``, ``image``,
        ``forward`` and ``gradient`` (passes), ``seconds``, ``dice_at_<ratio>`` (0..1; NaN where the image has no room).
        A method that cannot explain this network has one row with the reason under ``problem``.
    """
    compute = compute or Compute()
    rows: list[dict[str, Any]] = []
    with tqdm(total=len(explainers) * len(images), disable=not progress, unit="explanation", desc="methods") as bar:
        for explainer in explainers:
            row: dict[str, Any] = {"method": explainer.name, "title": explainer.title}
            row |= {"needs_gradients": explainer.needs_gradients, "needs_layer": explainer.needs_layer}
            try:
                for i, target in enumerate(targets):
                    cost, curve = _measured(model, images[i], target, explainer, compute)
                    dice = {f"dice_at_{ratio:g}": dice_at(curve, ratio) for ratio in ratios}
                    rows.append(row | {"image": i} | cost | dice)
                    bar.update()
            except MisureError as error:
                rows.append(row | {"problem": str(error)})
    return pd.DataFrame(rows)


def _measured(
    model: SegmentationModel, image: Tensor, target: Target, explainer: Explainer, compute: Compute
) -> tuple[dict[str, Any], Curve]:
    if model.module is None:
        raise MisureError("passes can only be counted through an nn.Module")
    count = PassCount()
    with count.of(model.module):
        explanation = explainer.explain(model, image[None], [target], compute, count)[0]
    curve = explanation_curves(model, explanation, explainer.fill, compute, n_steps=1)
    return {"forward": count.forward, "gradient": count.gradient, "seconds": explanation.seconds}, curve


def method_document(frame: pd.DataFrame, *, title: str, notes: Sequence[str]) -> str:
    """Write the table of methods as Markdown."""
    ratios = [str(name) for name in frame if str(name).startswith("dice_at_")]
    headers = ["Method", "Name", "Needs", "Forward passes", "with gradient", "Seconds"]
    headers += [f"Dice explained at ratio {name.removeprefix('dice_at_')}" for name in ratios]
    lines = [_line(rows, ratios) for _, rows in frame.groupby("method", sort=False)]
    return page(title, notes, markdown_table(headers, lines), _DEFINITIONS)


def _line(rows: pd.DataFrame, ratios: Sequence[str]) -> list[str]:
    first = rows.iloc[0]
    needs = [word for word, wanted in (("gradients", first.needs_gradients), ("a layer", first.needs_layer)) if wanted]
    line = [str(first["title"]), f"`{first.method}`", ", ".join(needs) or "nothing"]
    done = rows.dropna(subset=["forward"]) if "forward" in rows else rows.iloc[:0]
    if done.empty:
        return [*line, f"{DASH} ({first['problem']})", *[DASH] * (2 + len(ratios))]
    counts = [f"{done[name].mean():.0f}" for name in ("forward", "gradient")]
    summaries = [summarise(done[name].dropna()) for name in ratios]
    cells = [f"{measured(s.mean)} {interval(s)}" if s.n else DASH for s in summaries]
    return [*line, *counts, duration(float(done["seconds"].median())), *cells]


_DEFINITIONS = f"""\
Every method explains the same objects. Passes are counted, images through the network, without those of evaluation,
with the one that finds the batch normalisation to be folded; seconds are the median. Dice explained: mean [95 %
bootstrap interval]; a map keeps the largest set of pixels that one of its thresholds gives without exceeding the ratio
(kept pixels over the object's). A map that is itself a mask never keeps its zeros. {DASH}: no value."""
