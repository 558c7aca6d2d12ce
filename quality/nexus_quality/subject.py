"""One (backend, model) as a proxy sees it.

Promises that an attempt begun before a trip never moves a breaker afterwards. It routes nothing:
`standing` says what the breakers allow.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

from nexus_quality import words
from nexus_quality.attempt import FIRST_FAILURE_SECONDS, PACE_SECONDS, Attempt
from nexus_quality.breaker import Breaker, BreakerState, Event, Facts, Row
from nexus_quality.breaker_table import apply
from nexus_quality.counts import Counts
from nexus_quality.family import Family
from nexus_quality.peering import Peering
from nexus_quality.words import Words

if TYPE_CHECKING:
    from nexus_quality.backend_monitor import BackendMonitor

HOUR = 3600.0
TTFT_RECENT_SECONDS = 300.0
TTFT_RECENT_SAMPLES = 3
LEAST_WEIGHT = 0.05
LEAST_ADMISSION = 0.1


class Standing(enum.Enum):
    """What the breakers allow: all traffic, a growing share, drawn probes, nothing."""

    ADMITTED = "admitted"
    SLOW_START = "slow start"
    PROBING = "probing"
    OUT = "out"


_BY_STATE = {
    BreakerState.CLOSED: Standing.ADMITTED,
    BreakerState.HALF_OPEN: Standing.PROBING,
    BreakerState.FOLLOW_PROBATION: Standing.PROBING,
    BreakerState.OPEN: Standing.OUT,
    BreakerState.FOLLOW_EXCLUDED: Standing.OUT,
}
_WORST_FIRST = (Standing.OUT, Standing.PROBING, Standing.SLOW_START, Standing.ADMITTED)


class Subject:
    """A (backend, model): its counters, its breaker, and how it stands.

    `breaks`: when the latest stream that failed after its first content began, until one that began
    later is complete; meanwhile content is no success yet. `peering`: its like in the other
    processes of this proxy, if there are any.
    """

    __slots__ = (
        "backend",
        "breaker",
        "breaks",
        "in_flight",
        "model",
        "monitor",
        "peering",
        "series",
        "standing",
        "uid",
    )

    def __init__(self, backend: BackendMonitor, model: str) -> None:
        self.backend, self.model, self.uid = backend, model, backend.uid
        self.monitor = backend.monitor
        self.series = self.monitor.recorder.of(self.uid, model)
        self.breaker = Breaker()
        self.in_flight = 0
        self.breaks: float | None = None
        self.peering = Peering(self)
        self.standing = _BY_STATE[backend.breaker.state]

    def refresh(self, now: float) -> bool:
        """Recompute `standing`; True if it changed."""
        levels = {_BY_STATE[b.state] for b in (self.backend.breaker, self.breaker)}
        if levels == {Standing.ADMITTED} and self.admission(now) < 1.0:
            levels = {Standing.SLOW_START}
        standing = next(s for s in _WORST_FIRST if s in levels)
        changed = standing is not self.standing
        self.standing = standing
        return changed

    def admission(self, now: float) -> float:
        """The probability with which a slow start admits it to a request's candidates."""
        share = 1.0
        for breaker in (self.backend.breaker, self.breaker):
            length = breaker.policy.slow_start_seconds
            if breaker.recovered is not None and now < breaker.recovered + length:
                share = min(share, max(LEAST_ADMISSION, (now - breaker.recovered) / length))
        return share

    def wants_probe(self, now: float) -> bool:
        """For an eligible request while PROBING: True if it must be sent here as a probe."""
        share = 1.0
        for breaker in (self.backend.breaker, self.breaker):
            if breaker.state is BreakerState.CLOSED:
                continue
            if breaker.probe_in_flight or breaker.spent:
                return False
            if breaker.state is BreakerState.FOLLOW_PROBATION:
                basis_points = breaker.shared.share_basis_points
                share = min(share, 1.0 if basis_points is None else basis_points / 10_000)
        return share >= 1.0 or self.monitor.random() < share

    def returns_at(self) -> float | None:
        """When an exclusion of it ends (proxy clock); None if it is not out, or no end is known."""
        ends = {
            BreakerState.OPEN: lambda breaker: breaker.until,
            BreakerState.FOLLOW_EXCLUDED: lambda breaker: breaker.shared.until,
        }
        found = [ends[b.state](b) for b in (self.backend.breaker, self.breaker) if b.state in ends]
        return None if not found or None in found else max(found)

    def kept_out(self, now: float) -> None:
        """Count a request for which only the verdict kept this candidate out."""
        self.series.slot(now, self.backend.generation).count("eligible")
        if any(not b.shared.active for b in (self.backend.breaker, self.breaker)):
            self.monitor.hurry(now, seconds=PACE_SECONDS)

    def begin(self, now: float, *, probe: bool = False, last_resort: bool = False) -> Attempt:
        """Begin an attempt; whoever holds it must end it, exactly once."""
        attempt = Attempt(self, now, probe, last_resort)
        self.in_flight += 1
        self.backend.open_attempts.add(attempt)
        if probe:
            self.series.slot(now, attempt.generation).count("probes")
            self._apply(Event.PROBE_SENT, Facts(now=now))
        return attempt

    def ttft_average_ms(self, now: float) -> int | None:
        """The average TTFT of the last 5 min, else of the hour; None with too few samples."""
        elapsed = self.monitor.recorder.elapsed(now)
        policy = self.breaker.policy
        if policy.short_window_seconds:
            count, total = self.series.ttft(TTFT_RECENT_SECONDS, elapsed, Family.TEN_SECONDS)
            if count >= TTFT_RECENT_SAMPLES:
                return total // count
        count, total = self.series.ttft(HOUR, elapsed, Family.MINUTE)
        return total // count if count >= max(1, policy.min_requests) else None

    def weight(self, now: float) -> float:
        """Its weight in the last resort: the recent success rate, 5 % at the least."""
        elapsed = self.monitor.recorder.elapsed(now)
        recent = self.series.last(60.0, elapsed, Family.TEN_SECONDS)
        if not recent.requests:
            recent = self._hour(elapsed)
        if not recent.requests:
            return 1.0
        return max(LEAST_WEIGHT, 1.0 - recent.errors / recent.requests)

    def why(self) -> tuple[str, str]:
        """Why it is not ADMITTED, and what to do about it."""
        for breaker in (self.backend.breaker, self.breaker):
            if not breaker.shared.active and breaker.shared.reason:
                return breaker.shared.reason, breaker.shared.suggested_action
        for model, breaker in ((self.model, self.breaker), ("", self.backend.breaker)):
            if breaker.state in (BreakerState.OPEN, BreakerState.HALF_OPEN):
                return words.own_breaker(
                    model=model, state=breaker.state.value, failures=breaker.row.length
                )
        return f"{self.standing.value}", words.SLOW_START

    def _hour(self, elapsed: float, since_generation: int = 0) -> Counts:
        return self.series.last(HOUR, elapsed, Family.MINUTE, since_generation)

    def _apply(self, event: Event, facts: Facts) -> None:
        """Apply an event to both breakers; a change of either is pushed at once."""
        self.peering.event(event, facts)
        before = self.states()
        for breaker, state in zip((self.breaker, self.backend.breaker), before, strict=True):
            apply(breaker, event, facts)
            if breaker.state is not state:
                self.monitor.hurry(facts.now, seconds=0.0)
        self.peering.turns(before)
        self.monitor.refresh(self.backend, facts.now)

    def states(self) -> tuple[BreakerState, BreakerState]:
        """Those of its own breaker and of its backend's."""
        return self.breaker.state, self.backend.breaker.state

    def succeeded(self, attempt: Attempt, now: float) -> None:
        """What a success means to the breakers; one of the last resort nothing (L14)."""
        if attempt.last_resort:
            return
        own, shared = self.breaker, self.backend.breaker
        if attempt.began > own.latest_success:
            own.latest_success = attempt.began
        if attempt.began > shared.latest_success:
            shared.latest_success = attempt.began
        if attempt.probe:
            self.series.slot(now, attempt.generation).count("probe_successes")
            self._apply(Event.PROBE_SUCCESS, Facts(now=now, began=attempt.began))
            self.monitor.hurry(now, seconds=0.0)
        if not (own.quiet and shared.quiet):
            self._apply(Event.SUCCESS, Facts(now=now, began=attempt.began))

    def failed(self, attempt: Attempt, now: float, *, connect: bool) -> None:
        """What a failure means to the breakers; connect-class ones count for the backend, too."""
        if attempt.probe:
            self.series.slot(now, attempt.generation).count("probe_failures")
            outdated = attempt.generation < self.backend.generation
            random = self.monitor.random
            facts = Facts(now=now, began=attempt.began, outdated=outdated, random=random)
            self._apply(Event.PROBE_FAILURE, facts)
            self.monitor.hurry(now, seconds=0.0)
            return
        self.monitor.hurry(now, seconds=FIRST_FAILURE_SECONDS)
        if attempt.last_resort:
            return
        before = self.states()
        self._fail(attempt.began, now, connect=connect)
        if BreakerState.CLOSED in before:
            self.peering.failure(attempt.began, connect=connect)
            self.peering.turns(before)

    def _fail(self, began: float, now: float, *, connect: bool) -> None:
        if not self.breaker.row.length:
            self.peering.begin_row()
        for breaker, subjects in self.levels(connect=connect):
            apply(breaker, Event.FAILURE, self.failure_facts(breaker, subjects, began, now))
            if breaker.state is BreakerState.OPEN:
                self.monitor.hurry(now, seconds=0.0)
        self._failed_together(now)
        self.monitor.refresh(self.backend, now)

    def levels(self, *, connect: bool) -> list[tuple[Breaker, list[Subject]]]:
        """The breakers that a failure concerns, with what their rows are made of."""
        own = [(self.breaker, [self])]
        if connect:
            own.append((self.backend.breaker, list(self.backend.subjects.values())))
        return own

    def _failed_together(self, now: float) -> None:
        """Several models failing make a row of the backend, its worst model left out."""
        breaker = self.backend.breaker
        if breaker.state is not BreakerState.CLOSED:
            return
        rest = self.backend.without_worst(now)
        if not rest:
            return
        rows = [subject.breaker.row for subject in rest]
        row = Row(
            length=sum(one.length for one in rows),
            began=min(one.began for one in rows),
            requests=sum(one.requests for one in rows),
            errors=sum(one.errors for one in rows),
        )
        unanswered = self.unanswered(rest, row.began)
        facts = Facts(now=now, unanswered=unanswered, row=row, random=self.monitor.random)
        if apply(breaker, Event.MODELS_FAILED, facts) is not None:
            self.monitor.hurry(now, seconds=0.0)

    def refused(self, attempt: Attempt, now: float) -> None:
        """The backend answered 401 or 403 to its key; the third in a row takes it out at once."""
        key = self.backend.key
        before = key.rejected
        key.refuse(attempt.key, attempt.began)
        if key.rejected and not before:
            self.monitor.changed()
            self.monitor.hurry(now, seconds=0.0)
        elif key.refused:
            self.monitor.hurry(now, seconds=FIRST_FAILURE_SECONDS)

    def rejected(self) -> Words | None:
        """Why its key must not be used any more, as this proxy or the fleet knows it."""
        key, shared = self.backend.key, self.backend.breaker.shared
        return key.words() if key.rejected else shared.rejected

    def failure_facts(
        self,
        breaker: Breaker,
        subjects: list[Subject],
        began: float,
        now: float,
        *,
        counted: int = 1,
    ) -> Facts:
        """What a failure's row may look at; `counted`: how often the failure is in this process's
        counters by now.
        """
        row = breaker.row
        requests, errors = row.requests, row.errors
        if not row.length:
            elapsed = self.monitor.recorder.elapsed(now)
            # What a backend did before its last transition is not held against it.
            generation = self.backend.generation
            hours = [subject._hour(elapsed, generation) for subject in subjects]
            # The failure itself is not "before the row".
            requests = sum(hour.requests for hour in hours) - counted
            errors = sum(hour.errors for hour in hours) - counted
        since = min(row.began, began) if row.length else began
        return Facts(
            now=now,
            began=began,
            unanswered=self.unanswered(subjects, since) + self.peering.unanswered,
            requests=requests,
            errors=errors,
            random=self.monitor.random,
        )

    def unanswered(self, subjects: list[Subject], since: float) -> int:
        """Attempts of this process on these, begun since then, whose success is not known."""
        return sum(
            isinstance(a, Attempt) and not a.known and a.began >= since and a.subject in subjects
            for a in self.backend.open_attempts
        )
