"""Counters of outcomes: the numbers that are recorded, reported, merged and judged.

Promises exact integers and element-wise arithmetic. Merging two views of the same cell is the
element-wise maximum, because each counter only grows at its one writer. It knows no time; how they
are kept by bucket is `rows`'.
"""

from __future__ import annotations

from collections.abc import Iterable
from copy import copy
from operator import attrgetter
from typing import Self

import msgspec

from nexus_quality.sketch import MAX_BIN, Bins

MOST = 10**15

Pairs = tuple[tuple[str, int], ...]


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
        self.add_numbers(other, sign)
        if other.ttft_bins:
            self.add_bins(other.ttft_bins, sign)

    def add_numbers(self, other: Counts, sign: int = 1) -> None:
        """The same without bins."""
        self.requests += sign * other.requests
        self.ttft_count += sign * other.ttft_count
        self.ttft_ms_sum += sign * other.ttft_ms_sum
        self.add_rare(rare_pairs(other), sign)

    def add_rare(self, pairs: Pairs, sign: int = 1) -> None:
        """Add what `rare_pairs` found in others."""
        for name, value in pairs:
            setattr(self, name, getattr(self, name) + sign * value)

    def add_bins(self, bins: Bins, sign: int = 1) -> None:
        """Add bins in place."""
        for index, n in bins.items():
            left = self.ttft_bins.get(index, 0) + sign * n
            if left:
                self.ttft_bins[index] = left
            else:
                self.ttft_bins.pop(index, None)

    def copied(self) -> Self:
        """The same numbers, to be changed apart."""
        made = copy(self)
        made.ttft_bins = dict(self.ttft_bins)
        return made

    def grow_to(self, other: Counts) -> Counts:
        """Raise each counter to `other`'s where that is higher; the growth is returned.

        This is the join: in any order, any number of times, the result is the same.
        """
        growth = Counts()
        for name, value in zip(NUMBERS, numbers_of(other), strict=True):
            old = getattr(self, name)
            if value > old:
                setattr(growth, name, value - old)
                setattr(self, name, value)
        for index, count in other.ttft_bins.items():
            old = self.ttft_bins.get(index, 0)
            if count > old:
                growth.ttft_bins[index] = count - old
                self.ttft_bins[index] = count
        return growth

    def same_numbers(self, other: Counts) -> bool:
        """True if all counters are equal to `other`'s."""
        equal: bool = numbers_of(self) == numbers_of(other)
        return equal and self.ttft_bins == other.ttft_bins

    @property
    def empty(self) -> bool:
        """True if every counter is zero."""
        return not self.ttft_bins and not any(numbers_of(self))

    @property
    def valid(self) -> bool:
        """True if the numbers can be: none negative or absurd, no more errors than requests."""
        numbers = numbers_of(self)
        return (
            min(numbers) >= 0
            and max(numbers) <= MOST
            and self.connect_errors <= self.errors <= self.requests
            and self.ttft_count <= self.requests
            and (not self.ttft_bins or valid_bins(self.ttft_bins))
        )


NUMBERS: tuple[str, ...] = tuple(name for name in Counts.__struct_fields__ if name != "ttft_bins")
numbers_of = attrgetter(*NUMBERS)
# Most outcomes count as these alone; the rest is looked at as one.
_OFTEN = ("requests", "ttft_count", "ttft_ms_sum")
RARE: tuple[str, ...] = tuple(name for name in NUMBERS if name not in _OFTEN)
rare_of = attrgetter(*RARE)


def rare_pairs(counts: Counts) -> Pairs:
    """The rare counters that are not zero, by name."""
    values = rare_of(counts)
    if not any(values):
        return ()
    return tuple((name, value) for name, value in zip(RARE, values, strict=True) if value)


def valid_bins(bins: Bins) -> bool:
    """True if a sketch can hold that; there is at least one bin."""
    counts = bins.values()
    return min(*bins, *counts, 0) == 0 and max(bins) <= MAX_BIN and max(counts) <= MOST


def numbers(parts: Iterable[Counts]) -> Counts:
    """The same without bins."""
    result = Counts()
    for part in parts:
        result.add_numbers(part)
    return result


def total(parts: Iterable[Counts]) -> Counts:
    """The sum of some counters, a new object."""
    result = Counts()
    for part in parts:
        result.add(part)
    return result
