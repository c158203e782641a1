"""The READMEs' numbers, from the reference records."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import cache
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd
import yaml
from readme_keys import FOLDER as CONFIGS

from misure.explainers import EXPLAINERS
from misure.paper.catalogue import like_for_like_tables, paper_tables, sanity_tables, stability_tables
from misure.paper.claims import Claim, Verdict, claims
from misure.paper.claims.significance import FEWEST_GROUPS
from misure.paper.findings import Cell, KeyFinding, key_findings, verdicts_counted
from misure.paper.maps_archive import ARCHIVE, extract_archive
from misure.paper.material import Material
from misure.paper.published import DASH, Pair
from misure.paper.query import INDEPENDENT, SAMPLE, at_threshold, of_pair, paper_draw, select
from misure.paper.reference import FOLDER, reference_material
from misure.paper.source import Origin
from misure.paper.table import Table, markdown_table, printed
from misure.paper.tables.rows import method_rows

_MASKS = re.compile(r" n_masks=\d+")

_SHOWN = {
    "msr": None,
    "sufficient_region": None,
    "rise": 0.2,
    "seg_grad_cam": 0.05,
    "prediction": None,
    "random_map": 0.2,
}
"""Methods, and the threshold at which they are shown."""

_UNDECIDED = {
    "few": "for too few objects",
    "missing": "for lack of records",
    "alone": "for too few objects to compare with",
    "weak": "for a weak network",
    "stand_in": "for generated data alone",
}
"""Why a finding of an outcome is not told; one of another is."""

_KEPT = TemporaryDirectory()

_PRECISIONS = {"32": "float32", "bf16": "bfloat16"}

_N_FINDINGS = 5
_HEADERS = (
    "data, network",
    "method",
    "Dice explained: paper",
    "reference, mean",
    "ratio: paper",
    "reference, median; mean",
    "objects",
    "source",
)
_VARIANTS = ("MSR", "MSR, stable variant", "RISE", "Seg-Grad-CAM")


@cache
def reference_run() -> Material:
    """Return the reference run with its maps, which are there as long as the process is."""
    material = reference_material()
    assert material is not None, f"{FOLDER} has no records"
    extract_archive(FOLDER / ARCHIVE, maps := Path(_KEPT.name))
    return replace(material, maps_folder=maps)


@cache
def reference_tables() -> dict[str, Table]:
    made = (paper_tables, like_for_like_tables, sanity_tables, stability_tables)
    return {table.name: table for table in chain.from_iterable(tables(reference_run()) for tables in made)}


def results() -> str:
    """Return the table of results over the objects that MSR explained, what is not in it, and what it was made from."""
    return "\n\n".join(filter(None, [*results_of(reference_run()), _made_from(reference_run().run, _about())]))


def results_of(material: Material) -> tuple[str, str]:
    """Return the table of results over the objects that MSR explained, and the line about what is not in it."""
    rows, left_out = [], []
    for pair in material.pairs:
        few: dict[str, list[str]] = {}
        records = paper_draw(on_objects_of_msr(material.run, pair), pair)
        if records.empty or records["stand_in"].any():
            continue
        shown = method_rows(records, [pair])
        for name, threshold in _SHOWN.items():
            explained = at_threshold(select(records, name), threshold)
            title = EXPLAINERS[name].title
            if explained[INDEPENDENT].nunique() < FEWEST_GROUPS:
                few.setdefault(f"n = {len(explained)}", []).append(title)
                continue
            row = at_threshold(shown[shown["method"] == title], threshold).iloc[0]
            method = f"{title}{'' if threshold is None else f' at {threshold}'}"
            masks = f" ({row['masks']:.0f} masks)" if name == "rise" else ""
            rows.append([pair.label, method + masks, *_numbers(row), _counted(explained), _source(row)])
        if few:
            left_out.append(f"{pair.label}: {', '.join(f'{_each(methods)} ({n})' for n, methods in few.items())}")
    table = markdown_table(_HEADERS, rows) if rows else ""
    return table, f"Not in the table, of fewer than {FEWEST_GROUPS} images: {'; '.join(left_out)}." if left_out else ""


def on_objects_of_msr(run: pd.DataFrame, pair: Pair) -> pd.DataFrame:
    """Keep a pair's records of the objects that MSR explained at its published setting."""
    explained = pd.MultiIndex.from_frame(select(paper_draw(run, pair), "msr")[SAMPLE])
    records = of_pair(run, pair)
    return records[pd.MultiIndex.from_frame(records[SAMPLE]).isin(explained)].reset_index(drop=True)


