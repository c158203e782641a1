"""Every method on the same objects: what it needs, what it costs, what it explains at equal perturbation ratio."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pandas as pd
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from torch import Tensor, nn
from tqdm import tqdm

from misure.bench.measurement import Page, PredictedSamples, document, measured_page
from misure.config import composed, compute_of
from misure.errors import MisureError
from misure.evaluation.curves import Curve, dice_at, explanation_curves
from misure.explainers import EXPLAINERS
from misure.explainers.base import Explainer
from misure.models.compute import Compute
from misure.models.logits import to_logits
from misure.models.wrapper import SegmentationModel
from misure.paper.published import DASH
from misure.paper.statistics import bounds_of, summarise
from misure.paper.table import Column, Table, duration, estimate
from misure.progress import Progress
from misure.sweep.experiment import Experiment
from misure.target import Target

RATIOS = (0.5, 1.0, 2.0, 5.0)
"""Kept pixels over the object's at which methods are compared."""

_DEFINITIONS = f"""\
Every method explains the same objects. Passes are counted, images through the network, without those of evaluation,
with the one that finds the batch normalisation to be folded; seconds are the median. Dice explained: mean [95 %
interval]; a map keeps the largest set of pixels that one of its thresholds gives without exceeding the ratio
(kept pixels over the object's). A map that is itself a mask never keeps its zeros. {DASH}: no value."""

_COLUMNS = (
    Column("title", "Method"),
    Column("name", "Name"),
    Column("needs", "Needs"),
    Column("forward", "Forward passes"),
    Column("gradient", "with gradient"),
    Column("seconds", "Seconds", duration),
)


def compare_methods(cfg: DictConfig) -> str:
    """Explain the same objects by every method.

    Returns:
        The page, which is also written to ``bench/methods-<dataset>-<model>.md`` in the outputs folder, its numbers to
        the ``.csv`` beside it.
    """
    overrides = [o for o in HydraConfig.get().overrides.task if not o.startswith("explainer=")]
    names = list(cfg.methods.names or EXPLAINERS)
    configurations = composed("methods", [[f"explainer={name}"] for name in names], overrides)
    experiments = [Experiment.of(each) for each in configurations]
    explainers = [experiment.explainer for experiment in experiments]

    def measure(samples: PredictedSamples) -> Page:
        numbers = measure_methods(
            samples.setup.model,
            samples.images,
            samples.targets,
            explainers,
            compute=compute_of(cfg),
            ratios=list(cfg.methods.ratios),
        )
        notes = [*samples.notes, f"Settings: profile {cfg.profile.name}; {_counts(explainers)}."]
        title = f"Methods: {cfg.model.title} on {cfg.dataset.title}"
        text = document(title, notes, method_table(numbers), _DEFINITIONS)
        return Page(f"methods-{samples.setup.name}", text, numbers)

    n_images = int(cfg.methods.images)
    what = f"{len(names)} methods on {n_images} objects each"
    return measured_page(cfg, what, n_images, measure, lambda pace: n_images * sum(map(pace.explaining, experiments)))


def _counts(explainers: Iterable[Explainer]) -> str:
    """List how much work each method is given."""
    counts = ("n_masks", "n_iterations", "n_samples", "n_steps")
    return ", ".join(
        f"{explainer.name} {name}={explainer.parameters[name]}"
        for explainer in explainers
        for name in counts
        if name in explainer.parameters
    )


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


def method_table(frame: pd.DataFrame) -> str:
    """Lay out the rows of :func:`measure_methods` as a Markdown table, a line per method."""
    ratios = [str(name) for name in frame if str(name).startswith("dice_at_")]
    lines = [_line(rows, ratios) for _, rows in frame.groupby("method", sort=False)]
    dice = [estimate(name, f"Dice explained at ratio {name.removeprefix('dice_at_')}") for name in ratios]
    return Table("methods", "", [*_COLUMNS, *dice], pd.DataFrame(lines)).body()


def _line(rows: pd.DataFrame, ratios: Sequence[str]) -> dict[str, Any]:
    first = rows.iloc[0]
    needs = {"gradients": first.needs_gradients, "a layer": first.needs_layer}
    line = {"title": first["title"], "name": f"`{first.method}`"}
    line["needs"] = ", ".join(word for word, needed in needs.items() if needed) or "nothing"
    done = rows.dropna(subset=["forward"]) if "forward" in rows else rows.iloc[:0]
    for name in ratios:
        dice = summarise(done[name].dropna(), bounds=bounds_of(name))
        line |= {f"{name}_mean": dice.mean, f"{name}_low": dice.low, f"{name}_high": dice.high}
    if done.empty:
        return line | {"forward": f"{DASH} ({first['problem']})", "gradient": DASH, "seconds": math.nan}
    counts = {name: f"{done[name].mean():.0f}" for name in ("forward", "gradient")}
    return line | counts | {"seconds": float(done["seconds"].median())}
