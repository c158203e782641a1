"""Seconds to the same result, from rows of known numbers."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from misure.bench.same_result import masks_to, noise, summarise
from misure.paper.published import DASH


def test_masks_to_a_correlation_are_those_of_simulated_maps() -> None:
    generator = np.random.default_rng(0)
    limit, n_masks, c = generator.normal(size=100_000), 50, 200.0

    def run(n: float) -> np.ndarray:  # the noise varies as much as the map at c masks
        return limit + generator.normal(size=limit.size) * math.sqrt(c / n)

    found = noise(float(np.corrcoef(run(n_masks), run(n_masks))[0, 1]), n_masks)
    # r is 0.2 with a standard error of 0.003 over 100,000 pixels, and c = n (1 / r - 1): 4 errors are 8 %
    assert found == pytest.approx(c, rel=0.08)
    assert np.corrcoef(run(masks_to(0.99, c)), limit)[0, 1] == pytest.approx(0.99, abs=1e-3)
    assert math.isnan(noise(-0.1, n_masks))


def row(method: str, contestant: str, image: int, run: int = 0, **numbers: float) -> dict[str, object]:
    usual = {"seconds": 2.0, "masks": math.nan, "dice_explained": 0.95, "perturbation_ratio": 0.7, "correlation": 1.0}
    fixed = {"precision": "32", "ours": contestant.startswith("misure"), "flops": 3.0, "peak_flops": 6.0}
    which = {
        "method": method,
        "contestant": contestant,
        "image": image,
        "turn": image,
        "run": run,
        "peak_bytes": 5 << 20,
    }
    return {**which, **fixed, **usual, **numbers}


def summary(*rows: dict[str, object]) -> pd.DataFrame:
    return summarise(pd.DataFrame(rows)).set_index("by")


def test_rise_is_extrapolated_to_the_mean_of_the_images() -> None:
    ours = {"masks": 100, "seconds": 1.0}
    found = summary(
        *(row("rise", "literal", i, run, masks=400, correlation=0.5) for i in (0, 1) for run in (0, 1)),
        *(row("rise", "misure", i, run, correlation=r, **ours) for i, r in ((0, 0.5), (1, 0.8)) for run in (0, 1)),
        *(
            row("rise", "misure other", i, run, correlation=r, **ours)
            for i, r in ((0, 0.5), (1, -0.1))
            for run in (0, 1)
        ),
    )
    each = 0.99**2 / (1 - 0.99**2)
    assert found.loc["literal", "s to the same result"] == pytest.approx(2 / 400 * 400 * each)
    assert found.loc["misure", "s to the same result"] == pytest.approx(1 / 100 * (100 + 25) / 2 * each)
    assert math.isnan(found.loc["misure other", "s to the same result"])
    assert found.loc["misure", "times faster than"] == "literal 3.2 (2 to 8 by image)"
    assert list(found["share of the peak"]) == ["25%", "50%", "50%"]


def test_msr_counts_where_it_is_no_worse_than_the_literal_version() -> None:
    no_worse = {"dice_explained": 0.947, "perturbation_ratio": 0.72}
    found = summary(
        *(row("msr", "literal", i) for i in range(3)),
        *(row("msr", "misure", i, seconds=s, **no_worse) for i, s in enumerate((1, 2, 1))),
        *(row("msr", "misure a", i, perturbation_ratio=0.74) for i in range(3)),
        *(row("msr", "misure b", i, dice_explained=0.94) for i in range(3)),
    )
    assert found.loc["misure", "s to the same result"] == 1
    assert found.loc["misure", "times faster than"] == "literal 2 (1.5 to 2)"
    assert found.loc[["misure a", "misure b"], "s to the same result"].isna().all()
    assert found.loc["misure a", "result"].startswith("not the same: ")


def test_images_of_one_turn_are_one_timing() -> None:
    found = summary(
        *(row("msr", "literal", i, seconds=s, turn=0) for i, s in enumerate((1.0, 2.0))),
        *(row("msr", "misure", i, seconds=0.75, turn=0) for i in range(2)),
    )
    assert found.loc["misure", "times faster than"] == "literal 2 (one timing)"


def test_other_methods_count_where_the_maps_agree_and_noise_is_named() -> None:
    found = summary(
        *(row("seg_grad_cam", "torchcam", i, seconds=s) for i, s in enumerate((1.8, 2.0, 2.2))),
        *(row("seg_grad_cam", "misure", i) for i in range(3)),
        *(row("seg_grad_cam", "misure wrong", i, correlation=0.998) for i in range(3)),
    )
    assert found.loc["misure", "times faster than"].endswith("within noise)")
    assert math.isnan(found.loc["misure wrong", "s to the same result"])


def test_the_page_s_factors_are_those_of_its_file() -> None:
    project = Path(__file__).parents[2]
    page = (project / "misure" / "bench" / "README.md").read_text(encoding="utf-8")
    told = summarise(pd.read_csv(project / "data" / "readme" / "bench.csv"))["times faster than"]
    factors = [factor.partition(" ")[2] for cell in told[told != ""] for factor in cell.split("; ")]
    assert len(factors) == 7
    assert all(f"| {factor} |" in page for factor in factors if factor != DASH)
