"""A look at a backend that costs little, for the many of which nothing is to be said.

Promises that where `calm` is True no rule fires, for the backend, for it without some models or for
a model, and none of them is suspect: wherever every part of the evidence stays below a rate, any
sum of parts does, and rows and open breakers come in pulses alone. It may well be False where no
rule fires either: then the full evidence is looked at.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum

from nexus_api.backend import SubjectState
from nexus_api.quantities import BASIS_POINTS
from nexus_quality.docket import Docket
from nexus_quality.evidence import ALIVE_SECONDS, used
from nexus_quality.ledger import Ledger, Reporter, Series
from nexus_quality.policy import Policy

SUSPECT_BASIS_POINTS = 2500
_NEVER = BASIS_POINTS + 1


def clean(docket: Docket) -> bool:
    """Whether a backend and its models are Active, with nothing on record and no other spec."""
    verdicts = docket.verdicts
    return not docket.respecified and all(
        verdict.state is SubjectState.ACTIVE and not verdict.count
        for verdict in (verdicts.backend, *verdicts.models.values())
    )


def users(ledger: Ledger, uid: str, now: float) -> int:
    """How many living reporters used a backend in the last hour."""
    found = 0
    for reporter in ledger.users(uid).values():
        if now - reporter.heard <= ALIVE_SECONDS:
            for series in reporter.of(uid).values():
                if used(series):
                    found += 1
                    break
    return found


class Look(IntEnum):
    """What was found of a reporter."""

    WORRYING = 0
    CALM = 1
    SILENT = 2  # calm whatever the time, until it speaks: it has no error and no pulse


def silent(known: Mapping[str, Look]) -> dict[str, Look]:
    """What is still known when ten seconds are over."""
    return {name: look for name, look in known.items() if look is Look.SILENT}


def calm(
    ledger: Ledger,
    uid: str,
    policy: Policy,
    *,
    generation: int,
    now: float,
    known: dict[str, Look] | None = None,
) -> bool:
    """Whether nothing can be wrong, by outcomes tagged at or after `generation`.

    `known`: what was found of each reporter by an earlier look under the same generation and policy
    in the same ten seconds, less those that spoke of the backend since.
    """
    found = {} if known is None else known
    for name, reporter in ledger.users(uid).items():
        look = found.get(name)
        if look is None:
            look = found[name] = _look(reporter, uid, policy, generation, now)
        if look is Look.WORRYING:
            return False
    return True


def _look(reporter: Reporter, uid: str, policy: Policy, generation: int, now: float) -> Look:
    """The part of one reporter."""
    look = Look.SILENT
    for life in reporter.incarnations.values():
        if uid in life.pulses:
            if now - life.heard <= ALIVE_SECONDS:
                return Look.WORRYING
            look = Look.CALM
    threshold, window = policy.threshold_basis_points, policy.short_window_seconds
    hour = threshold if threshold < BASIS_POINTS else _NEVER
    short = min(hour, SUSPECT_BASIS_POINTS)
    for series in reporter.of(uid).values():
        if not _erring(series, generation):
            continue
        look = Look.CALM
        series.expire(now)
        if _reached(series, generation, hour) or _burst(series, generation, short, window, now):
            return Look.WORRYING
    return look


def _erring(series: Series, generation: int) -> bool:
    """Whether there is any error in the hour or in the last ten minutes."""
    return series.minutes.erring(generation) or series.tens.erring(generation)


def _reached(series: Series, generation: int, threshold: int) -> bool:
    """Whether the rate of the hour reaches the threshold under any generation."""
    return any(
        part.errors and part.errors * BASIS_POINTS >= threshold * part.requests
        for part in series.minutes.parts(generation)
    )


def _burst(series: Series, generation: int, threshold: int, seconds: int, now: float) -> bool:
    """The same of the short window, there being one."""
    requests: dict[int, int] = {}
    errors: dict[int, int] = {}
    window = series.tens
    for tag, part in window.last_tagged(seconds, now, generation) if seconds else ():
        requests[tag] = requests.get(tag, 0) + part.requests
        errors[tag] = errors.get(tag, 0) + part.errors
    return any(n and n * BASIS_POINTS >= threshold * requests[tag] for tag, n in errors.items())
