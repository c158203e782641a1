"""Hardware as a parameter of the tests: what decides is replaced, whatever machine they run on.

``pytest --bfloat16=fast`` lets every test see a processor that is fast at bfloat16, and on which a pass with it was
measured to be faster. The default is a processor that has none of it.
"""

from __future__ import annotations

import math

from misure.models import compute

KINDS = ("slow", "fast")
"""How fast the processor is at bfloat16."""

is_really_fast_at_bfloat16 = compute.is_fast_at_bfloat16

_worth_rounding = compute._WORTH_ROUNDING

kind = "slow"


def pretend(wanted: str) -> None:
    """Let the library see such a processor from here on."""
    global kind  # noqa: PLW0603 - the process's hardware
    kind = wanted
    compute.is_fast_at_bfloat16 = lambda device: wanted == "fast"
    compute._WORTH_ROUNDING = math.inf if wanted == "fast" else _worth_rounding
