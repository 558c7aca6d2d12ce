"""The last hour of each backend, minute by minute: for a small picture, in bounded memory.

Promises `MINUTES` pairs of numbers for a backend, half a kilobyte, read from what the engine counts
when somebody looks; a minute that is told late is read again while it is young, and all of them now
and then. It counts nothing itself.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Mapping

import msgspec

MINUTES = 60
YOUNG_MINUTES = 4
ANEW_MINUTES = 10
MINUTE_SECONDS = 60
_WIDEST = 2**32 - 1

Minutes = Mapping[int, tuple[int, int]]
Read = Callable[[str, int], Minutes]


class Spark(msgspec.Struct, frozen=True, kw_only=True):
    """Requests and errors of whole minutes, the oldest first; `minute`: the last, since 1970."""

    minute: int
    requests: list[int]
    errors: list[int]


class Ring:
    """One backend. Minute `m` is at place `m % MINUTES`."""

    __slots__ = ("errors", "minute", "requests")

    def __init__(self) -> None:
        self.minute = 0
        self.requests = array("I", bytes(4 * MINUTES))
        self.errors = array("I", bytes(4 * MINUTES))

    def take(self, minutes: Minutes, *, first: int, last: int) -> None:
        """Sets the minutes from `first` to `last`; those that are not in `minutes` are empty."""
        for minute in range(max(first, last - MINUTES + 1), last + 1):
            requests, errors = minutes.get(minute, (0, 0))
            self.requests[minute % MINUTES] = min(requests, _WIDEST)
            self.errors[minute % MINUTES] = min(errors, _WIDEST)
        self.minute = last

    def spark(self) -> Spark:
        """All of it, in order."""
        start = (self.minute + 1) % MINUTES
        requests, errors = self.requests.tolist(), self.errors.tolist()
        return Spark(
            minute=self.minute,
            requests=requests[start:] + requests[:start],
            errors=errors[start:] + errors[:start],
        )


class Sparks:
    """By UID. `read` gives requests and errors of a backend by minute, from one minute on."""

    def __init__(self, read: Read) -> None:
        self._read = read
        self._rings: dict[str, Ring] = {}

    def renew(self, uid: str, now: float) -> Spark | None:
        """The spark of a backend, None if it is that of last time: a minute has not passed."""
        last = int(now // MINUTE_SECONDS) - 1
        ring = self._rings.get(uid)
        if ring is not None and ring.minute >= last:
            return None
        anew = ring is None or last % ANEW_MINUTES == 0 or last - ring.minute >= YOUNG_MINUTES
        if ring is None:
            ring = self._rings[uid] = Ring()
        first = last - (MINUTES if anew else YOUNG_MINUTES) + 1
        ring.take(self._read(uid, first), first=first, last=last)
        return ring.spark()

    def forget(self, uid: str) -> None:
        """A backend is gone."""
        self._rings.pop(uid, None)

    def __len__(self) -> int:
        return len(self._rings)