@cache
def judged() -> list[Claim]:
    return [*claims(reference_run())]


def verdicts() -> str:
    """Return how many claims have each verdict, and the names of those that hold or do not."""
    return "\n\n".join([f"**{verdicts_counted(judged())}**", *_named(judged())])


def findings() -> str:
    """Return the first decided findings with what each rests on, and how many others there are."""
    return findings_of(key_findings(reference_run(), [*reference_tables().values()], judged()))


def _named(judged: Iterable[Claim]) -> Iterator[str]:
    """Name the claims that hold or do not, by verdict and dataset."""
    judged = [*judged]
    asked = Counter(claim.finding.dataset for claim in judged)
    for verdict in (Verdict.HOLDS, Verdict.FAILS):
        names: dict[str, list[str]] = {}
        for claim in judged:
            if claim.verdict == verdict:
                names.setdefault(claim.finding.dataset, []).append(f"`{claim.finding.id}`")
        if names:
            told = [f"{where} {len(ids)} of {asked[where]}, {_each(ids)}" for where, ids in names.items()]
            yield f"{verdict.value.capitalize()}: {'; '.join(told)}."


def findings_of(found: Iterable[KeyFinding]) -> str:
    """Return decided findings, before those whose claim is open, and a line that counts the others."""
    ordered = sorted(found, key=lambda finding: finding.outcome == "open")
    decided = [finding for finding in ordered if finding.outcome not in _UNDECIDED]
    lines = [f"- {finding.sentence} ({finding.data}; n = {finding.number.n})" for finding in decided[:_N_FINDINGS]]
    reasons = Counter(_UNDECIDED.get(finding.outcome, "for lack of room") for finding in found)
    reasons["for lack of room"] -= len(lines)
    rest = ", ".join(f"{n} {reason}" for reason, n in reasons.items() if n > 0)
    told = f"Findings not told here: {rest}. " if rest else ""
    where = "`make tables PROFILE=reference` writes all to `outputs/findings.md` and `outputs/claims.md`."
    return "\n".join([*lines, *([""] if lines else []), f"{told}{where}"])


def variants() -> str:
    """Return how far noise of one grey value moves the maps of MSR, its stable variant, RISE and Seg-Grad-CAM."""
    headers = ("data, network", "method", "IoU of the maps", "Dice explained", "ratio", "n", "source")
    frame = reference_tables()["stability"].frame
    enough = frame["n_images"] >= FEWEST_GROUPS
    frame = frame[frame["method"].isin(_VARIANTS) & ~frame["stand_in"] & enough & (frame["noise"] > 1e-3)]
    rows = [
        [
            f"{row['dataset']}, {row['model']}",
            row["method"] if pd.isna(row["threshold"]) else f"{row['method']} at {row['threshold']}",
            *(interval_of(row, name) for name in ("iou", "dice_explained", "perturbation_ratio")),
            str(int(row["n"])),
            _source(row),
        ]
        for _, row in frame.iterrows()
    ]
    if not rows:
        return "The maps of `msr_stable` are made to move less; the reference records have no number for it yet."
    lead = (
        "What noise of one grey value (1/255) on the image leaves of each map; table `stability` of a run has the rest:"
    )
    return f"{lead}\n\n{markdown_table(headers, rows)}"


@cache
def _about() -> dict[str, Any]:
    about: dict[str, Any] = json.loads((FOLDER / "about.json").read_text(encoding="utf-8"))
    return about


