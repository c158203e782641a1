"""Labels beside lines."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure

from misure.paper.figures.panels import label_lines


@given(st.lists(st.floats(0, 1), min_size=1, max_size=10))
def test_labels_never_lie_on_each_other_and_stay_in_the_panel(heights: list[float]) -> None:
    axes = Figure().subplots()
    axes.set_ylim(0, 1)
    label_lines(axes, {str(i): ("black", height) for i, height in enumerate(heights)})
    places = sorted(text.get_position()[1] for text in axes.texts)
    assert places[0] >= 0
    assert places[-1] <= 1
    assert (np.diff(places) > 0.06).all()
