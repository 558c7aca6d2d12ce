"""What conditions must say about the counters themselves: what was lost, what is at risk.

Promises a remark for the condition WithinPolicy that stays the same while nothing changes, so that
it causes no writes of its own; empty as long as all is well. What was lost is told until no count
could contain it any more. It keeps nothing: that is the store's.
"""

from __future__ import annotations

from dataclasses import dataclass

from nexus_api import LLMBackend
from nexus_api.quantities import parse_time
from nexus_operator import own_words
from nexus_operator.engine import FleetEngine
from nexus_operator.store_keeper import Keeper
from nexus_quality.engine import STARTING_SECONDS

DAY_SECONDS = 86_400.0
_HOUR = 3600


@dataclass(frozen=True, slots=True)
class _Published:
    """What an earlier process had published: requests of 24 h, counted in which hour."""

    requests: int
    hour: int


class History:
    """Compares what was published before this process began with what it counts itself."""

    def __init__(self, *, engine: FleetEngine, keeper: Keeper) -> None:
        self._engine = engine
        self._keeper = keeper
        self._published: dict[str, _Published | None] = {}
        self._missing: dict[str, int] = {}

    def forget(self, uid: str) -> None:
        """A backend is gone."""
        self._published.pop(uid, None)
        self._missing.pop(uid, None)

    def remark(self, backend: LLMBackend, now: float) -> str:
        """What to add to a message, beginning with "; "; "" if nothing."""
        uid = backend.metadata.uid
        if uid not in self._published:
            self._published[uid] = _published(backend)
        return self._lost(uid, now) + self._at_risk()

    def _at_risk(self) -> str:
        problem = self._keeper.problem
        return "" if problem is None else own_words.at_risk(problem)

    def _lost(self, uid: str, now: float) -> str:
        age = now - self._engine.started
        if not STARTING_SECONDS <= age < DAY_SECONDS:
            return ""
        if uid not in self._missing:
            self._missing[uid] = self._count(uid, now)
        missing = self._missing[uid]
        if missing <= 0:
            return ""
        return own_words.missing(requests=missing, why=self._keeper.why_lost)

    def _count(self, uid: str, now: float) -> int:
        before = self._published.get(uid)
        if before is None:
            return 0
        # What a store had is there; without one, an hour that left the window cannot be told apart.
        if not self._keeper.lost and int(now // _HOUR) != before.hour:
            return 0
        return before.requests - self._engine.figures(uid, now).whole.day.requests


def _published(backend: LLMBackend) -> _Published | None:
    quality = backend.status.quality
    if quality is None or not quality.requests_24h or quality.observed_time is None:
        return None
    return _Published(quality.requests_24h, int(parse_time(quality.observed_time) // _HOUR))
