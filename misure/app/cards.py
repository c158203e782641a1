"""HTML beside the page's pictures; every name that comes from a file is escaped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from torch import Tensor

from misure.app import pictures
from misure.app.scene import Scene
from misure.app.session import Session
from misure.app.worker import DILATING, View
from misure.explainers import EXPLAINERS
from misure.explanation import Explanation
from misure.metrics import Evaluation
from misure.plotting import Pixels, picture_uri
from misure.reliability import ReliabilityModel

STAGES = {
    "waiting": "Waiting for the network: another session explains with it",
    "preparing": "Preparing",
    DILATING: "Stage 1: dilating the object until it suffices",
    "minimising": "Stage 2: pruning the mask",
    "masking": "Trying masks",
    "evaluating": "Measuring",
}


def legend(scene: Scene) -> str:
    """List the predicted classes with their colours and sizes, largest first."""
    labels = scene.labels[scene.labels >= 0]
    counts = {int(label): int((labels == label).sum()) for label in set(labels.tolist())}
    chips = [
        f'<li><i style="background:rgb{pictures.class_colour(label)}"></i>{escape(scene.class_label(label))} '
        f"<small>{count / scene.labels.numel():.1%}</small></li>"
        for label, count in sorted(counts.items(), key=lambda item: -item[1])
    ]
    height, width = scene.labels.shape
    nothing = "" if chips else '<p class="hint">This network finds nothing in this image. Try another one.</p>'
    place = f", slice {scene.slice_index} of {scene.n_slices}" if scene.n_slices > 1 else ""
    about = f"{escape(scene.path.name)}{place}, {width} x {height} px"
    return f'{nothing}<ul class="legend">{"".join(chips)}</ul><p class="hint">{about}</p>'


def chosen(session: Session) -> str:
    """Say what will be explained."""
    if session.scene is None or session.target is None:
        return '<p class="hint">Click on a coloured object to choose what is explained.</p>'
    name = escape(session.scene.class_label(session.target.class_id))
    return (
        f'<p class="chosen">To be explained: <b>{name}</b>, {session.target.size:,} px, '
        f"mean confidence {session.target.confidence:.0%}</p>"
    )


def live(session: Session, view: View, history: Sequence[float]) -> str:
    """Show a running explanation: picture, progress, time left and how much of the object the mask still keeps."""
    scene, target = session.scene, session.target
    if scene is None or target is None:
        return ""
    title = escape(EXPLAINERS[view.method].title)
    count = f" ({view.number} of {view.methods})" if view.methods > 1 else ""
    stage = escape(STAGES.get(view.stage, view.stage.capitalize()))
    if view.mask is None:
        picture = pictures.prediction_picture(scene.pixels, scene.labels, target.region)
    elif view.stage == DILATING:
        picture = pictures.rings_picture(scene.pixels, target.region, view.mask)
    elif view.sufficient is not None:
        picture = pictures.mask_picture(scene.pixels, target.region, view.mask, view.sufficient)
    else:
        picture = pictures.map_picture(scene.pixels, target.region, view.mask)
    curve = curve_picture(history, "mask, % of the image") if len(history) > 1 else ""
    return (
        f'<div class="live" data-stage="{escape(view.stage)}" data-done="{view.done}">'
        f"<h3>{title}{count}</h3><p>{stage}{_steps(view)}</p>{_bar(view)}"
        f'<img alt="{title} so far" src="{_source(picture)}">{curve}</div>'
    )


def _steps(view: View) -> str:
    if not view.done:
        return ""
    steps = f"{view.done:,} of {view.total:,}" if view.total else f"{view.done:,} tried"
    left = "" if view.left is None else f", {duration(view.left)} left"
    return f" · {steps}{left}"


def _bar(view: View) -> str:
    if not view.total:
        return '<div class="bar" role="progressbar"><i class="unknown"></i></div>'
    percent = f"{100 * view.done / view.total:.1f}"
    return f'<div class="bar" role="progressbar" aria-valuenow="{percent}"><i style="width:{percent}%"></i></div>'


def duration(seconds: float) -> str:
    """Write a duration as a person would."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    return f"{whole // 60} min {whole % 60:02d} s" if whole < 3600 else f"{whole / 3600:.1f} h"


def ended(cancelled: bool, failures: Mapping[str, str], finished: int) -> str:
    """Say how a run ended."""
    lines = ['<p class="hint">Cancelled.</p>'] if cancelled else []
    lines += [
        f'<p class="failure"><b>{escape(EXPLAINERS[name].title)}</b>: {escape(reason)}</p>'
        for name, reason in failures.items()
    ]
    if finished:
        lines.append('<p class="hint">Done: compare the maps below.</p>')
    return "".join(lines)


def comparison(
    session: Session, threshold: float, measured: Mapping[str, Evaluation] | None, reliability: ReliabilityModel | None
) -> str:
    """Show every explanation side by side, cut at one threshold.

    Args:
        session: Whose explanations.
        threshold: On the scaled maps.
        measured: The metrics there, by method, or None while they are being measured.
        reliability: The class's classifier, or None.
    """
    if not session.explanations or session.scene is None:
        return '<p class="hint">Explanations appear here, side by side.</p>'
    masks = session.masks(threshold)
    cards = [
        _card(session.scene, made, masks[name], measured.get(name) if measured else None, reliability)
        for name, made in list(session.explanations.items())
        if name in masks
    ]
    scale = (
        f'<p class="scale">map: low <i style="background:linear-gradient(to right, {pictures.map_scale()})"></i> high'
    )
    return (
        f'{scale} · white line: the object</p><div class="cards" data-threshold="{threshold:g}">{"".join(cards)}</div>'
    )


def _card(
    scene: Scene, made: Explanation, mask: Tensor, measured: Evaluation | None, reliability: ReliabilityModel | None
) -> str:
    title = escape(EXPLAINERS[made.method].title)
    heat = _source(pictures.map_picture(scene.pixels, made.target.region, made.saliency))
    kept = _source(pictures.mask_picture(scene.pixels, made.target.region, mask))
    dice = "…" if measured is None else f"{measured.dice_explained:.3f}"
    ratio = "…" if measured is None else f"{measured.perturbation_ratio:.2f}"
    own = made.evaluations[0]
    where = "soft mask itself" if own.threshold is None else f"own threshold {own.threshold:g}"
    facts = [f"{where}: Dice {own.dice_explained:.3f}, ratio {own.perturbation_ratio:.2f}", f"{made.seconds:.1f} s"]
    if made.n_dilations is not None:
        facts.append(f"{made.n_dilations} dilations")
    curve = curve_picture(made.curve, "loss") if len(made.curve) > 1 else ""
    return (
        f'<article class="card" data-method="{escape(made.method)}"><h3>{title}</h3><div class="pair">'
        f'<figure><img alt="{title}, map" src="{heat}"><figcaption>map</figcaption></figure>'
        f'<figure><img alt="{title}, kept" src="{kept}"><figcaption>kept at the threshold</figcaption></figure></div>'
        f"<dl><div><dt>Dice explained</dt><dd data-dice>{dice}</dd></div>"
        f"<div><dt>Perturbation ratio</dt><dd data-ratio>{ratio}</dd></div>{_probability(made, reliability)}</dl>"
        f'<p class="facts">{" · ".join(facts)}</p>{curve}</article>'
    )


def _probability(made: Explanation, reliability: ReliabilityModel | None) -> str:
    if reliability is None or made.method != "msr":
        return ""
    if bool(made.target.ignored.any()) or made.parameters != EXPLAINERS["msr"].published().parameters:
        why = "told of whole classes alone, with msr's own settings"
        return f"<div><dt>Reliable with probability</dt><dd>{why}</dd></div>"
    probability = reliability.predict(made).probability
    source = escape(
        f"that the Dice with the truth is at least {reliability.label_threshold:g}; from {reliability.source}"
    )
    return f'<div title="{source}"><dt>Reliable with probability</dt><dd data-reliable>{probability:.2f}</dd></div>'


def _source(picture: Pixels) -> str:
    return picture_uri(picture, photograph=True)


def curve_picture(values: Sequence[float], label: str) -> str:
    """Draw numbers as a line with its first, lowest and last value."""
    low, high = min(values), max(values)
    span = high - low or 1.0
    last = len(values) - 1
    points = " ".join(f"{200 * i / last:.1f},{38 - 34 * (value - low) / span:.1f}" for i, value in enumerate(values))
    return (
        f'<figure class="curve"><svg viewBox="0 0 200 40" preserveAspectRatio="none" role="img" '
        f'aria-label="{escape(label)}"><polyline points="{points}"/></svg>'
        f"<figcaption>{escape(label)}: {values[0]:.3g} → {values[-1]:.3g}, lowest {low:.3g}</figcaption></figure>"
    )
