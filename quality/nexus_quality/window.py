"""Rolling windows of counters: buckets of one width, with running totals.

Promises that `totals` costs nothing in the number of buckets, that memory is bounded by the number
of buckets and of generations alive in them, and that a bucket leaves as a whole. Buckets are
numbered by whoever owns the clock; a window reads none.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping

from nexus_quality.counts import Counts, total


class Family(enum.IntEnum):
    """A family of buckets: its value is the width of a bucket in seconds."""

    TEN_SECONDS = 10
    MINUTE = 60
    HOUR = 3600

    # An enum's own hash is that of its name, worked out in Python at each look into a table.
    __hash__ = int.__hash__

    @property
    def span(self) -> int:
        """How many buckets the family keeps: 10 minutes, 1 hour, 24 hours."""
        return _SPANS[self]

    def oldest(self, now: float) -> int:
        """The oldest bucket number that still counts at `now` (seconds on the owner's clock)."""
        return int(now // self) - _SPANS[self] + 1


_SPANS = {Family.TEN_SECONDS: 60, Family.MINUTE: 60, Family.HOUR: 24}
_NONE: Mapping[int, Counts] = {}


class Window:
    """The last `family.span` buckets of one subject at one reporter.

    `whole`: where several windows are added up, of any generation; each keeps its part of it.
    """

    __slots__ = ("_buckets", "_oldest", "_span", "_totals", "_whole", "_width", "family")

    def __init__(self, family: Family, whole: Counts | None = None) -> None:
        self.family = family
        # Plain integers: an enum's arithmetic is slow, and this is done for every report.
        self._width, self._span = int(family), family.span
        self._whole = whole
        self._oldest = 0
        self._buckets: dict[int, dict[int, Counts]] = {}
        self._totals: dict[int, Counts] = {}

    def add(self, bucket: int, generation: int, growth: Counts) -> None:
        """Add `growth` to a bucket; outcomes are tagged with the generation they began under."""
        if bucket < self._oldest:
            self._oldest = bucket
        if self._whole is not None:
            self._whole.add(growth)
        tagged = self._buckets.get(bucket)
        if tagged is None:
            tagged = self._buckets[bucket] = {}
        for part in (tagged, self._totals):
            counts = part.get(generation)
            if counts is None:
                counts = part[generation] = Counts()
            counts.add(growth)

    def generations(self, bucket: int, generation: int) -> int:
        """How many generations a bucket has beside this one; 0 if it has this one."""
        tagged = self._buckets.get(bucket)
        return 0 if tagged is None or generation in tagged else len(tagged)

    def expire(self, now: float) -> None:
        """Drop the buckets that have left the window at `now` (seconds on the owner's clock)."""
        oldest = int(now // self._width) - self._span + 1
        if oldest <= self._oldest:
            return
        self._oldest = oldest
        for bucket in [b for b in self._buckets if b < oldest]:
            for generation, counts in self._buckets.pop(bucket).items():
                left = self._totals[generation]
                left.add(counts, -1)
                if self._whole is not None:
                    self._whole.add(counts, -1)
                if left.empty:
                    del self._totals[generation]

    def erring(self, since_generation: int = 0) -> bool:
        """Whether there is any error, of outcomes tagged at or after a generation."""
        for generation, counts in self._totals.items():
            if counts.errors and generation >= since_generation:
                return True
        return False

    def used(self) -> bool:
        """Whether there is any request, or one that was kept or turned away."""
        for counts in self._totals.values():
            if counts.requests or counts.eligible or counts.throttled:
                return True
        return False

    def totals(self, since_generation: int = 0) -> Counts:
        """The counters of the whole window, of outcomes tagged at or after a generation."""
        return total(self.parts(since_generation))

    def parts(self, since_generation: int = 0) -> Iterator[Counts]:
        """What `totals` adds up: the window's own counters per generation, to be read only."""
        for generation, counts in self._totals.items():
            if generation >= since_generation:
                yield counts

    def last(self, seconds: float, now: float, since_generation: int = 0) -> Counts:
        """The counters of the buckets that began within the last `seconds`."""
        return total(self.last_parts(seconds, now, since_generation))

    def last_parts(self, seconds: float, now: float, since_generation: int = 0) -> Iterator[Counts]:
        """What `last` adds up, to be read only."""
        for _, counts in self.last_tagged(seconds, now, since_generation):
            yield counts

    def last_tagged(
        self, seconds: float, now: float, since_generation: int = 0
    ) -> Iterator[tuple[int, Counts]]:
        """The same, each with its generation."""
        first = int((now - seconds) // self._width) + 1
        # A bucket that has just begun at its reporter may be numbered one ahead of our clock.
        for bucket in range(first, int(now // self._width) + 2):
            for generation, counts in self._buckets.get(bucket, _NONE).items():
                if generation >= since_generation:
                    yield generation, counts

    def buckets(self) -> Iterator[tuple[int, int, Counts]]:
        """Every (bucket, generation, counters) there is, to be read only."""
        for bucket, tagged in self._buckets.items():
            for generation, counts in tagged.items():
                yield bucket, generation, counts

    def covered(self, now: float) -> float:
        """How many seconds of history there are, up to the window's span; at least one bucket."""
        if not self._buckets:
            return float(self.family)
        began = min(self._buckets) * self.family
        return min(max(now - began, self.family), self.family * self.family.span)

    @property
    def empty(self) -> bool:
        """True if nothing is left in the window."""
        return not self._buckets
