"""One request sent to one backend, from its first byte to its one outcome.

Promises that an attempt ends in exactly one outcome, and that the class of that alone decides what
it counts for. What it means to the breakers is its subject's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nexus_quality.breaker import Event, Facts
from nexus_quality.outcome import Outcome, OutcomeClass

if TYPE_CHECKING:
    from nexus_quality.subject import Subject

FIRST_FAILURE_SECONDS = 0.2
PACE_SECONDS = 1.0
_SUCCESS, _FAILURE = OutcomeClass.SUCCESS, OutcomeClass.FAILURE
_CREDENTIALS = OutcomeClass.CREDENTIALS


class Attempt:
    """One request sent to one backend. Times are on the proxy's clock, `ttft` in seconds."""

    __slots__ = (
        "began",
        "generation",
        "key",
        "known",
        "last_resort",
        "probe",
        "sent_at",
        "subject",
        "ttft",
    )

    def __init__(self, subject: Subject, now: float, probe: bool, last_resort: bool) -> None:
        self.subject = subject
        self.began = now
        self.sent_at = now
        self.generation = subject.backend.generation
        self.key = subject.backend.key.serial
        self.probe, self.last_resort = probe, last_resort
        self.known = False
        self.ttft: float | None = None

    def sent(self, now: float) -> None:
        """The request's last byte was handed to the transport: TTFT runs from here."""
        self.sent_at = now

    def content(self, now: float) -> None:
        """The first content event of a stream arrived: its success is known from here on, unless
        streams break here lately.
        """
        if self.ttft is None:
            self.ttft = now - self.sent_at
            if self.subject.breaks is None:
                self.known = True
                self.subject.succeeded(self, now)

    def end(self, outcome: Outcome, now: float, *, cost_nano_usd: int = 0) -> None:
        """End the attempt with its one outcome; RuntimeError if it has ended before."""
        subject = self.subject
        try:
            subject.backend.open_attempts.remove(self)
        except KeyError:
            raise RuntimeError("an attempt ended twice") from None
        subject.in_flight -= 1
        effect = outcome.effect
        if effect.outcome_class is _SUCCESS:
            self._succeeded(now, cost_nano_usd)
        elif effect.outcome_class is _FAILURE:
            slot = subject.series.slot(now, self.generation)
            slot.failure(cost_nano_usd, connect=effect.connect)
            self._failed(now, connect=effect.connect)
        else:
            self._undecided(now, throttled=effect.throttled)
            if cost_nano_usd:  # a client that leaves a stream has had a part of it
                subject.series.slot(now, self.generation).cost(cost_nano_usd)
            if effect.outcome_class is _CREDENTIALS:
                subject.refused(self, now)

    def _succeeded(self, now: float, cost_nano_usd: int) -> None:
        subject = self.subject
        slot = subject.series.slot(now, self.generation)
        slot.success(cost_nano_usd)
        if subject.backend.key.heeded:
            subject.backend.key.accept(self.key, self.began)
        if self.ttft is not None:
            slot.ttft(self.ttft * 1000)
        if not self.known:
            subject.succeeded(self, now)
        if subject.breaks is not None and self.began > subject.breaks:
            subject.breaks = None
        if now < subject.backend.hurried_until:
            subject.monitor.hurry(now, seconds=PACE_SECONDS)

    def _failed(self, now: float, *, connect: bool) -> None:
        if self.ttft is not None:
            self.subject.breaks = self.began
        # A probe whose stream had content has succeeded already; what follows is ordinary.
        if self.probe and self.known:
            self.subject.monitor.hurry(now, seconds=FIRST_FAILURE_SECONDS)
        else:
            self.subject.failed(self, now, connect=connect)

    def _undecided(self, now: float, *, throttled: bool) -> None:
        subject = self.subject
        if throttled:
            subject.series.slot(now, self.generation).count("throttled")
        if self.probe and not self.known:
            subject.series.slot(now, self.generation).count("probe_neutrals")
            subject._apply(Event.PROBE_NEUTRAL, Facts(now=now, began=self.began))
