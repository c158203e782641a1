"""Where the paper contradicts itself in numbers, with ours beside them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pandas as pd

from misure.paper.claims.comparison import ORDER_OF_MAGNITUDE
from misure.paper.claims.parameters import cell
from misure.paper.claims.samples import (
    CAM_HIGH,
    CAM_LOW,
    METRICS,
    MSR,
    RISE_HIGH,
    RISE_LOW,
    SUFFICIENT,
    Method,
    Subject,
)
from misure.paper.material import Material
from misure.paper.published import (
    Pair,
    PaperValue,
    lr_lambda_reference,
    reference,
    table1_reference,
    table6_reference,
)
from misure.paper.reliability import samples_by_organ
from misure.paper.statistics import Summary, summarise_groups

_RATES = _LAMBDAS = (0.001, 0.01, 0.1)
_DICE, _RATIO, _SECONDS = "dice_explained", "perturbation_ratio", "seconds"
_OTHERS = (CAM_LOW, CAM_HIGH, RISE_LOW, RISE_HIGH)


@dataclass(frozen=True)
class _Shown:
    """One number of the paper and what it is in our records."""

    quantity: str
    method: Method
    metric: str
    paper: PaperValue


def inconsistencies(material: Material) -> pd.DataFrame:
    """List the paper's contradictions that have numbers.

    Returns:
        One row per number: ``id`` and ``contradiction`` (a sentence), dataset and model, ``quantity``, the paper's
        number (NaN where it prints none), our mean with its 95 % bootstrap interval over images or volumes, the
        number of samples and where ours come from.
    """
    rows = [row for pair in material.pairs for row in _of_subject(Subject(material, pair))]
    return pd.DataFrame(rows)


def _of_subject(subject: Subject) -> Iterator[dict[str, object]]:
    for identity, contradiction, shown in _contradictions(subject.pair):
        known = _names(subject, identity, contradiction)
        for number in shown:
            (values,), samples = subject.table(number.metric, number.method)
            paper = getattr(number.paper, number.metric)
            yield known | _numbers(number.quantity, paper, summarise_groups(values, samples.groups)) | _origin(subject)
    if subject.pair in subject.material.judged:
        yield from _reliability(subject)


def _names(subject: Subject, identity: str, contradiction: str) -> dict[str, object]:
    pair = subject.pair
    names = {"dataset": pair.dataset_label, "model": pair.model_label}
    return {"id": identity, "contradiction": contradiction, **names}


def _numbers(quantity: str, paper: float | None, ours: Summary) -> dict[str, object]:
    printed = float("nan") if paper is None else paper
    interval = {"low": ours.low, "high": ours.high, "n": ours.n}
    return {"quantity": quantity, "paper": printed, "ours": ours.mean, **interval}


def _origin(subject: Subject) -> dict[str, object]:
    return dict(subject.origin.columns())


def _contradictions(pair: Pair) -> Iterator[tuple[str, str, list[_Shown]]]:
    yield from _against_itself(pair)
    yield from _sufficient_region(pair)
    yield from _text_against_tables(pair)


def _against_itself(pair: Pair) -> Iterator[tuple[str, str, list[_Shown]]]:
    places = {
        "Table 1": _printed(pair, MSR),
        f"Table {pair.lr_lambda_table}": lr_lambda_reference(pair)[0.01, 0.1],
        "Table 6": table6_reference(pair)[224],
    }
    if pair.model == "transunet":
        text = "MSR's numbers for the same setting differ between tables; in our records they are the same numbers."
        shown = [
            _Shown(f"MSR, {METRICS[metric]}, {place}", MSR, metric, value)
            for metric in (_DICE, _RATIO)
            for place, value in places.items()
        ]
        yield "same-setting", text, shown
    if pair.lr_lambda_key == "table5_coco_deeplabv3":
        text = "Table 5 prints 2,749 with a decimal comma; the cells beside it show that 2.749 is meant."
        yield "decimal-comma", text, [_lr_lambda(pair, _RATIO, lam, 0.01) for lam in _LAMBDAS]
    text = (
        "Table 1 prints the same seconds for all datasets and models. Section 5.2 says that RISE takes around a "
        "minute, 5.6 minutes."
    )
    yield "seconds", text, [_table1(pair, method, _SECONDS) for method in (CAM_LOW, RISE_LOW, MSR)]


def _sufficient_region(pair: Pair) -> Iterator[tuple[str, str, list[_Shown]]]:
    if pair.dataset == "triangle":
        text = (
            "A sufficient region contains the object, so its ratio cannot be below 1, as the ratio at learning rate "
            "0.001 is (nothing is pruned there), unless black pixels are not counted; 3.4 does not say so."
        )
        region = _Shown(f"SR, {METRICS[_RATIO]}", SUFFICIENT, _RATIO, PaperValue())
        yield "ratio-below-1", text, [_lr_lambda(pair, _RATIO, 0.01, 0.001), region]
        return
    text = (
        "At learning rate 0.001 the ratio is the same for every lambda, so the mask is still the sufficient region, "
        "which has Dice above 0.9 by definition; the Dice explained printed for it is far below."
    )
    shown = [_lr_lambda(pair, metric, lam, 0.001) for metric in (_RATIO, _DICE) for lam in _LAMBDAS]
    shown += [_Shown(f"SR, {METRICS[metric]}", SUFFICIENT, metric, PaperValue()) for metric in (_RATIO, _DICE)]
    yield "unpruned", text, shown


def _text_against_tables(pair: Pair) -> Iterator[tuple[str, str, list[_Shown]]]:
    table = f"Table {pair.lr_lambda_table}"
    reached = {rate: lr_lambda_reference(pair)[0.01, rate].dice_explained or 0.0 for rate in _RATES}
    if max(reached, key=lambda rate: reached[rate]) != 0.1:
        text = f"5.4.1 finds the best results at learning rate 0.1 in each table; for Dice explained {table} does not."
        yield "best-learning-rate", text, [_lr_lambda(pair, _DICE, 0.01, lr) for lr in _RATES]
    sizes = {size: value.dice_explained or 0.0 for size, value in table6_reference(pair).items()}
    if max(sizes, key=lambda size: sizes[size]) != 224:
        text = "5.4.2 finds the best results with mask 224; for Dice explained Table 6 does not."
        yield "best-mask-size", text, [_mask_size(pair, size) for size in sizes]
    ranked = [method.label for method in sorted((MSR, *_OTHERS), key=lambda method: -_dice(pair, method))]
    if ranked[:2] != [RISE_LOW.label, MSR.label]:
        text = f"5.2 puts MSR second in Dice explained; in Table 1 {ranked[1]} is."
        yield "second-in-dice", text, [_table1(pair, method, _DICE) for method in (RISE_LOW, RISE_HIGH, MSR)]
    lead = {method: _ratio(pair, method) / _ratio(pair, MSR) for method in _OTHERS}
    near = {method: times for method, times in lead.items() if times < ORDER_OF_MAGNITUDE}
    if near:
        listed = ", ".join(f"{method.label} ({times:.1f} times)" for method, times in near.items())
        text = f"5.2 says that MSR's ratio is below the others by an order of magnitude; in Table 1 not below {listed}."
        yield "order-of-magnitude", text, [_table1(pair, method, _RATIO) for method in (MSR, *near)]


def _ratio(pair: Pair, method: Method) -> float:
    return _printed(pair, method).perturbation_ratio or 0.0


def _dice(pair: Pair, method: Method) -> float:
    return _printed(pair, method).dice_explained or 0.0


def _printed(pair: Pair, method: Method) -> PaperValue:
    return table1_reference(pair)[method.label.split(" at ")[0], method.threshold]


def _table1(pair: Pair, method: Method, metric: str) -> _Shown:
    return _Shown(f"{method.label}, {METRICS[metric]}, Table 1", method, metric, _printed(pair, method))


def _lr_lambda(pair: Pair, metric: str, lam: float, lr: float) -> _Shown:
    method = cell(lr, lam)
    quantity = f"{method.label}, {METRICS[metric]}, Table {pair.lr_lambda_table}"
    return _Shown(quantity, method, metric, lr_lambda_reference(pair)[lam, lr])


def _mask_size(pair: Pair, size: int) -> _Shown:
    method = Method("msr", None, {"mask_size": size}, f"MSR with mask {size}")
    return _Shown(f"{method.label}, {METRICS[_DICE]}, Table 6", method, _DICE, table6_reference(pair)[size])


def _reliability(subject: Subject) -> Iterator[dict[str, object]]:
    """Say what an accuracy must be read against, for the organ whose accuracy and AUC disagree most."""
    name, _, accuracy, area = max(reference()["table7"], key=lambda row: row[2] - row[3])
    samples = samples_by_organ(subject.material.run, subject.pair)[name]
    text = (
        f"Table 7 gives {name} accuracy {accuracy} with AUC {area}: what a classifier that always says the same would "
        "score if nearly all its predictions had one label. The paper prints no share of reliable predictions."
    )
    nothing = float("nan")
    ours = Summary(len(samples.rows), samples.majority_accuracy, nothing, nothing, nothing)
    quantity = f"{name}, accuracy of always naming the majority"
    yield _names(subject, "accuracy-alone", text) | _numbers(quantity, None, ours) | _origin(subject)
