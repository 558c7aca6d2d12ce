"""One (backend, model) of one process of a proxy, as it tells the others and hears of them.

Promises that a row is as long in each process as in all of them together, and that the process
which saw the last failure of a row decides whether that opens a breaker, by all attempts that are
without an answer: its own and what the others told. With nobody to tell it costs a comparison.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from nexus_quality.breaker import BreakerState, Event, Facts
from nexus_quality.breaker_table import apply
from nexus_quality.peers import EVENTS, SAW_EVENT, SAW_TURN, Saw, Sight

if TYPE_CHECKING:
    from nexus_quality.subject import Subject

_TOO_MANY = 2**31


class Peering:
    """What a subject tells its like in the other processes, and what it makes of what they tell."""

    __slots__ = ("_elsewhere", "_subject", "_told")

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        self._elsewhere: dict[int, int] = {}
        self._told = 0

    @property
    def unanswered(self) -> int:
        """Attempts of the others without an answer since the row began, as they last told."""
        return sum(self._elsewhere.values()) if self._elsewhere else 0

    def begin_row(self) -> None:
        """A failure is about to begin a row: what was told belongs to another."""
        self._elsewhere.clear()
        self._told = 0

    def event(self, event: Event, facts: Facts) -> None:
        """Something befell both breakers."""
        if self._subject.monitor.tell is not None:
            self._tell(SAW_EVENT[event], began=facts.began, outdated=facts.outdated)

    def failure(self, began: float, *, connect: bool) -> None:
        """An ordinary attempt failed that began then."""
        if self._subject.monitor.tell is not None:
            self._told = self._since_row(began)
            self._tell(Saw.FAILURE, began=began, connect=connect, unanswered=self._told)

    def turns(self, before: tuple[BreakerState, BreakerState]) -> None:
        """Which of both breakers have opened or closed since they were in these states."""
        subject = self._subject
        tell = subject.monitor.tell
        if tell is None or before == subject.states():
            return
        own = ((subject.model, subject.breaker), ("", subject.backend.breaker))
        for (model, breaker), state in zip(own, before, strict=True):
            saw = None if breaker.state is state else SAW_TURN.get(breaker.state)
            if saw is not None:
                uid, end, row = subject.uid, breaker.until, breaker.row
                tell(Sight(saw=saw, uid=uid, model=model, until=end, k=breaker.k, row=row))

    def hear(self, seen: Sight, now: float) -> None:
        """What another process saw."""
        subject = self._subject
        if seen.saw is Saw.FAILURE:
            self._hear_failure(seen, now)
            return
        if seen.saw is Saw.UNANSWERED:
            self._elsewhere[seen.by] = seen.unanswered
            return
        random = subject.monitor.random
        facts = Facts(now=now, began=seen.began, outdated=seen.outdated, random=random)
        for breaker in (subject.breaker, subject.backend.breaker):
            if seen.saw is Saw.SUCCESS:
                breaker.latest_success = max(breaker.latest_success, seen.began)
            apply(breaker, EVENTS[seen.saw], facts)
        subject.monitor.refresh(subject.backend, now)

    def _hear_failure(self, seen: Sight, now: float) -> None:
        subject = self._subject
        latest = subject.breaker.latest_success
        if latest > seen.began:
            self._tell(Saw.SUCCESS, began=latest)
        if not subject.breaker.row.length:
            self.begin_row()
        self._elsewhere[seen.by] = seen.unanswered
        for breaker, subjects in subject.levels(connect=seen.connect):
            facts = subject.failure_facts(breaker, subjects, seen.began, now, counted=0)
            apply(breaker, Event.FAILURE, replace(facts, unanswered=_TOO_MANY))
        unanswered = self._since_row(seen.began)
        if unanswered != self._told:
            self._told = unanswered
            self._tell(Saw.UNANSWERED, unanswered=unanswered)

    def _since_row(self, began: float) -> int:
        subject = self._subject
        row = subject.breaker.row
        return subject.unanswered([subject], min(row.began, began) if row.length else began)

    def _tell(
        self,
        saw: Saw,
        *,
        began: float = 0.0,
        connect: bool = False,
        outdated: bool = False,
        unanswered: int = 0,
    ) -> None:
        subject = self._subject
        if subject.monitor.tell is not None:
            seen = Sight(
                saw=saw,
                uid=subject.uid,
                model=subject.model,
                began=began,
                connect=connect,
                outdated=outdated,
                unanswered=unanswered,
            )
            subject.monitor.tell(seen)
