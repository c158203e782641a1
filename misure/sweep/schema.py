"""The schema of records: what each column may hold, checked whenever a record is read."""

from __future__ import annotations

import json
import re
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

_LONGEST = 4000
_MOST_COLUMNS = 400
_LARGEST = sys.float_info.max
_ROUNDING = 1e-6

_NO_TEXT = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
"""Characters that are no text in one line, and halves of characters, which cannot be written."""

_DECIMAL = re.compile(r"\d*\.?\d+(e-\d+)?")
_UNIT = re.compile(r"[0-9a-f]{20}")
_TIME = re.compile(r"(19[7-9]\d|20\d\d|21\d\d)-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)?")


class _Kind(NamedTuple):
    """What a value may be, in words and as a test of any value but None."""

    words: str
    fits: Callable[[Any], bool]


def _number(low: float = -_LARGEST, high: float = _LARGEST, *, whole: bool = False) -> _Kind:
    def fits(value: Any) -> bool:
        if type(value) is not float and (not isinstance(value, int | float) or isinstance(value, bool)):
            return False
        return low <= value <= high and (not whole or value == int(value))

    limits = f" from {low:g}" + (f" to {high:g}" if high < _LARGEST / 2 else " on") if low > -_LARGEST else ""
    return _Kind(f"a {'whole ' if whole else ''}number{limits}", fits)


def _one_of(*words: str) -> _Kind:
    return _Kind(" or ".join(words), words.__contains__)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= _LONGEST and not _NO_TEXT.search(value)


def _is_name(value: Any) -> bool:
    return _is_text(value) and bool(value.strip())


def _is_time(value: Any) -> bool:
    if not isinstance(value, str) or not _TIME.fullmatch(value):
        return False
    try:
        datetime.fromisoformat(value)
    except ValueError:
        return False
    return True


def _is_plain(value: Any) -> bool:
    return _is_text(value) or isinstance(value, bool) or _ANY_NUMBER.fits(value)


def _is_change(value: Any) -> bool:
    share = value.removeprefix("randomised_") if isinstance(value, str) else value
    if share == value:
        return value in ("", "none", "other_target")
    return bool(_DECIMAL.fullmatch(share)) and 0 < float(share) <= 1


def _are_thresholds(value: Any) -> bool:
    try:
        return all(map(_SHARE.fits, json.loads(value))) and len(value) <= _LONGEST
    except (ValueError, TypeError, RecursionError):
        return False


_ANY_NUMBER = _number()
_SHARE = _number(0, 1 + _ROUNDING)._replace(words="a number from 0 to 1")
_COUNT, _ORDINAL = _number(0, 2**53, whole=True), _number(1, 2**53, whole=True)
_SIZE = _number(0)
_NAME, _TEXT = _Kind("a name in one line", _is_name), _Kind("text in one line", _is_text)
_PLAIN = _Kind("text, a number, true or false", _is_plain)

_ALWAYS = {
    "status": _one_of("done", "skipped", "failed"),
    "unit": _Kind("20 hexadecimal digits", lambda value: isinstance(value, str) and bool(_UNIT.fullmatch(value))),
    "created": _Kind("a time as ISO 8601", _is_time),
    "profile": _NAME,
    "dataset": _NAME,
    "dataset_fingerprint": _NAME,
    "dataset_source": _TEXT,
    "stand_in": _Kind("true or false", lambda value: isinstance(value, bool)),
    "model": _NAME,
    "weights": _NAME,
    "explainer": _NAME,
    "sample": _COUNT,
    "class_id": _COUNT,
    "input_noise": _SIZE,
}
"""What every record has."""

_IF_DONE = {"dice_explained": _SHARE, "perturbation_ratio": _SIZE}
"""What every finished record has besides."""

