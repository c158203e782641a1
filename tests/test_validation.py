"""Rules in type hints: what each allows, wherever it stands, and how an error names it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_type_hints

import numpy as np
import pytest

from misure.errors import MisureError
from misure.validation import AtLeast, Between, Count, OneOf, Share, Whole, check, check_fields

if TYPE_CHECKING:
    from pathlib import Path as OnlyForTypeCheckers


@pytest.mark.parametrize(
    ("rule", "allowed", "refused"),
    [
        (AtLeast(0.5), [0.5, 7, np.float32(1)], [0.4, np.nan, np.inf, True, "1", None, [1]]),
        (Between(0, 1), [0, 1, 0.5, np.float64(1)], [-0.1, 1.1, np.nan, False, "0", None]),
        (Whole(1), [1, np.int64(8)], [0, 1.0, 1.5, True, "1", None]),
        (OneOf(("a", 2)), ["a", 2], ["b", None, [2]]),
    ],
)
def test_what_a_rule_allows(rule, allowed, refused):
    for value in allowed:
        check("x", value, rule)
    for value in refused:
        with pytest.raises(MisureError) as caught:
            check("x", value, rule)
        assert str(caught.value) == f"x={value} is not {rule}"


@dataclass
class Parameters:
    count: Count = 1
    shares: tuple[Share, ...] = ()
    choice: Literal["a", "b"] = "a"
    maybe: Annotated[float, AtLeast(0)] | None = None
    free: float = 0.0


@dataclass
class Extended(Parameters):
    place: OnlyForTypeCheckers | None = None


@pytest.mark.parametrize("cls", [Parameters, Extended])
@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("count", 0, "number=0 is not a whole number of at least 1"),
        ("shares", 0.5, "shares=0.5 is not a list"),
        ("shares", "0.5", "shares=0.5 is not a list"),
        ("shares", [0.5, 2], "shares=2 is not a number from 0 to 1"),
        ("choice", "c", "choice=c is not known: choose a or b"),
        ("maybe", -1, "maybe=-1 is not a number of at least 0"),
    ],
)
def test_a_field_out_of_range_is_refused_by_the_name_it_is_known_by(cls, name, value, shown):
    with pytest.raises(MisureError) as caught:
        check_fields(cls(**{name: value}), {"count": "number"})
    assert str(caught.value) == shown


@pytest.mark.parametrize("cls", [Parameters, Extended])
@pytest.mark.parametrize(("name", "value"), [("shares", [0, 1.0]), ("maybe", 3), ("maybe", None), ("free", "anything")])
def test_what_the_hints_allow_passes(cls, name: str, value: Any):
    check_fields(cls(**{name: value}))


def test_rules_leave_the_plain_types():
    assert get_type_hints(Parameters)["count"] is int
