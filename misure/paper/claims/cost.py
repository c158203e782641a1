"""Claims about time (5.2, 5.6, 5.7). Times are of the machine that wrote the records."""

from __future__ import annotations

from collections.abc import Iterator

from misure.paper.claims.claim import Finding, Part
from misure.paper.claims.samples import CAM_LOW, MSR, RISE_LOW, Method, Subject, shift
from misure.paper.published import PAPER_MASKS
from misure.paper.source import distinct

MINUTE = 60.0

_SECONDS = "seconds"


def cost_findings(subject: Subject) -> Iterator[Finding]:
    """Test which method is fast and which is slow on one dataset and model."""

    def finding(name: str, section: str, statement: str, *parts: Part) -> Finding:
        return Finding(name, section, statement, subject.pair, parts, subject.origin, "table1")

    yield finding(
        "rise-slowest",
        "5.2",
        f"RISE is the slowest{_masks(subject)}.",
        *(subject.higher(_SECONDS, RISE_LOW, other) for other in (MSR, CAM_LOW)),
    )
    yield finding(
        "rise-slowest-2000-masks",
        "5.2",
        f"RISE is the slowest, its time scaled to the paper's {PAPER_MASKS} masks.",
        *(_scaled_over(subject, other) for other in (MSR, CAM_LOW)),
    )
    yield finding(
        "cam-fastest",
        "5.2",
        "Seg-Grad-CAM is the fastest and takes less than a second.",
        *(subject.higher(_SECONDS, other, CAM_LOW) for other in (MSR, RISE_LOW)),
        subject.beyond(_SECONDS, CAM_LOW, 1.0, above=False),
    )
    yield finding(
        "msr-seconds",
        "5.6",
        f"MSR takes seconds: below a minute{_device(subject)}.",
        subject.beyond(_SECONDS, MSR, MINUTE, above=False),
    )
    yield finding(
        "rise-minutes",
        "5.6",
        f"RISE with {PAPER_MASKS} masks takes minutes: over a minute, time scaled from the masks used"
        f"{_device(subject)}.",
        _scaled(subject),
    )


def _scaled_over(subject: Subject, other: Method) -> Part:
    statistic = f"mean difference in seconds per image, RISE with {PAPER_MASKS} masks minus {other.label}"
    (rise, seconds), samples = subject.table(_SECONDS, RISE_LOW, other)
    return shift(statistic, samples.of(rise * _factor(subject) - seconds), 0.0)


def _scaled(subject: Subject) -> Part:
    (rise,), samples = subject.table(_SECONDS, RISE_LOW)
    return shift(
        f"mean seconds per image of RISE, scaled to {PAPER_MASKS} masks", samples.of(rise * _factor(subject)), MINUTE
    )


def _factor(subject: Subject) -> float:
    """By what RISE's time is multiplied; one selection of records has one number of masks."""
    masks = subject.rows(RISE_LOW)["param_n_masks"]
    return PAPER_MASKS / float(masks.iloc[0]) if len(masks) else 1.0


def _masks(subject: Subject) -> str:
    masks = subject.rows(RISE_LOW)["param_n_masks"]
    return f", as measured with {masks.iloc[0]:.0f} masks" if len(masks) else ""


def _device(subject: Subject) -> str:
    device = distinct(subject.records["device"])
    return f" (on {device})" if device else ""
