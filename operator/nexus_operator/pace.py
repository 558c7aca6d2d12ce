"""How often a reporter may report: a token bucket for each.

Promises that an honest proxy never notices (a report a second and its full ones, for several
workers), that a large body costs more than a small one, and that the table is bounded. It counts
identities, not addresses, and refuses nothing itself.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Final

PER_SECOND: Final = 20.0
BURST: Final = 200.0
BYTES_PER_TOKEN: Final = 32 * 1024
TABLE_SIZE: Final = 8192


class Pace:
    """The buckets. `clock` in seconds; one that is not in the table is full."""

    def __init__(
        self,
        clock: Callable[[], float],
        *,
        per_second: float = PER_SECOND,
        burst: float = BURST,
        size: int = TABLE_SIZE,
    ) -> None:
        self._clock = clock
        self._per_second, self._burst, self._size = per_second, burst, size
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait(self, reporter: str) -> float:
        """Takes a token; 0.0 if there was one, else the seconds until there will be."""
        tokens = self._tokens(reporter)
        if tokens < 1.0:
            return (1.0 - tokens) / self._per_second
        self._put(reporter, tokens - 1.0)
        return 0.0

    def charge(self, reporter: str, size: int) -> None:
        """Takes what a body of `size` bytes costs, even if that leaves a debt."""
        self._put(reporter, self._tokens(reporter) - size / BYTES_PER_TOKEN)

    def __len__(self) -> int:
        return len(self._buckets)

    def _tokens(self, reporter: str) -> float:
        tokens, since = self._buckets.get(reporter, (self._burst, 0.0))
        # A clock that was set back gives nothing and takes nothing.
        grown = max(0.0, self._clock() - since) * self._per_second
        return min(self._burst, tokens + grown)

    def _put(self, reporter: str, tokens: float) -> None:
        self._buckets[reporter] = (tokens, self._clock())
        self._buckets.move_to_end(reporter)
        while len(self._buckets) > self._size:
            self._buckets.popitem(last=False)
