"""A look at a backend that costs little, for the many of which nothing is to be said.

Promises that where `calm` is True no rule fires, for the backend, for it without some models or for
a model, and none of them is suspect: wherever every part of the evidence stays below a rate, any
sum of parts does, and rows and open breakers come in pulses alone. It may well be False where no
rule fires either: then the full evidence is looked at.
"""

from __future__ import annotations

from nexus_api.backend import SubjectState
from nexus_api.quantities import BASIS_POINTS
from nexus_quality.docket import Docket
from nexus_quality.evidence import ALIVE_SECONDS, used
from nexus_quality.ledger import Ledger, Reporter, Series
from nexus_quality.policy import Policy
from nexus_quality.window import Family

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
    return sum(
        now - reporter.heard <= ALIVE_SECONDS and any(map(used, reporter.of(uid).values()))
        for reporter in ledger.users(uid).values()
    )


def calm(
    ledger: Ledger,
    uid: str,
    policy: Policy,
    *,
    generation: int,
    now: float,
    known: dict[str, bool] | None = None,
) -> bool:
    """Whether nothing can be wrong, by outcomes tagged at or after `generation`.

    `known`: what was found of each reporter by an earlier look under the same generation and policy
    in the same ten seconds, less those that spoke of the backend since.
    """
    found = {} if known is None else known
    for name, reporter in ledger.users(uid).items():
        if name not in found:
            found[name] = _calm(reporter, uid, policy, generation, now)
        if not found[name]:
            return False
    return True


def _calm(reporter: Reporter, uid: str, policy: Policy, generation: int, now: float) -> bool:
    """The part of one reporter."""
    if _speaks(reporter, uid, now):
        return False
    threshold, window = policy.threshold_basis_points, policy.short_window_seconds
    hour = threshold if threshold < BASIS_POINTS else _NEVER
    short = min(hour, SUSPECT_BASIS_POINTS)
    for series in reporter.of(uid).values():
        if not _erring(series, generation):
            continue
        series.expire(now)
        if _reached(series, generation, hour) or _burst(series, generation, short, window, now):
            return False
    return True


def _speaks(reporter: Reporter, uid: str, now: float) -> bool:
    return any(
        uid in life.pulses and now - life.heard <= ALIVE_SECONDS
        for life in reporter.incarnations.values()
    )


def _erring(series: Series, generation: int) -> bool:
    """Whether there is any error in the hour or in the last ten minutes."""
    windows = series.windows
    return windows[Family.MINUTE].erring(generation) or windows[Family.TEN_SECONDS].erring(
        generation
    )


def _reached(series: Series, generation: int, threshold: int) -> bool:
    """Whether the rate of the hour reaches the threshold under any generation."""
    return any(
        part.errors and part.errors * BASIS_POINTS >= threshold * part.requests
        for part in series.windows[Family.MINUTE].parts(generation)
    )


def _burst(series: Series, generation: int, threshold: int, seconds: int, now: float) -> bool:
    """The same of the short window, there being one."""
    requests: dict[int, int] = {}
    errors: dict[int, int] = {}
    window = series.windows[Family.TEN_SECONDS]
    for tag, part in window.last_tagged(seconds, now, generation) if seconds else ():
        requests[tag] = requests.get(tag, 0) + part.requests
        errors[tag] = errors.get(tag, 0) + part.errors
    return any(n and n * BASIS_POINTS >= threshold * requests[tag] for tag, n in errors.items())
