"""Readings as their sweeps list them."""

from __future__ import annotations

import pytest

from misure.explainers import EXPLAINERS
from misure.paper.extensions.readings import readings_of


@pytest.mark.parametrize(("sweep", "number"), [("ambiguities", 20), ("ambiguities_rise", 4), ("table5_readings", 9)])
def test_each_is_a_setting_of_its_own_that_the_method_allows_and_the_first_is_literal(sweep: str, number: int) -> None:
    readings = readings_of(sweep)
    settings = [EXPLAINERS[reading.explainer](**dict(reading.parameters)).parameters for reading in readings]
    assert len({reading.title for reading in readings}) == len({str(setting) for setting in settings}) == number
    assert [reading.literal for reading in readings] == [True] + [False] * (number - 1)
