"""Signs of life for whoever watches the operator: is its loop free, is its watch alive?

Promises that a stalled event loop shows as lag, and a watch that brings nothing as a growing age.
It measures and heals nothing.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Final

BEAT_SECONDS: Final = 0.1


async def watch_loop(lag: Callable[[float], None]) -> None:
    """Tells `lag` ten times a second how much later than it should this task was woken."""
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + BEAT_SECONDS
        await asyncio.sleep(BEAT_SECONDS)
        lag(max(0.0, loop.time() - due))


class Sightings:
    """When each kind of object was last heard of, by a watch event or a complete list."""

    def __init__(
        self, kinds: Iterable[str], *, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._monotonic = monotonic
        self._seen = dict.fromkeys(kinds, monotonic())

    def heard(self, kind: str) -> None:
        """Something came."""
        self._seen[kind] = self._monotonic()

    def ages(self) -> Iterator[tuple[str, float]]:
        """Seconds since then, by kind."""
        now = self._monotonic()
        for kind, seen in self._seen.items():
            yield kind, now - seen
