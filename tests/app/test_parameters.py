"""Parameters on the page."""

from __future__ import annotations

import pytest

from misure.app.parameters import build_explainers, method_names, settings_of
from misure.errors import MisureError
from misure.explainers import EXPLAINERS


def test_every_method_is_offered_and_made_with_its_defaults() -> None:
    assert sorted(method_names()) == sorted(EXPLAINERS)
    entered = {(s.method, s.name): s.default for name in EXPLAINERS for s in settings_of(name)}
    assert build_explainers(list(EXPLAINERS), entered) == [EXPLAINERS[name]() for name in method_names()]
    assert [s.name for s in settings_of("msr")][:3] == ["n_iterations", "lr", "lam"]
    entered["msr", "n_iterations"] = None
    with pytest.raises(MisureError, match="iterations is empty"):
        build_explainers(["msr"], entered)
