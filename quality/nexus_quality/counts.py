"""Counters of outcomes: the numbers that are recorded, reported, merged and judged.

Promises exact integers and element-wise arithmetic. Merging two views of the same cell is the
element-wise maximum, because each counter only grows at its one writer. It knows no time.
"""

from __future__ import annotations

from collections.abc import Iterable
from operator import attrgetter, gt, lt

import msgspec

from nexus_quality.sketch import MAX_BIN, Bins

MOST = 10**15


class Counts(msgspec.Struct, omit_defaults=True, kw_only=True, gc=False):
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
        self.requests += sign * other.requests
        self.ttft_count += sign * other.ttft_count
        self.ttft_ms_sum += sign * other.ttft_ms_sum
        rare = _rare(other)
        if any(rare):
            for name, value in zip(RARE, rare, strict=True):
                if value:
                    setattr(self, name, getattr(self, name) + sign * value)
        if other.ttft_bins:
            self._add_bins(other.ttft_bins, sign)

    def _add_bins(self, bins: Bins, sign: int) -> None:
        for index, n in bins.items():
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
        if other.requests > self.requests:
            growth.requests = other.requests - self.requests
            self.requests = other.requests
        if other.ttft_count > self.ttft_count:
            growth.ttft_count = other.ttft_count - self.ttft_count
            self.ttft_count = other.ttft_count
        if other.ttft_ms_sum > self.ttft_ms_sum:
            growth.ttft_ms_sum = other.ttft_ms_sum - self.ttft_ms_sum
            self.ttft_ms_sum = other.ttft_ms_sum
        rare = _rare(other)
        if any(rare):
            self._raise(rare, growth)
        for index, count in other.ttft_bins.items():
            old = self.ttft_bins.get(index, 0)
            if count > old:
                growth.ttft_bins[index] = count - old
                self.ttft_bins[index] = count
        return growth

    def _raise(self, rare: tuple[int, ...], growth: Counts) -> None:
        for name, value in zip(RARE, rare, strict=True):
            old = getattr(self, name)
            if value > old:
                setattr(growth, name, value - old)
                setattr(self, name, value)

    def same_numbers(self, other: Counts) -> bool:
        """True if all counters are equal to `other`'s."""
        equal: bool = _numbers(self) == _numbers(other)
        return equal and self.ttft_bins == other.ttft_bins

    def runs_backwards(self, later: Counts) -> bool:
        """True if `later` has a greater and a smaller number: no order of reports explains it."""
        old, new = _numbers(self), _numbers(later)
        return any(map(lt, new, old)) and any(map(gt, new, old))

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
            and self.connect_errors <= self.errors <= self.requests
            and self.ttft_count <= self.requests
            and (not self.ttft_bins or _valid(self.ttft_bins))
        )


NUMBERS: tuple[str, ...] = tuple(name for name in Counts.__struct_fields__ if name != "ttft_bins")
_numbers = attrgetter(*NUMBERS)
# Most outcomes count as these alone; the rest is looked at as one.
_OFTEN = ("requests", "ttft_count", "ttft_ms_sum")
RARE: tuple[str, ...] = tuple(name for name in NUMBERS if name not in _OFTEN)
_rare = attrgetter(*RARE)


def _valid(bins: Bins) -> bool:
    return all(0 <= b <= MAX_BIN and 0 <= n <= MOST for b, n in bins.items())


def total(parts: Iterable[Counts]) -> Counts:
    """The sum of some counters, a new object."""
    result = Counts()
    for part in parts:
        result.add(part)
    return result
