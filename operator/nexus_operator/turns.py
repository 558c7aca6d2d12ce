"""Reports are taken in one after the other, and everything else has its turn in between.

Promises that a crowd of reports, however large, holds up neither the lease nor watches, reviews and
writes for longer than a piece of one; that they are taken in the order they came; and that what
would have to wait for longer than its sender does is known beforehand. It takes nothing itself.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from types import TracebackType
from typing import Final

from nexus_operator.slices import Slice

WAIT_SECONDS: Final = 2.0  # a proxy waits for 5 s
AGAIN_SECONDS: Final = (1.0, 20.0)
_WEIGHT: Final = 0.1  # of the latest turn in the average


class Turns:
    """To be entered by each report; `pause` between two pieces of it."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = asyncio.Lock()
        self._piece = Slice()
        self._waiting = 0
        self._usual = 0.0
        self._began = 0.0

    def again(self) -> float:
        """0.0 if there is room for another report, else the seconds until it may come again."""
        wait = self._waiting * self._usual
        if wait <= WAIT_SECONDS:
            return 0.0
        least, most = AGAIN_SECONDS
        return min(most, max(least, 2.0 * wait))

    async def pause(self) -> None:
        """Lets others have their turn if reports had theirs for long enough."""
        await self._piece.turn()

    async def __aenter__(self) -> Turns:
        self._waiting += 1
        try:
            await self._lock.acquire()
        finally:
            self._waiting -= 1
        self._began = self._clock()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._usual += _WEIGHT * (self._clock() - self._began - self._usual)
        self._lock.release()
