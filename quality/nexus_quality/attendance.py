"""How many living reporters use each backend, kept up to date instead of counted anew.

Promises the number that a count of all users would give, at the price of those that spoke since the
last look: everybody else can only drop out by time, and when the first of them may is known. Who
must be looked at again is told by `heard`.
"""

from __future__ import annotations

from collections.abc import Iterable

from nexus_quality.evidence import ALIVE_SECONDS
from nexus_quality.ledger import Ledger, Reporter

_NEVER = float("inf")


def uses_until(reporter: Reporter, uid: str, now: float) -> float:
    """Until when a reporter counts as a living user of a backend if it says nothing more; 0.0 if
    it is none.
    """
    if now - reporter.heard > ALIVE_SECONDS:
        return 0.0
    until = 0.0
    for series in reporter.of(uid).values():
        if series.minutes.used():
            until = max(until, series.minutes.used_until())
    return min(until, reporter.heard + ALIVE_SECONDS)


class _Present:
    """`counted` are the users of one backend as of `at`, `unseen` those that spoke since; `due`:
    when one of them may drop out.
    """

    __slots__ = ("at", "counted", "due", "unseen")

    def __init__(self, at: float, unseen: Iterable[str]) -> None:
        self.at = at
        self.due = _NEVER
        self.counted: set[str] = set()
        self.unseen = dict.fromkeys(unseen)


class Attendance:
    """By UID of the backend."""

    def __init__(self) -> None:
        self._known: dict[str, _Present] = {}

    def clear(self) -> None:
        """Forget everything."""
        self._known.clear()

    def forget(self, uid: str) -> None:
        """Forget a backend."""
        self._known.pop(uid, None)

    def heard(self, uids: Iterable[str], reporter: str) -> None:
        """A reporter spoke of some backends, or is back after a silence."""
        for uid in uids:
            if (known := self._known.get(uid)) is not None:
                known.unseen[reporter] = None

    def users(self, ledger: Ledger, uid: str, now: float) -> int:
        """How many living reporters used a backend in the last hour."""
        known = self._known.get(uid)
        if known is None or not known.at <= now < known.due:
            known = self._known[uid] = _Present(now, ledger.users(uid))
        known.at = now
        if known.unseen:
            users = ledger.users(uid)
            for name in known.unseen:
                reporter = users.get(name)
                until = 0.0 if reporter is None else uses_until(reporter, uid, now)
                if until:
                    known.counted.add(name)
                    known.due = min(known.due, until)
                else:
                    known.counted.discard(name)
            known.unseen.clear()
        return len(known.counted)
