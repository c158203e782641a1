"""Speed of every explainer beside its literal version and other packages, on trained networks, as a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from misure.bench.compare import LITERAL, run_bench
from misure.bench.measurement import Page, PredictedSamples, document, frame_table, hardware_name
from misure.bench.peers import PEERS, absent_peers
from misure.bench.same_result import DICE_WITHIN, RATIO_WITHIN, SAME_MAP, WANTED, summarise
from misure.bench.training_step import training_steps
from misure.config import build, composed, plain
from misure.errors import MisureError
from misure.explainers import EXPLAINERS, Explainer
from misure.models.compute import Compute
from misure.models.wrapper import frozen
from misure.sweep.announcement import only_planned
from misure.sweep.experiment import Experiment

_LITERAL_VERSION = "literal: one image and one mask at a time, float32, contiguous memory"


_DEFINITIONS = f"""\
- All took turns in one run on the same images and targets, in evaluation mode, timed without evaluation. The others
  explain one image at a time, called as their documentation shows; ours explains those of a turn together.
- Same result, RISE: correlation {WANTED} with the version's own map of infinitely many masks (another kind of masks has
  another such map: versions are not compared with each other), extrapolated: two runs of n masks each correlate at r =
  1 / (1 + c / n) (Spearman and Brown), so that c = n (1 / r - 1) and {WANTED} takes c x {WANTED}^2 / (1 - {WANTED}^2);
  mean of the images (lowest to highest), at the measured seconds a mask. The others sum plain masks; ours takes a
  regression out of the noise, for which that is an upper bound beyond the masks that it ran, and for fewer the number
  that it ran is taken.
- Same result, MSR: mean Dice explained at most {DICE_WITHIN} lower and mean ratio at most {RATIO_WITHIN:.0%} higher
  than in the first row. Other methods: correlation of at least {SAME_MAP} with the first row's map in every image.
- Times faster: median of the pairs of one turn and run (middle half), within noise where that holds 1; of RISE, with
  the lowest and highest of an image.
- Operations are counted on one pass: forward, and forward with the gradient of its input but not of its weights; the
  methods' own arithmetic is left out."""


def bench(cfg: DictConfig) -> str:
    """Benchmark every network of ``bench.networks``, write ``bench.md`` and ``bench.csv`` and return the text.

    A network whose weights or images are absent, or that predicts its classes in too few images, is named with the
    reason.

    Raises:
        MisureError: If no network could be measured.
    """
    overrides = list(HydraConfig.get().overrides.task)
    networks = [[f"{group}={name}" for group, name in network.items()] for network in cfg.bench.networks]
    frames, texts = [], []
    for network, each in zip(networks, composed("bench", networks, overrides), strict=True):
        explainers = _explainers(network, each, overrides)
        if only_planned(each, f"timing {', '.join(explainers)} and their peers on {cfg.bench.images} images"):
            continue
        try:
            frame, text = _measured(each, explainers)
        except MisureError as error:
            texts.append(f"{each.model.name} was not measured: {error}\n")
            continue
        frames.append(frame)
        texts.append(text)
    if cfg.plan_only:
        return ""
    if not frames:
        raise MisureError("nothing was measured:\n" + "".join(texts))
    return Page("bench", "\n".join(texts), pd.concat(frames)).write(Path(cfg.outputs))


def _measured(cfg: DictConfig, explainers: Mapping[str, Explainer]) -> tuple[pd.DataFrame, str]:
    """Benchmark one network; return its rows and its page."""
    samples = PredictedSamples.first(cfg, cfg.bench.images)
    model, images = samples.setup.model, samples.images
    frame = run_bench(
        model,
        images,
        samples.targets,
        explainers,
        plain_masks=cfg.bench.plain_masks,
        repeats=cfg.bench.repeats,
        precisions=[str(p) for p in cfg.bench.precisions] if cfg.bench.precisions else None,
        images_per_round=cfg.bench.images_per_round,
        batch_size=cfg.runner.batch_size,
    ).assign(dataset=cfg.dataset.name, model=cfg.model.name)
    with frozen(model, Compute("32", 1), images.device) as network:
        predicted = torch.cat([network.predict(image[None]) for image in images])
    steps = training_steps(model, images, predicted, build(cfg.training), list(dict.fromkeys(frame["precision"])))
    title = f"Speed: {cfg.model.title} ({cfg.model.name}) on {cfg.dataset.title}"
    return frame, speed_page(frame, title, samples.notes) + "\n" + training_section(steps)


