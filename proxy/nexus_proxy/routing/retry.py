"""How many attempts there may be: `maxRetries` per request, and a retry budget per proxy.

The budget keeps retries from multiplying an outage: over the last 10 s they may be a fifth of all
attempts, and at least ten a second are always allowed. It counts, it does not choose.
"""

from __future__ import annotations

WINDOW_SECONDS = 10
SHARE_PERCENT = 20
ALWAYS_PER_SECOND = 10


class RetryBudget:
    """Attempts and retries of this process in one-second buckets; `always` retries a second are
    allowed whatever the share.
    """

    __slots__ = ("_always", "_attempts", "_retries", "_second")

    def __init__(self, *, always: int = ALWAYS_PER_SECOND) -> None:
        self._always = always
        self._attempts = [0] * WINDOW_SECONDS
        self._retries = [0] * WINDOW_SECONDS
        self._second = 0

    def attempt(self, now: float) -> None:
        """Count an attempt, be it the first of a request or a retry."""
        second = int(now)
        if second != self._second:
            self._advance(second)
        self._attempts[second % WINDOW_SECONDS] += 1

    def allows(self, now: float) -> bool:
        """Whether one more retry may be made now; if so, it is counted as made."""
        second = int(now)
        if second != self._second:
            self._advance(second)
        place = second % WINDOW_SECONDS
        within_share = (sum(self._retries) + 1) * 100 <= sum(self._attempts) * SHARE_PERCENT
        if not within_share and self._retries[place] >= self._always:
            return False
        self._retries[place] += 1
        return True

    def _advance(self, second: int) -> None:
        for passed in range(max(self._second + 1, second - WINDOW_SECONDS + 1), second + 1):
            self._attempts[passed % WINDOW_SECONDS] = 0
            self._retries[passed % WINDOW_SECONDS] = 0
        self._second = max(second, self._second)
