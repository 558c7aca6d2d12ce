"""What reporters fill the memory with is set aside from the garbage collector.

Promises that no collection looks through the counters of all reporters, which would hold the event
loop for as long as half a second with a thousand of them; and that this is done a bounded number of
times, for garbage that is set aside by mistake stays. It frees nothing.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Final

FIRST_REPORTERS: Final = 50
GROWTH: Final = 1.25


def set_aside() -> None:
    """Nothing that lives now is looked at again."""
    gc.collect(0)
    gc.freeze()


class Aside:
    """To be told how many reporters there are; acts when they are a quarter more than ever."""

    def __init__(self, act: Callable[[], None] = set_aside) -> None:
        self._act = act
        self._next = FIRST_REPORTERS

    def grown(self, reporters: int) -> None:
        """There are so many reporters now."""
        if reporters >= self._next:
            self._next = int(reporters * GROWTH) + 1
            self._act()
