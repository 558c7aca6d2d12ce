"""The families of buckets: how wide one is, and how many are kept.

Promises numbers alone: what is counted in them is `recorder`'s and `window`'s.
"""

from __future__ import annotations

import enum


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
