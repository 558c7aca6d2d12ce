"""How fast the product's long waits pass: once as fast as the clock, except in tests.

`NEXUS_TEST_PACE=20` divides the waits that begin where somebody is silent for long (staleness,
absence, start-up, full reports, the longest pauses) by 20, so that a test lives through ten minutes
in half a minute. It is for tests alone, read once per process, and changes no short wait, no policy
and no lease.
"""

from __future__ import annotations

import os
from typing import Final

VARIABLE: Final = "NEXUS_TEST_PACE"
MOST: Final = 100.0


def read(text: str) -> float:
    """The pace that a variable's text asks for, 1 for none; SystemExit with what to write."""
    try:
        pace = float(text or "1")
    except ValueError:
        pace = 0.0
    if not 1.0 <= pace <= MOST:
        raise SystemExit(f"{VARIABLE}={text!r}: write a number from 1 to {MOST:.0f}, or unset it")
    return pace


PACE: Final = read(os.environ.get(VARIABLE, ""))


def paced(seconds: float) -> float:
    """The wait of so many seconds, at the pace of this process."""
    return seconds / PACE
