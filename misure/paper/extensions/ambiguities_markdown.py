"""The page "what the paper does not say, and what it costs", generated from the numbers."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pandas as pd

from misure.paper.extensions.ambiguities import QUANTITIES, ambiguities_table, costs_table
from misure.paper.extensions.readings_markdown import ENOUGH_IMAGES
from misure.paper.material import Material
from misure.paper.provenance import head_note
from misure.paper.published import DASH
from misure.paper.source import Origin, heading
from misure.paper.statistics import Summary
from misure.paper.table import interval, markdown_table, measured, printed

_NAMES = {
    "dice_explained": "Dice explained",
    "binary_dice_explained": "Dice explained, mask cut at zero",
    "perturbation_ratio": "perturbation ratio",
    "region_ratio": "perturbation ratio of the pixels that are shown",
}
_NUMBER = ["dataset", "model", "method", "threshold"]


def ambiguities_tables(material: Material) -> Iterator[tuple[str, pd.DataFrame, str]]:
    """Make the comparison of readings, and the table of what they cost."""
    frame = pd.concat([ambiguities_table(material.run, pair) for pair in material.pairs], ignore_index=True)
    costs = costs_table(frame)
    head = head_note(material.run, material.profile, material.pairs)
    yield "ambiguities", frame, ambiguities_document(frame, costs, head)
    yield "ambiguities_cost", costs, costs_document(frame, costs, head)


def ambiguities_document(frame: pd.DataFrame, costs: pd.DataFrame, head: str) -> str:
    """Lay out :func:`misure.paper.extensions.ambiguities.ambiguities_table`: a summary first, then each comparison."""
    title = heading("What the paper does not say, and what it costs", frame)
    parts = [title, summary(frame, costs), head, _READING]
    for _, rows in frame.groupby(_NUMBER, sort=False, dropna=False):
        parts += [f"## {_subject(rows.iloc[0])}", _comparison(rows)]
    return "\n\n".join([*parts, _DEFINITIONS]) + "\n"


def costs_document(frame: pd.DataFrame, costs: pd.DataFrame, head: str) -> str:
    """Lay out :func:`misure.paper.extensions.ambiguities.costs_table`."""
    headers = ["Dataset", "Model", "Method", "Number", "Paper", "Literal", "Lowest", "Highest", "Moves by", "Samples"]
    headers += ["Images", "Source"]
    title = heading("How far the readings that the paper leaves open move its numbers", costs)
    table = markdown_table(headers, [_cost_line(row) for _, row in costs.iterrows()])
    return "\n\n".join([title, summary(frame, costs), head, table, _DEFINITIONS]) + "\n"


def summary(frame: pd.DataFrame, costs: pd.DataFrame) -> str:
    """Say in plain sentences, for each dataset and model, how far readings move the numbers and which is nearest."""
    lines = []
    for (dataset, model), rows in costs.groupby(["dataset", "model"], sort=False):
        mine = frame[(frame["dataset"] == dataset) & (frame["model"] == model)]
        lines += [f"- **{dataset}, {model}**", *(f"  - {sentence}" for sentence in _in_words(mine, rows))]
    return "\n".join(lines)


def _in_words(frame: pd.DataFrame, costs: pd.DataFrame) -> list[str]:
    told = costs[costs["n_readings"] > 1]
    if told.empty:
        return ["Not measured: no two readings have records of the same samples."]
    sentences = [_moves(row) for _, row in told.iterrows()]
    origin = Origin.of_row(told.iloc[0])
    if origin.stand_in:
        return [*sentences, "This is a stand-in: how near a reading comes to the paper's numbers says nothing here."]
    if told["n_images"].max() < ENOUGH_IMAGES:
        few = f"Too few images ({told['n_images'].max()}; it takes {ENOUGH_IMAGES}) to say which reading is nearest."
        return [*sentences, few]
    sentences += [_nearest_in_words(frame, row) for _, row in told.iterrows()]
    if origin.substitution:
        sentences.append(f"The network is not the paper's ({origin.substitution}), which may matter more.")
    return sentences


def _moves(cost: pd.Series) -> str:
    return (
        f"{_setting(cost)}: between {measured(cost['lowest'])} ({_of(cost, 'lowest')}) and "
        f"{measured(cost['highest'])} ({_of(cost, 'highest')}) for the {_NAMES[cost['measure']]}, {_by(cost)}."
    )


def _by(cost: pd.Series) -> str:
    if cost["measure"] == "dice_explained" or math.isinf(cost["factor"]):
        return f"a difference of {measured(cost['span'])}"
    return f"a factor of {measured(cost['factor'])}"


def _of(cost: pd.Series, end: str) -> str:
    return _named(cost[f"{end}_reading"], cost[f"{end}_quantity"])


def _named(reading: str, quantity: str) -> str:
    measure = next(name for name, definitions in QUANTITIES.items() if quantity in definitions)
    return reading if quantity == measure else f"{reading}, as {_NAMES[quantity]}"


def _nearest_in_words(frame: pd.DataFrame, cost: pd.Series) -> str:
    same = frame[(frame["method"] == cost["method"]) & (frame["measure"] == cost["measure"])]
    same = same[same["threshold"].eq(cost["threshold"]) | same["threshold"].isna() & math.isnan(cost["threshold"])]
    best = same.loc[same["distance"].idxmin()]
    return (
        f"Nearest to the printed {printed(best['paper'])} ({_setting(cost)}, {_NAMES[cost['measure']]}) comes "
        f'"{_named(best["reading"], best["quantity"])}" with {measured(best["mean"])} {interval(_summary(best))}, '
        f"in {best['nearest_share']:.0%} of the resamples of images."
    )


def _subject(row: pd.Series) -> str:
    return f"{row['dataset']}, {row['model']}: {_setting(row)}"


def _setting(row: pd.Series) -> str:
    return row["method"] if math.isnan(row["threshold"]) else f"{row['method']} at threshold {row['threshold']:g}"


def _comparison(rows: pd.DataFrame) -> str:
    columns = list(dict.fromkeys(rows["quantity"]))
    paper = {row["quantity"]: row["paper"] for _, row in rows.iterrows()}
    headers = ["Reading", *(f"{_capital(_NAMES[name])} (paper {printed(paper[name])})" for name in columns)]
    lines = []
    for reading, mine in rows.groupby("reading", sort=False):
        cells = [_cell(mine[mine["quantity"] == name].iloc[0]) for name in columns]
        first = mine.iloc[0]
        lines.append([str(reading), *cells, str(int(first["n"])), str(first["n_images"]), Origin.of_row(first).cell])
    return markdown_table([*headers, "Samples", "Images", "Source"], lines)


def _cell(row: pd.Series) -> str:
    if not row["n"]:
        return f"{DASH} ({row['note'] or 'not in the records'})"
    nearest = "" if math.isnan(row["nearest_share"]) else f"; nearest in {row['nearest_share']:.0%}"
    away = "" if math.isnan(row["distance"]) else f"; away {measured(row['distance'])}{nearest}"
    return f"{measured(row['mean'])} {interval(_summary(row))}{away}"


def _cost_line(cost: pd.Series) -> list[str]:
    origin = [str(cost["n"]), str(cost["n_images"]), Origin.of_row(cost).cell]
    named = [cost["dataset"], cost["model"], _setting(cost), _capital(_NAMES[cost["measure"]]), printed(cost["paper"])]
    if not cost["n_readings"]:
        return [*named, DASH, DASH, DASH, f"{DASH} (not measured)", *origin]
    ends = [f"{measured(cost[end])} ({_of(cost, end)})" for end in ("lowest", "highest")]
    return [*named, measured(cost["literal"]), *ends, _by(cost), *origin]


def _summary(row: pd.Series) -> Summary:
    return Summary(int(row["n"]), *(float(row[part]) for part in ("mean", "median", "low", "high")))


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


_READING = f"""\
Every cell: our mean [95 % bootstrap interval of the mean]; how far it is away from the paper's number (the difference
for Dice explained, the natural logarithm of the quotient for the ratio); in which share of the resamples of images it
is the nearest of its method's readings and definitions to that number. Everything in a table is over the samples that
all readings shown have. {DASH} means no value, with the reason."""

_DEFINITIONS = """\
Every reading changes one thing that the paper leaves open and keeps the literal reading elsewhere, except for the
authors' later code, which changes several at once. Learning rate 0.1 and lambda 0.01 throughout. The paper does not say
either whether MSR's Dice explained is of the mask's values or of the mask cut at zero, nor whether the ratio counts the
mask's own pixels or those of the image that are shown and not blank anyway: both are measured from the same maps. A
reading that comes nearest is not thereby the paper's: its networks, images and seeds are unknown as well."""
