"""Rolling windows of counters: buckets of one width, with running totals.

Promises that memory is bounded by the number of buckets and of generations alive in them, and that
a bucket leaves as a whole. Buckets are numbered by whoever owns the clock; a window reads none.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator

from nexus_quality.counts import Counts, Pairs, rare_pairs, total
from nexus_quality.family import Family
from nexus_quality.tagged import Tagged

__all__ = ["Family", "Horizon", "Window"]

_NEVER = float("inf")
_FAR = 1 << 62


class Horizon:
    """The latest moment for which all windows under it were asked to be up to date.

    Each lets its old buckets go when it is next read.
    """

    __slots__ = ("at",)

    def __init__(self) -> None:
        self.at = float("-inf")


class Window:
    """The last `family.span` buckets of one subject at one reporter.

    `whole`: where several windows are added up, of any generation, once and for all. `sketched`:
    the bins of all buckets are kept as a sum, too. `requested`: the newest bucket with a request.
    """

    __slots__ = (
        "_active",
        "_horizon",
        "_leaves",
        "_oldest",
        "_sketched",
        "_span",
        "_tagged",
        "_whole",
        "_width",
        "family",
        "requested",
    )

    def __init__(
        self,
        family: Family,
        *,
        whole: Window | None = None,
        horizon: Horizon | None = None,
        sketched: bool = False,
    ) -> None:
        self.family = family
        # Plain integers: an enum's arithmetic is slow, and this is done for every report.
        self._width, self._span = int(family), family.span
        self._whole, self._horizon, self._sketched = whole, horizon, sketched
        self._oldest = 0
        self.requested = -_FAR
        self._active = -_FAR  # the newest bucket with a request, or one kept or turned away
        self._leaves = _NEVER  # when the first bucket does
        self._tagged: list[Tagged] = []  # hardly ever more than a few

    def add(self, bucket: int, generation: int, growth: Counts) -> None:
        """Add `growth` to a bucket; outcomes are tagged with the generation they began under."""
        self.grow(bucket, generation, growth, rare_pairs(growth))

    def grow(
        self,
        bucket: int,
        generation: int,
        growth: Counts,
        rare: Pairs,
        bins: tuple[bytes, bytes] | None = None,
    ) -> None:
        """The same. `rare`: its `rare_pairs`; `bins`: those of one who adds to the bucket, as
        `packed`, before and after.
        """
        tagged = self._of(generation)
        if tagged is None:
            tagged = Tagged(generation)
            self._tagged.append(tagged)
        buckets = tagged.buckets
        same = buckets and buckets[-1] == bucket
        row = len(buckets) - 1 if same else self._row(tagged, bucket)
        tagged.add(row, growth, rare)
        sums = tagged.sums
        sums.requests += growth.requests
        sums.ttft_count += growth.ttft_count
        sums.ttft_ms_sum += growth.ttft_ms_sum
        if rare:
            sums.add_rare(rare)
        if growth.ttft_bins:
            if self._sketched:
                tagged.sketch(bucket, row, growth.ttft_bins)
            elif bins is None or tagged.bins_of(row) != bins[0]:
                tagged.add_bins(row, growth.ttft_bins)
            else:
                tagged.set_bins(row, bins[1])
        if growth.requests and bucket > self.requested:
            self.requested = bucket
        if bucket > self._active and (growth.requests or growth.eligible or growth.throttled):
            self._active = bucket
        if self._whole is not None:
            self._whole.grow(bucket, 0, growth, rare)

    def _of(self, generation: int) -> Tagged | None:
        for tagged in self._tagged:
            if tagged.generation == generation:
                return tagged
        return None

    def _row(self, tagged: Tagged, bucket: int) -> int:
        """The row of a bucket, which may be a new one."""
        row = tagged.row(bucket)
        self._oldest = min(self._oldest, bucket)
        if row == 0:
            self._leaves = min(self._leaves, (bucket + self._span) * self._width)
        return row

    def generations(self, bucket: int, generation: int) -> int:
        """How many generations a bucket has beside this one; 0 if it has this one."""
        known = self._of(generation)
        if known is not None and (len(self._tagged) == 1 or known.find(bucket) >= 0):
            return 0
        return sum(tagged.find(bucket) >= 0 for tagged in self._tagged)

    def expire(self, now: float) -> None:
        """Drop the buckets that have left the window at `now` (seconds on the owner's clock)."""
        if now < self._leaves:
            return
        self._oldest = oldest = int(now // self._width) - self._span + 1
        self._leaves = _NEVER
        for tagged in list(self._tagged):
            tagged.forget(oldest)
            if tagged.buckets:
                leaves = (tagged.buckets[0] + self._span) * self._width
                self._leaves = min(self._leaves, leaves)
            else:
                self._tagged.remove(tagged)

    def erring(self, since_generation: int = 0) -> bool:
        """Whether there is any error, of outcomes tagged at or after a generation."""
        self._settle()
        for tagged in self._tagged:
            if tagged.sums.errors and tagged.generation >= since_generation:
                return True
        return False

    def used(self) -> bool:
        """Whether there is any request, or one that was kept or turned away."""
        horizon = self._horizon
        if horizon is not None and horizon.at >= self._leaves:
            return self._active >= max(self._oldest, self.family.oldest(horizon.at))
        return self._active >= self._oldest

    def used_until(self) -> float:
        """When `used` ends if nothing more comes (seconds on the owner's clock)."""
        return float((self._active + self._span) * self._width)

    def totals(self, since_generation: int = 0) -> Counts:
        """The counters of the whole window, of outcomes tagged at or after a generation."""
        parts = list(self.parts(since_generation))
        found = parts[0].copied() if len(parts) == 1 else total(parts)
        if not self._sketched:
            for _, generation, counts in self.buckets():
                if generation >= since_generation:
                    found.add_bins(counts.ttft_bins)
        return found

    def parts(self, since_generation: int = 0) -> Iterator[Counts]:
        """The window's own counters per generation, to be read only; with bins if it keeps those
        as a sum.
        """
        self._settle()
        for tagged in self._tagged:
            if tagged.generation >= since_generation:
                yield tagged.sums

    def last(self, seconds: float, now: float, since_generation: int = 0) -> Counts:
        """The counters of the buckets that began within the last `seconds`."""
        first, last = self._within(seconds, now)
        return total(
            counts
            for bucket, generation, counts in self.buckets()
            if first <= bucket <= last and generation >= since_generation
        )

    def last_parts(self, seconds: float, now: float, since_generation: int = 0) -> Iterator[Counts]:
        """The same by generation, without bins."""
        for _, counts in self.last_tagged(seconds, now, since_generation):
            yield counts

    def last_tagged(
        self, seconds: float, now: float, since_generation: int = 0
    ) -> Iterator[tuple[int, Counts]]:
        """The same, each with its generation."""
        self._settle()
        first, last = self._within(seconds, now)
        for tagged in self._tagged:
            buckets = tagged.buckets
            if tagged.generation >= since_generation and buckets[-1] >= first:
                end = bisect_left(buckets, last + 1)
                yield tagged.generation, tagged.added_up(bisect_left(buckets, first), end)

    def _within(self, seconds: float, now: float) -> tuple[int, int]:
        # A bucket that has just begun at its reporter may be numbered one ahead of our clock.
        return int((now - seconds) // self._width) + 1, int(now // self._width) + 1

    def buckets(self) -> Iterator[tuple[int, int, Counts]]:
        """Every (bucket, generation, counters) there is."""
        self._settle()
        for tagged in self._tagged:
            for row, bucket in enumerate(tagged.buckets):
                yield bucket, tagged.generation, tagged.counts(row)

    def covered(self, now: float) -> float:
        """How many seconds of history there are, up to the window's span; at least one bucket."""
        self._settle()
        if not self._tagged:
            return float(self._width)
        began = min(tagged.buckets[0] for tagged in self._tagged) * self._width
        return min(max(now - began, self._width), self._width * self._span)

    @property
    def empty(self) -> bool:
        """True if nothing is left in the window."""
        self._settle()
        return not self._tagged

    def _settle(self) -> None:
        if self._horizon is not None and self._horizon.at >= self._leaves:
            self.expire(self._horizon.at)
