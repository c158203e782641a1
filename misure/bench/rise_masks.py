"""How many masks RISE needs on a trained network and validation images, from a configuration."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from omegaconf import DictConfig

from misure.bench.experiment import described, explained_images
from misure.bench.page import page, write_page
from misure.bench.rise_convergence import Convergence, summary
from misure.config import build, compute_of
from misure.errors import MisureError
from misure.explainers import RISE
from misure.paper.published import DASH
from misure.paper.table import markdown_table
from misure.sweep.announcement import outline
from misure.sweep.experiment import Experiment
from misure.sweep.setup import prepare


def count_rise_masks(cfg: DictConfig) -> str:
    """Measure ``rise_masks.images`` objects.

    Returns:
        The Markdown table, which is also written to ``bench/rise_masks-<dataset>-<model>.md`` in the outputs folder,
        all runs to the ``.csv`` beside it.

    Raises:
        MisureError: If the explainer has no masks to count, or nothing is predicted.
    """
    experiment = Experiment.of(cfg)
    explainer = experiment.explainer
    if not isinstance(explainer, RISE):
        raise MisureError(f"explainer={explainer.name} has no masks to count: pass explainer=rise")
    convergence: Convergence = build(cfg.rise_masks.measure)
    passes = cfg.rise_masks.images * convergence.passes
    if outline(cfg, f"counting masks: {passes} passes", lambda pace: passes * pace.forward):
        return ""
    setup = prepare(cfg)
    images, targets = explained_images(setup, experiment, cfg.rise_masks.images)
    tables = [
        convergence.measure(setup.model, image, target.class_id, explainer, compute_of(cfg)).assign(image=i)
        for i, (image, target) in enumerate(zip(images, targets, strict=True))
    ]
    table = pd.concat(tables)
    needed = (
        f"Needed: masks from which on the map's correlation with one of {convergence.n_reference} other plain masks "
        f"stays at {convergence.correlation:g}, looked at every {convergence.every} up to {convergence.n_masks}."
    )
    text = document(
        table,
        title=f"Masks of RISE: {cfg.model.title} on {cfg.dataset.title}",
        notes=[*described(setup, images), needed],
    )
    write_page(Path(cfg.outputs) / "bench", f"rise_masks-{setup.name}", text, table)
    return text


def document(table: pd.DataFrame, *, title: str, notes: list[str]) -> str:
    """Write the rows of :meth:`misure.bench.rise_convergence.Convergence.measure` as Markdown."""
    headers = ["masks", "runs", "that reached it", "masks needed, median (range)", "correlation in the end, median"]
    reached_in_the_end = table.groupby("variant")["correlation"].median()
    lines = [
        [
            row["variant"],
            str(row["runs"]),
            str(row["reached"]),
            f"{row['median']:.0f} ({row['low']} to {row['high']})" if row["reached"] else DASH,
            f"{reached_in_the_end[row['variant']]:.4f}",
        ]
        for row in summary(table).to_dict("records")
    ]
    return page(title, notes, markdown_table(headers, lines))
