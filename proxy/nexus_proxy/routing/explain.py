"""The decision for a request, spelled out for `/v1/explain`: every candidate's score or reason, and
who was drawn from.

It looks at the same plan the router chooses from and changes nothing: no attempt is counted, no
probe is taken.
"""

from __future__ import annotations

from typing import Any

from nexus_proxy.routing.candidate import Candidate
from nexus_proxy.routing.leg import Leg
from nexus_proxy.routing.reach import unverified
from nexus_proxy.routing.reason import Reason, Rejection
from nexus_proxy.routing.refusal import no_backend, waiting_reason
from nexus_proxy.routing.request import Call
from nexus_proxy.routing.router import Router
from nexus_proxy.routing.strategy import STRATEGIES
from nexus_quality import words

Explanation = dict[str, Any]

_WELL = frozenset(("Active", "SlowStart"))


def explain(router: Router, call: Call, now: float) -> Explanation:
    """The decision for a call as JSON-able data; `decision` is Route, Queue or Reject."""
    plan = router.plan(call)
    if isinstance(plan, Rejection):
        return {"model": call.model, "decision": "Reject", **_refused(plan)}
    width = STRATEGIES[router.table.rules.strategy].width
    legs = [_leg(leg, width, now) for leg in plan.legs]
    tiers = {
        entry["tier"]
        for leg in legs
        for entry in leg["candidates"]
        if entry["tier"] != "Out" and "unavailable" not in entry
    }
    probation = "Probation" not in tiers
    wait = None if tiers & _WELL else router.wait(call, plan, now, probation=probation)
    refused = {} if tiers or wait else _refused(no_backend(call, plan, now))
    queue = router.table.rules.queue
    return {
        "model": call.model,
        "decision": "Queue" if wait else "Route" if tiers else "Reject",
        **refused,
        "queue": {
            "enabled": queue.enabled,
            "waiting": router.counters.queue.depth,
            "max_size": queue.max_size,
            "max_wait_seconds": queue.max_wait_seconds,
            **({"waits_for": sorted(each.id for each in wait.backends)} if wait else {}),
        },
        "strategy": router.table.rules.strategy.value,
        "max_retries": router.table.rules.max_retries,
        "legs": legs,
    }


def _refused(rejection: Rejection) -> Explanation:
    return {
        "status": rejection.status,
        "code": rejection.code,
        "message": rejection.message,
        "rejection_reasons": [reason_data(reason) for reason in rejection.reasons],
    }


def reason_data(reason: Reason) -> dict[str, str]:
    """A reason as it stands in `error.context.rejection_reasons`."""
    return {
        "backend": reason.backend,
        "reconciler": reason.reconciler,
        "reason": reason.reason,
        "suggested_action": reason.suggested_action,
    }


def _leg(leg: Leg, width: int, now: float) -> Explanation:
    leg.settle(now)
    answer = leg.sorted
    near = {leg.members[number].backend.id for number in leg.board.near(width)}
    tiers: list[tuple[str, list[Candidate]]] = [
        ("Active", answer.admitted),
        ("SlowStart", answer.slow),
        ("Probation", answer.probing),
        ("Excluded", [c for c in answer.excluded if c.traits.least_bad]),
        ("Unhealthy", [c for c in answer.unhealthy if c.traits.least_bad]),
    ]
    entries = [
        _candidate(leg, tier, candidate, now) for tier, members in tiers for candidate in members
    ]
    named = {entry["backend"]: entry for entry in entries}
    for reason in answer.reasons:
        entry = named.get(reason.backend)
        if entry is None:
            entry = {"backend": reason.backend, "tier": "Out"}
            entries.append(entry)
        entry |= {key: value for key, value in reason_data(reason).items() if key != "backend"}
    return {
        "model": leg.model,
        "fallback": leg.fallback,
        "drawn_from": sorted(near),
        "candidates": entries,
    }


def _candidate(leg: Leg, tier: str, candidate: Candidate, now: float) -> Explanation:
    backend = candidate.backend
    entry: Explanation = {
        "backend": backend.name,
        "id": backend.id,
        "tier": tier,
        "score": leg.score(candidate, now),
        "in_flight": backend.in_flight,
        "latency_ms": round(backend.latency_ms, 1),
    }
    ttft_ms = candidate.subject.ttft_average_ms(now)
    if ttft_ms is not None:
        entry["avg_ttft_ms"] = ttft_ms
    if tier == "SlowStart":
        entry["admission"] = round(candidate.subject.admission(now), 3)
    if unverified(backend.origin):
        entry["notes"] = [words.UNVERIFIED.message]
    until = leg.unavailable_until(candidate, now)
    if until is not None:
        entry["unavailable"] = waiting_reason(leg, candidate, now, until).reason
    return entry
