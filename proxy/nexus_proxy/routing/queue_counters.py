"""What the queue counts: who waits, how long waits were, and how they ended."""

from __future__ import annotations

from bisect import bisect_left

SERVED = "served"
LATE = "late"
FULL = "full"
LEFT = "client_gone"
REJECTED = "rejected"
DRAINING = "draining"

BOUNDS = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)


class QueueCounters:
    """`high` and `normal` wait now; `outcomes` counts the waits that ended, by how; `seconds` is
    the sum of their lengths and `buckets` their histogram (one more than `BOUNDS`).
    """

    __slots__ = ("buckets", "high", "normal", "outcomes", "seconds")

    def __init__(self) -> None:
        self.high = 0
        self.normal = 0
        self.outcomes: dict[str, int] = {}
        self.seconds = 0.0
        self.buckets = [0] * (len(BOUNDS) + 1)

    @property
    def depth(self) -> int:
        """How many wait now."""
        return self.high + self.normal

    def began(self, *, high: bool) -> None:
        """One more waits."""
        if high:
            self.high += 1
        else:
            self.normal += 1

    def ended(self, outcome: str, waited: float, *, high: bool) -> None:
        """One of them waits no longer."""
        if high:
            self.high -= 1
        else:
            self.normal -= 1
        self.seconds += waited
        self.buckets[bisect_left(BOUNDS, waited)] += 1
        self.refused(outcome)

    def refused(self, outcome: str) -> None:
        """A wait ended, or did not begin."""
        self.outcomes[outcome] = self.outcomes.get(outcome, 0) + 1
