"""A look at a backend that costs little, for the many of which nothing is to be said.

Promises that where `calm` is True no rule fires, for the backend, for it without some models or for
a model, and none of them is suspect: wherever every part of the evidence stays below a rate, any
sum of parts does, and rows and open breakers come in pulses alone. It may well be False where no
rule fires either: then the full evidence is looked at.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from nexus_api.backend import SubjectState
from nexus_api.quantities import BASIS_POINTS
from nexus_quality.docket import Docket
from nexus_quality.evidence import ALIVE_SECONDS, used
from nexus_quality.ledger import Ledger, Reporter, Series
from nexus_quality.policy import Policy
from nexus_quality.window import Family

SUSPECT_BASIS_POINTS = 2500
_NEVER = BASIS_POINTS + 1
_TEN = int(Family.TEN_SECONDS)


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


# What was found of a reporter. Silent: calm whatever the time, until it speaks, for it has no
# error and no pulse.
WORRYING, CALM, SILENT = 0, 1, 2


def silent(known: Mapping[str, int]) -> dict[str, int]:
    """What is still known when ten seconds are over."""
    return {name: look for name, look in known.items() if look == SILENT}


def calm(
    ledger: Ledger,
    uid: str,
    policy: Policy,
    *,
    generation: int,
    now: float,
    known: dict[str, int] | None = None,
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
        if not look:
            return False
    return True


def _look(reporter: Reporter, uid: str, policy: Policy, generation: int, now: float) -> int:
    """The part of one reporter."""
    look = SILENT
    for life in reporter.incarnations.values():
        if uid in life.pulses:
            if now - life.heard <= ALIVE_SECONDS:
                return WORRYING
            look = CALM
    threshold, window = policy.threshold_basis_points, policy.short_window_seconds
    hour = threshold if threshold < BASIS_POINTS else _NEVER
    short = min(hour, SUSPECT_BASIS_POINTS)
    for series in reporter.of(uid).values():
        if not _erring(series, generation):
            continue
        look = CALM
        series.expire(now)
        if _reached(series, generation, hour) or _burst(series, generation, short, window, now):
            return WORRYING
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


class Calms:
    """What was found of each backend's reporters, for as long as it is still so."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[tuple[int, int, Policy], dict[str, int]]] = {}

    def clear(self) -> None:
        """Forget everything."""
        self._known.clear()

    def forget(self, uid: str) -> None:
        """Forget a backend."""
        self._known.pop(uid, None)

    def heard(self, uids: Collection[str], reporter: str) -> None:
        """A reporter spoke of some backends."""
        for uid in uids:
            if (known := self._known.get(uid)) is not None:
                known[1].pop(reporter, None)

    def calm(self, ledger: Ledger, docket: Docket, now: float) -> bool:
        """Whether a backend with a clean record needs no closer look."""
        if not clean(docket):
            return False
        uid, policy, generation = (
            docket.facts.uid,
            docket.policy,
            docket.verdicts.backend.generation,
        )
        key = (int(now // _TEN), generation, policy)
        known = self._known.get(uid)
        if known is None or known[0] != key:
            same = known is not None and known[0][1:] == key[1:]
            known = self._known[uid] = (key, silent(known[1]) if known and same else {})
        return calm(ledger, uid, policy, generation=generation, now=now, known=known[1])
