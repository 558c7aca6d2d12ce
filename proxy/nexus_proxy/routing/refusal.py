"""The rejections: what a client is told when no attempt can be made, with every reason there is."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from nexus_api import reasons
from nexus_proxy.routing.candidate import Backend, Candidate
from nexus_proxy.routing.leg import Leg
from nexus_proxy.routing.plan import Plan
from nexus_proxy.routing.reason import Reason, Rejection
from nexus_proxy.routing.request import Call

NO_BACKEND = "no_available_backend"
LISTED_MODELS = 50


def not_ready() -> Rejection:
    """The routing table is not there yet."""
    return Rejection(503, NO_BACKEND, "The proxy has no routing table yet", retry_after=1)


def model_not_found(
    name: str, known: Sequence[str], undiscovered: Sequence[Backend] = ()
) -> Rejection:
    """No backend serves a model of this name; those in `undiscovered` may, nobody knows yet."""
    available = f"Available: {_listed(known)}" if known else "No backend serves any model yet"
    silent = ""
    if undiscovered:
        names = _listed([backend.name for backend in undiscovered])
        they = "it" if len(undiscovered) == 1 else "they"
        silent = (
            f". The models of {names} are not known yet: see that {they} can be reached,"
            " or write spec.models"
        )
    message = f"Model {name!r} not found. {available}{silent}"
    return Rejection(404, "model_not_found", message, param="model")


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - LISTED_MODELS} more" if len(names) > LISTED_MODELS else ""
    return ", ".join(names[:LISTED_MODELS]) + more


def model_not_listed(name: str) -> Rejection:
    """GET /v1/models/NAME of a name that is not in the list."""
    message = f"Model {name!r} is not served now: GET /v1/models lists those that are"
    return Rejection(404, "model_not_found", message, param="model")


def incapable(name: str, plan: Plan) -> Rejection:
    """Backends serve the model, but none has what the request needs."""
    return Rejection(
        400,
        "missing_capability",
        f"No backend of model {name!r} can serve this request: missing {', '.join(plan.missing)}",
        reasons=tuple(reason for leg in plan.legs for reason in leg.sorted.reasons),
        param="model",
    )


def retries_spent(call: Call, why: str) -> Rejection:
    """Attempts failed, and there may be no further one."""
    return Rejection(
        503,
        NO_BACKEND,
        f"{len(call.tried)} attempts for model {call.model!r} failed, and {why}",
        reasons=tuple(_tried(call)),
    )


def no_backend(call: Call, plan: Plan, now: float) -> Rejection:
    """Every candidate is left out, full, resting or has failed for this request."""
    waiting = [entry for leg in plan.legs for entry in _waiting(leg, now)]
    left_out = [reason for leg in plan.legs for reason in leg.sorted.reasons]
    tried = {choice.candidate for choice, _ in call.tried}
    found = [*_tried(call), *left_out]
    found += [reason for candidate, reason, _ in waiting if candidate not in tried]
    if waiting and not left_out and all(_is_missing(c, call, end) for c, _, end in waiting):
        message = f"Model {call.model!r}: every backend that lists it answers 404"
        return Rejection(404, "model_not_found", message, tuple(found), param="model")
    known = [end for _, _, end in waiting if end != math.inf]
    known += [
        end
        for leg in plan.legs
        for candidate in leg.sorted.excluded
        if (end := candidate.subject.returns_at()) is not None
    ]
    return Rejection(
        503,
        NO_BACKEND,
        f"No backend can serve model {call.model!r} now",
        reasons=tuple(found),
        retry_after=max(1, math.ceil(min(known) - now)) if known else None,
    )


def not_served(call: Call, plan: Plan, now: float, *, why: str, retry_after: float) -> Rejection:
    """No place was found in time, or the call could not wait for one: `why` ends the message."""
    found = no_backend(call, plan, now)
    seconds = found.retry_after or max(1, math.ceil(retry_after))
    message = f"No place for model {call.model!r}: {why}"
    return Rejection(503, NO_BACKEND, message, found.reasons, retry_after=seconds)


def _is_missing(candidate: Candidate, call: Call, end: float) -> bool:
    return candidate.missing_until.get(call.endpoint) == end


def _tried(call: Call) -> Iterator[Reason]:
    for choice, outcome in call.tried:
        yield Reason(
            choice.candidate.backend.name,
            reasons.SCHEDULER_RECONCILER,
            f"The attempt failed: {outcome}",
            "Try again, or look at the backend",
        )


def _waiting(leg: Leg, now: float) -> Iterator[tuple[Candidate, Reason, float]]:
    """Candidates that could serve, were they not full or resting, each with the end of that."""
    answer = leg.sorted
    for candidate in (*answer.admitted, *answer.slow, *answer.probing):
        end = leg.unavailable_until(candidate, now)
        if end is not None:
            yield candidate, waiting_reason(leg, candidate, now, end), end


def waiting_reason(leg: Leg, candidate: Candidate, now: float, end: float) -> Reason:
    """Why a candidate cannot serve at this moment."""
    backend = candidate.backend
    if end == math.inf:
        why = f"At maxConcurrency with {backend.in_flight} requests in flight"
        action = "Try again, raise maxConcurrency or add a backend"
    elif candidate.resting_until == end:
        why = f"Resting for another {math.ceil(end - now)} s: the backend asked for it"
        action = "Try again then"
    else:
        why = f"The backend answered 404 for model {candidate.model!r}"
        action = "Check models[] of the LLMBackend"
    return Reason(backend.name, reasons.SCHEDULER_RECONCILER, why, action)
