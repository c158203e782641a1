"""Rules in type hints: what each allows, wherever it stands, and how an error names it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_type_hints

import numpy as np
import pytest
import torch

from misure.errors import MisureError
from misure.validation import (
    AtLeast,
    Between,
    Count,
    OneOf,
    Share,
    Whole,
    check,
    check_fields,
    path_of,
    plain_tensor,
    whole,
)

if TYPE_CHECKING:
    from pathlib import Path as OnlyForTypeCheckers


@pytest.mark.parametrize(
    ("rule", "allowed", "refused"),
    [
        (AtLeast(0.5), [0.5, 7, np.float32(1)], [0.4, np.nan, np.inf, 10**400, True, "1", None, [1]]),
        (Between(0, 1), [0, 1, 0.5, np.float64(1)], [-0.1, 1.1, np.nan, False, "0", None]),
        (Whole(1), [1, np.int64(8)], [0, 1.0, 1.5, True, np.True_, "1", None]),
        (OneOf(("a", 2)), ["a", np.str_("a"), 2], ["b", None, [2], np.arange(3), torch.arange(3)]),
    ],
)
def test_what_a_rule_allows(rule, allowed, refused):
    for value in allowed:
        check("x", value, rule)
    for value in refused:
        with pytest.raises(MisureError) as caught:
            check("x", value, rule)
        assert str(caught.value).startswith(f"x={str(value)[:80]}")
        assert len(str(caught.value)) < 200


@pytest.mark.parametrize("value", [10**30, 10**5000], ids=["long", "too long to show"])
def test_a_number_that_no_array_holds_is_refused(value):
    with pytest.raises(MisureError, match=r"^x=.{1,90} is larger than any number of 64 bits$"):
        check("x", value, Whole(1))


@pytest.mark.parametrize(
    ("value", "number"),
    [
        *((v, 2) for v in (2, 2.0, np.int64(2), np.float32(2), np.array([2]), torch.tensor(2), torch.tensor([2.0]))),
        *((v, None) for v in (True, np.True_, torch.tensor(True), 2.5, np.nan, np.inf, "2", None, [2], torch.ones(2))),
    ],
    ids=repr,
)
def test_what_stands_for_a_whole_number(value, number):
    assert whole(value) == number
    assert isinstance(whole(value), int | None)


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6.0).reshape(2, 3),
        np.arange(6.0)[::-1].reshape(2, 3)[:, ::-1][::-1],
        np.arange(6, dtype=">f4").reshape(2, 3),
        np.asfortranarray(np.arange(6, dtype=np.longdouble).reshape(2, 3)),
        torch.nn.Parameter(torch.arange(6.0).view(2, 3)),
    ],
    ids=["plain", "flipped", "other byte order", "long doubles", "a subclass"],
)
def test_arrays_become_tensors_of_the_same_values(array):
    found = plain_tensor("x", array)
    assert type(found) is torch.Tensor
    assert found.tolist() == [[0, 1, 2], [3, 4, 5]]


@pytest.mark.parametrize(
    "value",
    [
        "text",
        None,
        [torch.ones(2)],
        np.array(["a"]),
        np.array([None]),
        np.ones(2, complex),
        np.ma.ones(2),
        range(2),
        torch.ones(2, device="meta"),
        torch.eye(2).to_sparse(),
        Path("x"),
    ],
    ids=str,
)
def test_what_is_no_array_of_numbers_is_named(value):
    with pytest.raises(MisureError, match=r"^x is an? "):
        plain_tensor("x", value)


@pytest.mark.parametrize("value", ["", "a\0b", b"bytes", None, 3, ["a"], True])
def test_what_is_no_path_is_refused(value):
    with pytest.raises(MisureError, match=r"^place=.* is not a path"):
        path_of("place", value)
    assert path_of("place", "a/b") == path_of("place", Path("a/b")) == Path("a/b")


@dataclass
class Parameters:
    count: Count = 1
    shares: tuple[Share, ...] = ()
    choice: Literal["a", "b"] = "a"
    maybe: Annotated[float, AtLeast(0)] | None = None
    number: float = 0.0
    flag: bool = False
    text: str = ""
    index: int = 0
    free: Any = None


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
        ("number", "1", "number=1 is not a finite number"),
        ("number", np.nan, "number=nan is not a finite number"),
        ("flag", 1, "flag=1 is not known: choose True or False"),
        ("flag", "false", "flag=false is not known: choose True or False"),
        ("text", None, "text=None is not a text"),
        ("index", 1.5, "index=1.5 is not a whole number"),
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
