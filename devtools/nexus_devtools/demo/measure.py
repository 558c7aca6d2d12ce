"""From what was seen to the figures of the summary.

Promises: pure functions of recorded times, outcomes and counts; a figure that was not measured is
None, never zero. It is NOT a collector: ``watch``, ``traffic`` and the backends' ledgers are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One request as its client saw it; times are seconds of one monotonic clock."""

    began: float
    app: str
    backend: str | None
    """The header ``X-Nexus-Backend``, None where none came."""
    ok: bool
    streamed: bool
    retries: int = 0
    detail: str = ""
    """What was wrong; empty if nothing was."""


@dataclass(frozen=True, slots=True)
class Transition:
    """A backend was first seen in a state."""

    at: float
    backend: str
    state: str


@dataclass(slots=True)
class Chronicle:
    """Changes of state in the order they were seen, and when each step began and ended."""

    transitions: list[Transition] = field(default_factory=list)
    began: dict[str, float] = field(default_factory=dict)
    ended: dict[str, float] = field(default_factory=dict)

    def state(self, backend: str) -> str | None:
        """The last state seen."""
        return next((t.state for t in reversed(self.transitions) if t.backend == backend), None)

    def note(self, backend: str, state: str, at: float) -> bool:
        """Record a sighting; True if it is a change."""
        if self.state(backend) == state:
            return False
        self.transitions.append(Transition(at, backend, state))
        return True

    def seconds_to(self, backend: str, state: str, *, since: str) -> float | None:
        """Seconds from the beginning of a step to the first sight of a state after it."""
        start = self.began.get(since)
        if start is None:
            return None
        times = (
            t.at
            for t in self.transitions
            if t.backend == backend and t.state == state and t.at >= start
        )
        first = next(times, None)
        return None if first is None else first - start

    def spans(self, backend: str, state: str, *, until: float) -> list[tuple[float, float]]:
        """The times in which a backend was seen in a state."""
        own = [t for t in self.transitions if t.backend == backend]
        ends = [*(t.at for t in own[1:]), until][: len(own)]
        return [(t.at, end) for t, end in zip(own, ends, strict=True) if t.state == state]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the real model said through a proxy."""

    question: str
    text: str
    backend: str | None
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """Everything the summary claims; None is "not measured"."""

    answer: Answer | None
    requests: int
    requests_by_app: Mapping[str, int]
    streamed: int
    client_failures: Mapping[str, int]
    """By what was wrong."""
    retried: int
    seconds_to_exclude: float | None
    attempts_failed: int | None
    served_while_excluded: int | None
    """Requests that the excluded backend answered after a margin for those under way."""
    seconds_to_probation: float | None
    seconds_to_return: float | None
    share_before: float | None
    share_after: float | None
    score_before: int | None = None
    score_after: int | None = None
    seconds: float = 0.0


def share(outcomes: Iterable[Outcome], backend: str, *, start: float, end: float) -> float | None:
    """The part (0 to 1) of the requests begun in [start, end) that a backend answered."""
    served = [o.backend for o in outcomes if start <= o.began < end and o.backend is not None]
    return served.count(backend) / len(served) if served else None


def failures(outcomes: Iterable[Outcome]) -> dict[str, int]:
    """What clients saw go wrong, counted."""
    return dict(Counter(outcome.detail for outcome in outcomes if not outcome.ok))


def by_app(outcomes: Iterable[Outcome]) -> dict[str, int]:
    """Requests of each application."""
    return dict(Counter(outcome.app for outcome in outcomes))


def served_within(
    outcomes: Sequence[Outcome],
    backend: str,
    spans: Iterable[tuple[float, float]],
    *,
    margin: float = 1.0,
) -> int | None:
    """Requests that a backend answered, begun within the spans but for a margin at their start.

    Without a span nothing was measured.
    """
    spans = list(spans)
    if not spans:
        return None
    return sum(
        1
        for start, end in spans
        for outcome in outcomes
        if outcome.backend == backend and start + margin <= outcome.began < end
    )
