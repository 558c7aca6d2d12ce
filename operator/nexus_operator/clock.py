"""The operator's time: epoch seconds that never jump.

Wall time once at the start, monotonic time since. Durations and order are therefore exact even when
somebody sets the machine's clock. Formatting times is `nexus_api.quantities`' job.
"""

from __future__ import annotations

import time
from collections.abc import Callable


class Clock:
    """Callable: seconds since 1970. `correct` moves it to somebody else's wall time."""

    def __init__(
        self,
        *,
        wall: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._monotonic = monotonic
        self._offset = wall() - monotonic()

    def __call__(self) -> float:
        return self._monotonic() + self._offset

    def correct(self, seconds: float) -> None:
        """Adds `seconds` once, before anything was measured with it."""
        self._offset += seconds
