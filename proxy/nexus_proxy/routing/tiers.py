"""The order in which candidates are used: ordinary traffic first, the last resort last.

`ORDINARY` and `LAST_RESORT` are tuples of small functions from a leg to a `Choice` or None. A
candidate that privacy, budget, tier, credentials or a suspension left out is in no tier: the last
resort loosens the verdict and health, nothing else. Every attempt of the last resort is marked, so
that its outcome never moves a verdict.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from nexus_proxy.routing.candidate import Candidate
from nexus_proxy.routing.choice import LAST_RESORT as LAST_RESORT_REASON
from nexus_proxy.routing.choice import Choice
from nexus_proxy.routing.leg import Leg
from nexus_proxy.routing.strategy import NEAR_POINTS


class Asking:
    """One request asking the tiers: when, by which name, with what chance, and what it has
    tried.
    """

    __slots__ = ("now", "random", "repeat", "requested", "tried")

    def __init__(
        self,
        now: float,
        random: Callable[[], float],
        requested: str,
        tried: Collection[Candidate] = (),
    ) -> None:
        self.now = now
        self.random = random
        self.requested = requested
        self.tried = tried
        self.repeat = False  # the last resort may use again what was tried


Tier = Callable[[Leg, Asking], Choice | None]


def admitted(leg: Leg, asking: Asking) -> Choice | None:
    """Active, and in slow start those that chance admits."""
    return leg.pick(asking.now, asking.tried)


def not_admitted(leg: Leg, asking: Asking) -> Choice | None:
    """Active, but in slow start and not admitted to this request."""
    able = _able(leg, leg.sorted.slow, asking)
    if not able:
        return None
    scores = [leg.score(candidate, asking.now) for candidate in able]
    near = [c for c, score in zip(able, scores, strict=True) if score >= max(scores) - NEAR_POINTS]
    return leg.choice(_less_loaded(near, asking), asking.requested)


def not_drawn(leg: Leg, asking: Asking) -> Choice | None:
    """On probation, and not drawn to probe; with `Reject` only where nothing else is configured."""
    alone = len(leg.sorted.probing) == leg.sorted.configured
    able = [
        candidate
        for candidate in _able(leg, leg.sorted.probing, asking)
        if candidate.traits.least_bad or alone
    ]
    if not able:
        return None
    return _last_resort(leg, _less_loaded(able, asking), asking)


def excluded(leg: Leg, asking: Asking) -> Choice | None:
    """Out by the verdict or by this proxy's breaker, where the policy says LeastBad."""
    return _least_bad(leg, leg.sorted.excluded, asking)


def unhealthy(leg: Leg, asking: Asking) -> Choice | None:
    """Out because their probes fail, where the policy says LeastBad."""
    return _least_bad(leg, leg.sorted.unhealthy, asking)


ORDINARY: tuple[Tier, ...] = (admitted, not_admitted, not_drawn)
LAST_RESORT: tuple[Tier, ...] = (excluded, unhealthy)


def probe(leg: Leg, asking: Asking) -> Candidate | None:
    """The candidate on probation that must have this request; counts it for all that the verdict
    keeps out.
    """
    wanting: Candidate | None = None
    for candidate in leg.sorted.excluded:
        candidate.subject.kept_out(asking.now)
    for candidate in leg.sorted.probing:
        candidate.subject.kept_out(asking.now)
        free = wanting is None and leg.unavailable_until(candidate, asking.now) is None
        if free and candidate.subject.wants_probe(asking.now):
            wanting = candidate
    return wanting


def _able(leg: Leg, candidates: Sequence[Candidate], asking: Asking) -> list[Candidate]:
    return [
        candidate
        for candidate in candidates
        if candidate not in asking.tried and leg.unavailable_until(candidate, asking.now) is None
    ]


def _less_loaded(candidates: Sequence[Candidate], asking: Asking) -> Candidate:
    start = int(asking.random() * len(candidates))
    turned = [*candidates[start:], *candidates[:start]]
    return min(turned, key=lambda candidate: candidate.backend.in_flight)


def _least_bad(leg: Leg, candidates: Sequence[Candidate], asking: Asking) -> Choice | None:
    able = [
        candidate
        for candidate in candidates
        if candidate.traits.least_bad
        and (asking.repeat or candidate not in asking.tried)
        and leg.unavailable_until(candidate, asking.now) is None
    ]
    if not able:
        return None
    return _last_resort(leg, _drawn_by_weight(able, asking), asking)


def _drawn_by_weight(candidates: Sequence[Candidate], asking: Asking) -> Candidate:
    weights = [candidate.subject.weight(asking.now) for candidate in candidates]
    left = asking.random() * sum(weights)
    drawn = len(weights) - 1
    for number, weight in enumerate(weights):
        left -= weight
        if left < 0:
            drawn = number
            break
    alike = [c for c, weight in zip(candidates, weights, strict=True) if weight == weights[drawn]]
    return _less_loaded(alike, asking)


def _last_resort(leg: Leg, candidate: Candidate, asking: Asking) -> Choice:
    return leg.choice(candidate, asking.requested).marked(LAST_RESORT_REASON, last_resort=True)
