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
from nexus_quality.peers import EVENTS, SAW_EVENT, SAW_TURN, Saw, Sight
from nexus_quality.window import Family
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
    later is complete; meanwhile content is no success yet. `elsewhere`: attempts without an answer
    since the row began, as another process of this proxy last told.
    """

    __slots__ = (
        "backend",
        "breaker",
        "breaks",
        "elsewhere",
        "in_flight",
        "model",
        "monitor",
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
        self.elsewhere = 0
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
        self._tell(SAW_EVENT[event], facts)
        before = self._states()
        for breaker, state in zip((self.breaker, self.backend.breaker), before, strict=True):
            apply(breaker, event, facts)
            if breaker.state is not state:
                self.monitor.hurry(facts.now, seconds=0.0)
        self._tell_turns(before)
        self.monitor.refresh(self.backend, facts.now)

    def _tell(self, saw: Saw, facts: Facts) -> None:
        """Let the other processes of this proxy know."""
        tell = self.monitor.tell
        if tell is not None:
            began, outdated = facts.began, facts.outdated
            seen = Sight(saw=saw, uid=self.uid, model=self.model, began=began, outdated=outdated)
            tell(seen)

    def _states(self) -> tuple[BreakerState, BreakerState]:
        return self.breaker.state, self.backend.breaker.state

    def _tell_turns(self, before: tuple[BreakerState, BreakerState]) -> None:
        """Let the other processes of this proxy know which of its breakers opened or closed."""
        tell = self.monitor.tell
        if tell is None or before == self._states():
            return
        own = ((self.model, self.breaker), ("", self.backend.breaker))
        for (model, breaker), state in zip(own, before, strict=True):
            saw = None if breaker.state is state else SAW_TURN.get(breaker.state)
            if saw is not None:
                end, row = breaker.until, breaker.row
                tell(Sight(saw=saw, uid=self.uid, model=model, until=end, k=breaker.k, row=row))

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
        before = self._states()
        self._fail(attempt.began, now, connect=connect, counted=1)
        if self.monitor.tell is not None and BreakerState.CLOSED in before:
            since = min(self.breaker.row.began or attempt.began, attempt.began)
            seen = Sight(
                saw=Saw.FAILURE,
                uid=self.uid,
                model=self.model,
                began=attempt.began,
                connect=connect,
                unanswered=self._unanswered([self], since),
            )
            self.monitor.tell(seen)
            self._tell_turns(before)

    def _fail(self, began: float, now: float, *, connect: bool, counted: int) -> None:
        """A failure, to the breakers; `counted`: how often it is in this process's counters."""
        if not self.breaker.row.length and counted:
            self.elsewhere = 0
        levels = [(self.breaker, [self])]
        if connect:
            levels.append((self.backend.breaker, list(self.backend.subjects.values())))
        for breaker, subjects in levels:
            facts = self._failure_facts(breaker, subjects, began, now, counted)
            apply(breaker, Event.FAILURE, facts)
            if breaker.state is BreakerState.OPEN:
                self.monitor.hurry(now, seconds=0.0)
        self._failed_together(now)
        self.monitor.refresh(self.backend, now)

    def hear(self, seen: Sight, now: float) -> None:
        """What an outcome that another process of this proxy saw means to these breakers."""
        own, shared = self.breaker, self.backend.breaker
        if seen.saw is Saw.FAILURE:
            if own.latest_success > seen.began:
                self._tell(Saw.SUCCESS, Facts(now=now, began=own.latest_success))
            self.elsewhere = seen.unanswered
            self._fail(seen.began, now, connect=seen.connect, counted=0)
            return
        random = self.monitor.random
        facts = Facts(now=now, began=seen.began, outdated=seen.outdated, random=random)
        for breaker in (own, shared):
            if seen.saw is Saw.SUCCESS:
                breaker.latest_success = max(breaker.latest_success, seen.began)
            apply(breaker, EVENTS[seen.saw], facts)
        self.monitor.refresh(self.backend, now)

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
        unanswered = self._unanswered(rest, row.began)
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

    def _failure_facts(
        self, breaker: Breaker, subjects: list[Subject], began: float, now: float, counted: int
    ) -> Facts:
        row = breaker.row
        requests, errors = row.requests, row.errors
        if not row.length:
            elapsed = self.monitor.recorder.elapsed(now)
            # What a backend did before its last transition is not held against it.
            generation = self.backend.generation
            hours = [subject._hour(elapsed, generation) for subject in subjects]
            # The failure itself is counted by now, and is not "before the row".
            requests = sum(hour.requests for hour in hours) - counted
            errors = sum(hour.errors for hour in hours) - counted
        since = min(row.began, began) if row.length else began
        return Facts(
            now=now,
            began=began,
            unanswered=self._unanswered(subjects, since) + self.elsewhere,
            requests=requests,
            errors=errors,
            random=self.monitor.random,
        )

    def _unanswered(self, subjects: list[Subject], since: float) -> int:
        return sum(
            isinstance(a, Attempt) and not a.known and a.began >= since and a.subject in subjects
            for a in self.backend.open_attempts
        )
