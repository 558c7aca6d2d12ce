"""Counters of outcomes: the numbers that are recorded, reported, merged and judged.

Promises exact integers and element-wise arithmetic. Merging two views of the same cell is the
element-wise maximum, because each counter only grows at its one writer. It knows no time.
"""

from __future__ import annotations

from collections.abc import Iterable
from operator import attrgetter

import msgspec

from nexus_quality.sketch import MAX_BIN, Bins

MOST = 10**12


class Counts(msgspec.Struct, omit_defaults=True, kw_only=True):
    """Counters of one subject over some span.

    `requests` and `errors` hold successes and failures only; `throttled` counts 429 and 503 with
    Retry-After; `eligible` the requests for which only the verdict kept the backend out; `probes`
    those sent as probes, with what came of them; TTFT in milliseconds, of streams that ended well.
    """

    requests: int = 0
    errors: int = 0
    connect_errors: int = 0
    throttled: int = 0
    eligible: int = 0
    probes: int = 0
    probe_successes: int = 0
    probe_failures: int = 0
    probe_neutrals: int = 0
    ttft_count: int = 0
    ttft_ms_sum: int = 0
    cost_nano_usd: int = 0
    ttft_bins: Bins = {}

    def add(self, other: Counts, sign: int = 1) -> None:
        """Add `other` in place; `sign` -1 takes away what was added before."""
        for name, value in zip(NUMBERS, _numbers(other), strict=True):
            if value:
                setattr(self, name, getattr(self, name) + sign * value)
        for index, n in other.ttft_bins.items():
            left = self.ttft_bins.get(index, 0) + sign * n
            if left:
                self.ttft_bins[index] = left
            else:
                self.ttft_bins.pop(index, None)

    def grow_to(self, other: Counts) -> Counts:
        """Raise each counter to `other`'s where that is higher; the growth is returned.

        This is the join: in any order, any number of times, the result is the same.
        """
        growth = Counts()
        for name, old, new in zip(NUMBERS, _numbers(self), _numbers(other), strict=True):
            if new > old:
                setattr(growth, name, new - old)
                setattr(self, name, new)
        for index, new in other.ttft_bins.items():
            old = self.ttft_bins.get(index, 0)
            if new > old:
                growth.ttft_bins[index] = new - old
                self.ttft_bins[index] = new
        return growth

    def same_numbers(self, other: Counts) -> bool:
        """True if all counters are equal to `other`'s."""
        equal: bool = _numbers(self) == _numbers(other)
        return equal and self.ttft_bins == other.ttft_bins

    def runs_backwards(self, later: Counts) -> bool:
        """True if `later` has a greater and a smaller number: no order of reports explains it."""
        pairs = list(zip(_numbers(self), _numbers(later), strict=True))
        return any(new > old for old, new in pairs) and any(new < old for old, new in pairs)

    @property
    def empty(self) -> bool:
        """True if every counter is zero."""
        return not self.ttft_bins and not any(_numbers(self))

    @property
    def valid(self) -> bool:
        """True if the numbers can be: none negative or absurd, no more errors than requests."""
        numbers = _numbers(self)
        return (
            min(numbers) >= 0
            and max(numbers) <= MOST
            and all(0 <= b <= MAX_BIN and 0 <= n <= MOST for b, n in self.ttft_bins.items())
            and self.errors <= self.requests
            and self.connect_errors <= self.errors
            and self.ttft_count <= self.requests
        )


NUMBERS: tuple[str, ...] = tuple(name for name in Counts.__struct_fields__ if name != "ttft_bins")
_numbers = attrgetter(*NUMBERS)


def total(parts: Iterable[Counts]) -> Counts:
    """The sum of some counters, a new object."""
    result = Counts()
    for part in parts:
        result.add(part)
    return result
