"""Counters by bucket, packed: a row for each bucket, a column for each counter that is in use.

Promises exact integers of any size, in columns as wide as their largest number needs, and rows in
the order of their buckets whatever order they came in. It knows no clock and keeps no sums.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from operator import gt, lt
from typing import TypeAlias

from nexus_quality.counts import RARE, Counts, Pairs, numbers_of, rare_of, rare_pairs
from nexus_quality.sketch import Bins, packed, unpacked
from nexus_quality.sketches import MANY, Sketches

Column: TypeAlias = "array[int] | list[int]"

_WIDER = {"B": "H", "H": "I", "I": "q"}
_OFTEN = 3
_ZEROS = (0,) * _OFTEN


def fitting(column: Column, value: int) -> Column:
    """The column, or a wider copy of it that holds `value` as well."""
    while isinstance(column, array):
        try:
            column.append(value)
        except OverflowError:
            wider = _WIDER.get(column.typecode)
            column = array(wider, column) if wider else list(column)
        else:
            column.pop()
            return column
    return column


class Rows:
    """`buckets` ascend. `often`: of each row requests, the number of TTFTs, the sum of them. `rare`
    and `bins` are None until there is something in them.
    """

    __slots__ = ("bins", "buckets", "often", "rare")

    def __init__(self) -> None:
        self.buckets: Column = array("H")
        self.often: Column = array("H")
        self.rare: dict[str, Column] | None = None
        self.bins: list[bytes] | Sketches | None = None

    def __len__(self) -> int:
        return len(self.buckets)

    def find(self, bucket: int) -> int:
        """The index of a bucket's row, -1 if there is none."""
        buckets = self.buckets
        if buckets and buckets[-1] == bucket:
            return len(buckets) - 1
        index = bisect_left(buckets, bucket)
        return index if index < len(buckets) and buckets[index] == bucket else -1

    def row(self, bucket: int) -> int:
        """The index of a bucket's row, which is made if there is none."""
        buckets = self.buckets
        index = len(buckets)
        if buckets and buckets[-1] >= bucket:
            index = bisect_left(buckets, bucket)
            if buckets[index] == bucket:
                return index
        try:
            buckets.insert(index, bucket)
        except OverflowError:
            self.buckets = buckets = fitting(buckets, bucket)
            buckets.insert(index, bucket)
        if index == len(buckets) - 1:
            self.often.extend(_ZEROS)
        else:
            for at in range(_OFTEN * index, _OFTEN * index + _OFTEN):
                self.often.insert(at, 0)
        if self.rare is not None:
            for column in self.rare.values():
                column.insert(index, 0)
        if self.bins is not None:
            self.bins.insert(index, b"")
            if len(self.bins) >= MANY and isinstance(self.bins, list):
                self.bins = Sketches(self.bins)
        return index

    def drop(self, count: int) -> None:
        """Let the first rows go."""
        del self.buckets[:count], self.often[: _OFTEN * count]
        if self.rare is not None:
            for column in self.rare.values():
                del column[:count]
        if self.bins is not None:
            del self.bins[:count]

    def counts(self, index: int) -> Counts:
        """A row as counters."""
        at, often = _OFTEN * index, self.often
        found = Counts(requests=often[at], ttft_count=often[at + 1], ttft_ms_sum=often[at + 2])
        if self.rare is not None:
            for name, column in self.rare.items():
                setattr(found, name, column[index])
        if self.bins is not None:
            found.ttft_bins = unpacked(self.bins[index])
        return found

    def added_up(self, first: int, end: int) -> Counts:
        """The sum of some rows, without their bins."""
        often = self.often[_OFTEN * first : _OFTEN * end]
        found = Counts(
            requests=sum(often[::_OFTEN]),
            ttft_count=sum(often[1::_OFTEN]),
            ttft_ms_sum=sum(often[2::_OFTEN]),
        )
        if self.rare is not None:
            for name, column in self.rare.items():
                setattr(found, name, sum(column[first:end]))
        return found

    def same(self, index: int, counts: Counts) -> bool:
        """Whether a row says just that."""
        at, often = _OFTEN * index, self.often
        if (
            counts.requests != often[at]
            or counts.ttft_count != often[at + 1]
            or counts.ttft_ms_sum != often[at + 2]
        ):
            return False
        if self.rare is None:
            if any(rare_of(counts)):
                return False
        elif rare_of(counts) != self._rare(index):
            return False
        known = self.bins_of(index)
        return packed(counts.ttft_bins) == known or counts.ttft_bins == unpacked(known)

    def runs_backwards(self, index: int, later: Counts) -> bool:
        """True if `later` has a greater and a smaller number: no order of reports explains it."""
        at, often = _OFTEN * index, self.often
        if (
            self.rare is None
            and later.requests >= often[at]
            and later.ttft_count >= often[at + 1]
            and later.ttft_ms_sum >= often[at + 2]
        ):
            return False
        old, new = numbers_of(self.counts(index)), numbers_of(later)
        return any(map(lt, new, old)) and any(map(gt, new, old))

    def raise_to(self, index: int, counts: Counts) -> tuple[Counts, Pairs]:
        """Raise each counter to that of `counts` where it is higher; the growth is returned, the
        rare part of it by name as well.

        This is the join: in any order, any number of times, the result is the same.
        """
        growth = Counts()
        at, often = _OFTEN * index, self.often
        requests, count, milliseconds = often[at], often[at + 1], often[at + 2]
        try:
            if counts.requests > requests:
                often[at] = counts.requests
                growth.requests = counts.requests - requests
            if counts.ttft_count > count:
                often[at + 1] = counts.ttft_count
                growth.ttft_count = counts.ttft_count - count
            if counts.ttft_ms_sum > milliseconds:
                often[at + 2] = counts.ttft_ms_sum
                growth.ttft_ms_sum = counts.ttft_ms_sum - milliseconds
        except OverflowError:
            # What was raised already would be no growth any more.
            often[at], often[at + 1] = requests, count
            most = max(counts.requests, counts.ttft_count, counts.ttft_ms_sum)
            self.often = fitting(often, most)
            return self.raise_to(index, counts)
        rare = rare_pairs(counts)
        if rare:
            rare = self._raise_rare(index, rare, growth)
        if counts.ttft_bins:
            self._raise_bins(index, counts.ttft_bins, growth)
        return growth, rare

    def add(self, index: int, growth: Counts, rare: Pairs) -> None:
        """Add to a row all but the bins. `rare`: what `rare_pairs` makes of `growth`."""
        at, often = _OFTEN * index, self.often
        requests = often[at] + growth.requests
        count = often[at + 1] + growth.ttft_count
        milliseconds = often[at + 2] + growth.ttft_ms_sum
        try:
            often[at], often[at + 1], often[at + 2] = requests, count, milliseconds
        except OverflowError:
            self.often = often = fitting(often, max(requests, count, milliseconds))
            often[at], often[at + 1], often[at + 2] = requests, count, milliseconds
        for name, value in rare:
            self._set_rare(index, name, self._rare_of(index, name) + value)

    def bins_of(self, index: int) -> bytes:
        """The bins of a row, as `packed`."""
        return b"" if self.bins is None else self.bins[index]

    def add_bins(self, index: int, bins: Bins) -> None:
        """Add to the bins of a row."""
        known = unpacked(self.bins_of(index))
        for bin_index, count in bins.items():
            known[bin_index] = known.get(bin_index, 0) + count
        self.set_bins(index, packed(known))

    def set_bins(self, index: int, data: bytes) -> None:
        """Replace the bins of a row, as `packed`."""
        if self.bins is None:
            self.bins = [b""] * len(self.buckets)
        self.bins[index] = data

    def _rare(self, index: int) -> tuple[int, ...]:
        return tuple(self._rare_of(index, name) for name in RARE)

    def _rare_of(self, index: int, name: str) -> int:
        column = None if self.rare is None else self.rare.get(name)
        return 0 if column is None else column[index]

    def _set_rare(self, index: int, name: str, value: int) -> None:
        if self.rare is None:
            self.rare = {}
        column = self.rare.get(name)
        if column is None:
            column = array("B", bytes(len(self.buckets)))
        self.rare[name] = column = fitting(column, value)
        column[index] = value

    def _raise_rare(self, index: int, pairs: Pairs, growth: Counts) -> Pairs:
        grown = []
        for name, value in pairs:
            old = self._rare_of(index, name)
            if value > old:
                self._set_rare(index, name, value)
                setattr(growth, name, value - old)
                grown.append((name, value - old))
        return tuple(grown)

    def _raise_bins(self, index: int, bins: Bins, growth: Counts) -> None:
        known = unpacked(self.bins_of(index))
        grown = growth.ttft_bins
        for bin_index, count in bins.items():
            old = known.get(bin_index, 0)
            if count > old:
                grown[bin_index] = count - old
                known[bin_index] = count
        if grown:
            self.set_bins(index, packed(known))