_OTHERS = {
    **dict.fromkeys(("binary_dice_explained", "truth_dice", "confidence", "val_dice", "scale"), _SHARE),
    "class_name": _NAME,
    **dict.fromkeys(("group", "reason", "substitution", "network_source", "initial_weights", "device"), _TEXT),
    **dict.fromkeys(("code_version", "precision_reason", "weights_origin"), _TEXT),
    **dict.fromkeys(("credit_licence_name", "credit_licence_url", "credit_url"), _TEXT),
    **dict.fromkeys(("prediction_size", "n_dilations", "explained_class", "draw", "drawn"), _COUNT),
    **dict.fromkeys(("credit_licence", "param_n_iterations"), _COUNT),
    **dict.fromkeys(("batch_size", "param_n_masks"), _ORDINAL),
    "param_seed": _number(-(2**64), 2**64, whole=True),
    "param_thresholds": _Kind("a list of numbers from 0 to 1 as text", _are_thresholds),
    "intervention": _Kind("a known change", _is_change),
    "precision": _one_of("32", "tf32", "bf16", "fp16"),
    **dict.fromkeys(("region_ratio", "seconds"), _SIZE),
    "threshold": _SHARE,
}
"""What a record may have, or have as null; any further column is :data:`_PLAIN`."""

_SINGLE = {str, float, int, bool}
_DONE = _ALWAYS | _IF_DONE
_COLUMNS = _DONE | _OTHERS


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no number")


decoded: Callable[[str], Any] = json.JSONDecoder(parse_constant=_refuse).decode
"""Reads a line as JSON proper, without NaN and infinities."""


def all_fit(rows: Iterable[Mapping[str, Any]]) -> bool:
    """Say whether all values of many lines are what they may be: of those that are equal one is looked at."""
    alike = defaultdict[tuple[str, ...], list[Iterable[Any]]](list)
    for row in rows:
        alike[(*row,)].append(row.values())
    return all(
        _fits(_COLUMNS.get(name, _PLAIN), values)
        for names, lines in alike.items()
        for name, values in zip(names, zip(*lines, strict=True), strict=True)
    )


def _fits(kind: _Kind, values: Iterable[Any]) -> bool:
    values = [value for value in values if value is not None]
    types = {*map(type, values)}
    comparable = types <= _SINGLE and len(types) == 1  # as True == 1 == 1.0
    return all(map(kind.fits, {*values} if comparable else values))


def check_record(unit: str, rows: Sequence[Mapping[str, Any]], *, values_fit: bool = False) -> None:
    """Raise a ValueError that says what is wrong with a record.

    Args:
        unit: Whose record it is, from its file's name.
        rows: Its lines.
        values_fit: Whether its values are known to fit, by :func:`all_fit`.
    """
    if not rows:
        raise ValueError("it is empty")
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            raise TypeError(f"line {number} is no object")
        _check_row(f"line {number}: ", row, values_fit)
        if row["unit"] != unit:
            raise ValueError(f"line {number}: it is the record of {row['unit']}")
    if len({row["status"] for row in rows}) > 1:
        raise ValueError("its lines differ in their status")
    wanted = rows[0].get("param_thresholds")
    found = [row.get("threshold") for row in rows]
    if wanted is not None and rows[0]["status"] == "done" and found != (json.loads(wanted) or [None]):
        raise ValueError(f"its lines are not those of the thresholds {wanted}")


def _check_row(where: str, row: Mapping[str, Any], values_fit: bool) -> None:
    needed = _DONE if row.get("status") == "done" else _ALWAYS
    if missing := [name for name in needed if row.get(name) is None]:
        raise ValueError(f"{where}it has no {', '.join(missing)}")
    if len(row) > _MOST_COLUMNS:
        raise ValueError(f"{where}it has {len(row)} columns")
    for name, value in () if values_fit else row.items():
        kind = _COLUMNS.get(name, _PLAIN)
        if value is not None and not kind.fits(value):
            raise ValueError(f"{where}{name[:40]}={_shown(value)} is not {kind.words}")


def _shown(value: Any) -> str:
    """Write a value in at most 40 characters."""
    text = json.dumps(value) if isinstance(value, str | int | float) else type(value).__name__
    return text if len(text) <= 40 else f"{text[:37]}..."
