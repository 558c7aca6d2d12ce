"""The buckets of a window that are tagged with one generation, and their sums.

Promises that the sums are those of the rows that are left. Which buckets have left is `window`'s to
say.
"""

from __future__ import annotations

from bisect import bisect_left

from nexus_quality.counts import Counts
from nexus_quality.rows import Rows
from nexus_quality.sketch import Bins, packed, unpacked

_LOOSE = 2


class Tagged(Rows):
    """The buckets of one generation; `sums` are theirs. Of a window with sketches they have the
    bins, too, and those of the buckets that grow now are `loose`.
    """

    __slots__ = ("generation", "loose", "sums")

    def __init__(self, generation: int) -> None:
        super().__init__()
        self.generation = generation
        self.sums = Counts()
        self.loose: dict[int, Bins] | None = None

    def sketch(self, bucket: int, row: int, bins: Bins) -> None:
        """Add to the bins of a row and to those of the sums."""
        self.sums.add_bins(bins)
        known = None if self.loose is None else self.loose.get(bucket)
        if known is None:
            if self.loose is not None and len(self.loose) >= _LOOSE:
                self._fasten()
            known = unpacked(self.bins_of(row))
            self.loose = {bucket: known} if self.loose is None else self.loose | {bucket: known}
        for index, count in bins.items():
            known[index] = known.get(index, 0) + count

    def _fasten(self) -> None:
        """Pack what is loose."""
        for bucket, bins in (self.loose or {}).items():
            self.set_bins(self.find(bucket), packed(bins))
        self.loose = None

    def forget(self, oldest: int) -> None:
        """Drop what is older."""
        count = bisect_left(self.buckets, oldest)
        if self.loose is not None:
            self._fasten()
        if 0 < count < len(self.buckets):
            self.sums.add(self.added_up(0, count), -1)
            if self.sums.ttft_bins:
                for row in range(count):
                    self.sums.add_bins(unpacked(self.bins_of(row)), -1)
        self.drop(count)

    def counts(self, index: int) -> Counts:
        """A row as counters."""
        if self.loose is not None:
            self._fasten()
        return super().counts(index)