def _made_from(run: pd.DataFrame, about: Mapping[str, Any]) -> str:
    """Name the run: explanations, time, machines and commands."""
    n = sum(chain.from_iterable(cells.values() for cells in about["n"].values()))
    hours = sum(about["hours_of_explaining"].values())
    described = [of for of in about["made_by"] if "hardware" in of]
    used: dict[str, dict[str, None]] = {}
    for of in described:
        machine = f"{of['hardware']['cpu']} ({of['hardware']['cores']} cores"
        used.setdefault(machine, {}).update({_PRECISIONS[precision]: None for precision in of["precisions"]})
    machines = _each(f"{machine}, {_each(precisions)})" for machine, precisions in used.items())
    first, last = (f"{day:%-d %B %Y}" for day in (run["created"].min(), run["created"].max()))
    real = set(run.loc[~run["stand_in"].astype(bool), ["dataset", "model"]].agg("-".join, axis=1))
    told = {setup: _ranges(cells, setup.split("-")[0]) for setup, cells in about["n"].items() if setup in real}
    cells = "; ".join(f"{setup}: {text}" for setup, text in told.items())
    return (
        f"Reference: {n} explanations in {hours:.2g} hours on {machines}, {first} to {last}, "
        f"cell by cell in {len(about['made_by'])} parts, of which `data/reference/about.json` says command, commit, "
        f"versions and what else ran. Objects of real images that were explained, of those that the profile asks "
        f"for: {cells}. The records [ship](data/README.md#the-reference-records)."
    )


def _ranges(cells: Mapping[str, int], dataset: str) -> str:
    """Say how many objects MSR, RISE, the other methods of the table, and all other settings have.

    RISE counts with the number of masks, which the table names, that the most objects have; a precision that has fewer
    explanations than another is there to be compared, and counted alone.
    """
    by_precision: dict[str, dict[str, int]] = {}
    for name, n in cells.items():
        lowered = name.endswith(" bf16")
        by_precision.setdefault("bf16" if lowered else "32", {})[name.removesuffix(" bf16")] = n
    most, *others = sorted(by_precision, key=lambda precision: -sum(by_precision[precision].values()))
    beside = [f"{sum(by_precision[p].values())} explanations in {_PRECISIONS[p]} to compare with" for p in others]
    return ", ".join([f"in {_PRECISIONS[most]} {_in_one_precision(by_precision[most], dataset)}", *beside])


def _in_one_precision(cells: Mapping[str, int], dataset: str) -> str:
    cells = dict(sorted((_MASKS.sub("", name), n) for name, n in cells.items()))  # of equal names the largest is last
    asked = yaml.safe_load((CONFIGS / "profile" / "reference.yaml").read_text(encoding="utf-8"))[dataset]["n_samples"]
    msr, rise, others = ["msr"], ["rise"], [name for name in _SHOWN if name not in {"msr", "rise"}]
    parts = {"MSR": msr, "RISE": rise, "the other methods of the table": others}
    told = [
        f"{title} {_range(cells.get(name, 0) for name in names)} of {_range(asked[name] for name in names)}"
        for title, names in parts.items()
    ]
    rest = cells.keys() - {*_SHOWN}
    return ", ".join([*told, *([f"{len(rest)} other settings {_range(cells[name] for name in rest)}"] if rest else [])])


def _range(counts: Iterable[int]) -> str:
    known = sorted(counts)
    return DASH.join(dict.fromkeys(map(str, (known[0], known[-1]))))


def _each(texts: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(texts))


def _counted(rows: pd.DataFrame) -> str:
    n_groups = rows[INDEPENDENT].nunique()
    return str(len(rows)) if n_groups == len(rows) else f"{len(rows)} on {n_groups} images"


def _source(row: pd.Series) -> str:
    reduction = Origin("", stand_in=False, scale=row.get("scale", 1.0)).reduction
    lowered = "" if row.get("precision", "32") == "32" else _PRECISIONS[row["precision"]]
    marks = [mark for mark in (row["substitution"], reduction, lowered) if isinstance(mark, str) and mark]
    return ", ".join(["real", *(f"**{mark}**" for mark in marks)])


def _numbers(row: pd.Series) -> Iterator[str]:
    yield printed(row["paper_dice_explained"])
    yield interval_of(row, "dice_explained")
    yield printed(row["paper_perturbation_ratio"])
    yield f"{Cell(row['perturbation_ratio_median'])}; {interval_of(row, 'perturbation_ratio')}"


def interval_of(row: pd.Series, name: str) -> str:
    return Cell(*(row[f"{name}_{end}"] for end in ("mean", "low", "high"))).with_interval