def _explainers(network: Sequence[str], cfg: DictConfig, overrides: Sequence[str]) -> dict[str, Explainer]:
    """Build the explainers of ``bench.explainers`` with what stands there beside their names."""
    given = {str(name): values for name, values in plain(cfg.bench.explainers).items() if values is not None}
    variants = [
        [*network, f"explainer={name}", *(f"explainer.{key}={value}" for key, value in values.items())]
        for name, values in given.items()
    ]
    built = (Experiment.of(variant).explainer for variant in composed("bench", variants, overrides))
    return dict(zip(given, built, strict=True))


def speed_page(frame: pd.DataFrame, title: str = "Speed", notes: Sequence[str] = ()) -> str:
    """Lay out the benchmark of one network.

    Args:
        frame: From :func:`misure.bench.compare.run_bench`.
        title: Of the page.
        notes: Further lines about the setting, such as where the weights come from.
    """
    first = frame.iloc[0]
    peaks = frame.groupby("precision", sort=False)["peak_flops"].first() / 1e12
    setting = [
        f"Hardware: {hardware_name(str(first['device']))}; {first['threads']} threads; torch {first['torch']}.",
        f"Network {first['network']} on {first['height']} x {first['width']} images; batch size {first['batch_size']}.",
        f"{frame['image'].nunique()} images; {'; '.join(_contestants(frame))}.",
        *(part.strip() for part in _DEFINITIONS.removeprefix("- ").replace("\n  ", " ").split("\n- ")),
        f"Peak of the processor, by a matrix product in this run: {_listed(peaks)}.",
        _definition_of_memory(str(first["device"])),
        f"Load average before {first['load_before']:.2f}, after {first['load_after']:.2f}.",
        f"Other programs took {100 * first['others_share']:.0f} % of the processor meanwhile.",
        *_absent(frame),
        *notes,
    ]
    shown = summarise(frame)
    return document(title, setting, frame_table(shown.assign(method=[EXPLAINERS[m].title for m in shown["method"]])))


def training_section(steps: pd.DataFrame) -> str:
    """Lay out :func:`misure.bench.training_step.training_steps`."""
    titles = {"step": "s an image, training step", "three_passes": "s an image, three forward passes"}
    return "## Training step\n\n" + frame_table(steps.rename(columns=titles)) + "\n"


def _contestants(frame: pd.DataFrame) -> list[str]:
    """Name who took part, with the version of each package."""
    named = {peer.name: f"{peer.name} {peer.version}" for peers in PEERS.values() for peer in peers}
    named[LITERAL] = _LITERAL_VERSION
    return [named[name] for name in dict.fromkeys(frame["contestant"]) if name in named]


def _definition_of_memory(device: str) -> str:
    if device == "cuda":
        return "Peak memory: what torch allocated on the GPU during a turn, above its start."
    return (
        "Peak memory: resident memory of the process during a turn, above its start, by the kernel's high-water mark "
        "(Linux); ours explains a turn's images together."
    )


def _listed(peaks: pd.Series) -> str:
    return ", ".join(f"{peak:.3g} TFLOP/s ({precision})" for precision, peak in peaks.items())


def _absent(frame: pd.DataFrame) -> list[str]:
    methods = tuple(str(frame["methods"].iloc[0]).split())
    return [
        f"{peer.name} was not measured: it is not installed (pip install 'misure[bench]')."
        for peer in absent_peers(methods)
    ]
