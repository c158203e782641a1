"""Records serve every profile whose setting they fulfil."""

from __future__ import annotations

import pandas as pd
import pytest
from paper_records import photo

from misure.errors import MisureError
from misure.paper.profiles import serving
from misure.paper.selection import latest_run, select

EARLY, LATE = "2026-01-01T00:00:00+00:00", "2026-06-01T00:00:00+00:00"
COUNTS = {"coco": {"rise": {"n_masks": 2000}, "msr": {"n_iterations": 100}}}


def frame(*units: list[dict]) -> pd.DataFrame:
    return pd.DataFrame([row for unit in units for row in unit])


def shared(method: str, sample: int, profile: str, parameters: dict | None = None, **columns) -> list[dict]:
    """A record of published weights, which are the same in every profile."""
    return photo(method, sample, "dog", parameters, **({"profile": profile, "network_profile": ""} | columns))


def served(records: pd.DataFrame, profile: str) -> set[int]:
    run = latest_run(serving(records, profile, COUNTS), profile)
    assert set(run["profile"]) <= {profile}
    return set(run["sample"])


def test_a_quick_run_s_records_count_in_the_paper_s_tables():
    """As with real photographs: quick explains three, then the paper profile finds these and adds one."""
    records = frame(*(shared("msr", i, "quick") for i in range(3)), shared("msr", 3, "paper"))
    assert served(records, "paper") == {0, 1, 2, 3}
    assert served(records, "quick") == {0, 1, 2, 3}
    assert len(select(latest_run(serving(records, "paper", COUNTS), "paper"), "msr")) == 4


def test_they_count_where_the_other_run_had_nothing_left_to_do():
    assert served(frame(*(shared("msr", i, "quick") for i in range(3))), "paper") == {0, 1, 2}


@pytest.mark.parametrize(
    ("why", "record"),
    [
        ("fewer masks", shared("rise", 0, "quick", {"n_masks": 100})),
        ("fewer iterations", shared("msr", 0, "quick", {"n_iterations": 3})),
        ("a network trained in the other profile", shared("msr", 0, "quick", network_profile="quick")),
        ("an older record, which does not know whose network it is", photo("msr", 0, "dog", profile="quick")),
        ("other images than the newest", shared("msr", 0, "quick", dataset_fingerprint="e" * 16)),
        ("other weights than the newest", shared("msr", 0, "quick", weights="e" * 16)),
        ("a dataset that the profile does not know", shared("msr", 0, "quick", dataset="squares")),
    ],
)
def test_what_does_not_fulfil_the_setting_does_not_serve(why, record):
    records = frame(record, shared("msr", 5, "paper", created=EARLY))
    assert served(records, "paper") == {5}, why
    assert 0 in set(serving(records, "quick", COUNTS)["sample"])


def test_a_profile_s_own_images_win_over_newer_ones_of_another():
    own = shared("msr", 0, "paper", created=EARLY)
    records = frame(own, shared("msr", 1, "quick", created=LATE, dataset_fingerprint="e" * 16))
    assert served(records, "paper") == {0}


def test_another_precision_than_the_profile_s_does_not_serve():
    records = frame(shared("msr", 0, "quick", precision="bf16"), shared("msr", 1, "quick"), shared("msr", 2, "paper"))
    assert set(serving(records, "paper", COUNTS, "32")["sample"]) == {1, 2}
    assert set(serving(records, "paper", COUNTS)["sample"]) == {0, 1, 2}


def test_own_records_count_at_any_setting():
    assert served(frame(shared("rise", 0, "paper", {"n_masks": 7})), "paper") == {0}


def test_no_records_and_foreign_ones():
    assert serving(pd.DataFrame(), "paper", COUNTS).empty
    assert serving(frame(shared("rise", 0, "quick", {"n_masks": 7})), "paper", COUNTS).empty
    with pytest.raises(MisureError, match="lack the columns weights"):
        serving(frame(shared("msr", 0, "quick")).drop(columns="weights"), "paper", COUNTS)
