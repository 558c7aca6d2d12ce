"""The proxy's clock: seconds since the machine booted, suspended time included. It never jumps."""

from __future__ import annotations

import time

_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def boot_clock() -> float:
    """Seconds since boot."""
    return time.clock_gettime(_CLOCK)
