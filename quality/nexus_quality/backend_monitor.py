"""One backend as a proxy sees it: its breaker, its key, its models.

Promises to know what is going on there now; what moves its breakers are `following`, for the shared
verdict, and its subjects, for outcomes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from nexus_quality.breaker import ROW_SECONDS, Breaker, BreakerState
from nexus_quality.keys import KeyWatch

if TYPE_CHECKING:
    from nexus_quality.monitor import Monitor
    from nexus_quality.subject import Subject

YOUNG_SECONDS = 60.0


class BackendMonitor:
    """One backend as this proxy sees it: its own breaker, and its models as subjects.

    `generation` tags the attempts that begin now. `hurried_until`: successes travel as fast as
    failures, because the backend is not Active, was so for less than 60 s, or is suspect.
    """

    __slots__ = (
        "active_since",
        "breaker",
        "fingerprint",
        "generation",
        "hurried_until",
        "key",
        "monitor",
        "open_attempts",
        "subjects",
        "uid",
    )

    def __init__(self, monitor: Monitor, uid: str) -> None:
        self.monitor, self.uid = monitor, uid
        self.breaker = Breaker()
        self.key = KeyWatch()
        self.fingerprint: str | None = None
        self.subjects: dict[str, Subject] = {}
        self.open_attempts: set[object] = set()
        self.active_since = float("-inf")
        self.generation = 0
        self.hurried_until = float("-inf")

    def breakers(self) -> Iterator[Breaker]:
        """The backend's own breaker, then those of its models."""
        yield self.breaker
        for subject in self.subjects.values():
            yield subject.breaker

    @property
    def still(self) -> bool:
        """True if time alone changes nothing about it."""
        if self.key.changed:
            return False
        for breaker in self.breakers():
            if breaker.state is not BreakerState.CLOSED or breaker.recovered is not None:
                return False
        return True

    @property
    def tells_of_key(self) -> bool:
        """There is something to report about its key."""
        return bool(self.key.refused or self.blocked)

    @property
    def blocked(self) -> str:
        """Why no request is sent with its key, "" if one is."""
        return self.key.blocked(shared=self.breaker.shared.rejected is not None)

    def without_worst(self, now: float) -> list[Subject]:
        """The models failing in a row, the one with the longest left out; none of them if others
        than that one have succeeded since.
        """
        failing = [
            subject
            for subject in self.subjects.values()
            if subject.breaker.row.length
            and subject.breaker.row.began >= self.breaker.changed_at
            and now - subject.breaker.row.began <= ROW_SECONDS
        ]
        if len(failing) < 2:
            return []
        worst = max(failing, key=lambda subject: subject.breaker.row.length)
        others = (s.breaker.latest_success for s in self.subjects.values() if s is not worst)
        latest = max(others, default=float("-inf"))
        return [s for s in failing if s is not worst and s.breaker.row.began > latest]

    def hurry(self, *, suspect: bool) -> None:
        """Set the pace of successes by what is known now."""
        calm = self.breaker.shared.active and not suspect
        self.hurried_until = self.active_since + YOUNG_SECONDS if calm else float("inf")
