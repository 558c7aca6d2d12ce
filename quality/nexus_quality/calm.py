"""A look at a backend that costs little, for the many of which nothing is to be said.

Promises that where `Calms.calm` is True no rule fires, for the backend, for it without some models
or for a model, and none of them is suspect: wherever every part of the evidence stays below a rate,
any sum of parts does, and rows and open breakers come in pulses alone. It may well be False where
no rule fires either: then the full evidence is looked at. A reporter is looked at again once it has
spoken, and after ten seconds if there was anything to see.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from nexus_api.backend import SubjectState
from nexus_api.quantities import BASIS_POINTS
from nexus_quality.docket import Docket
from nexus_quality.evidence import ALIVE_SECONDS
from nexus_quality.ledger import Ledger, Reporter, Series
from nexus_quality.policy import Policy
from nexus_quality.verdict import Verdict
from nexus_quality.window import Family

SUSPECT_BASIS_POINTS = 2500
_NEVER = BASIS_POINTS + 1
_TEN = int(Family.TEN_SECONDS)


def clean(docket: Docket) -> bool:
    """Whether a backend and its models are Active, with nothing on record and no other spec."""
    verdicts = docket.verdicts
    if docket.respecified or not _spotless(verdicts.backend):
        return False
    return not verdicts.models or all(map(_spotless, verdicts.models.values()))


def _spotless(verdict: Verdict) -> bool:
    return verdict.state is SubjectState.ACTIVE and not verdict.count


# What was found of a reporter. Silent: calm whatever the time, until it speaks, for it has no
# error and no pulse.
WORRYING, CALM, SILENT = 0, 1, 2


def look(reporter: Reporter, uid: str, policy: Policy, generation: int, now: float) -> int:
    """What is to be said of one reporter, by outcomes tagged at or after `generation`: a backend is
    calm where none is WORRYING.
    """
    found = SILENT
    for life in reporter.incarnations.values():
        if uid in life.pulses:
            if now - life.heard <= ALIVE_SECONDS:
                return WORRYING
            found = CALM
    threshold, window = policy.threshold_basis_points, policy.short_window_seconds
    hour = threshold if threshold < BASIS_POINTS else _NEVER
    short = min(hour, SUSPECT_BASIS_POINTS)
    for series in reporter.of(uid).values():
        if not _erring(series, generation):
            continue
        found = CALM
        series.expire(now)
        if _reached(series, generation, hour) or _burst(series, generation, short, window, now):
            return WORRYING
    return found


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


class _Looks:
    """What was found of one backend's reporters in the ten seconds `bucket`, under one generation
    and policy. `unseen`: to be looked at again; `worrying`: who is, of those that were looked at.
    """

    __slots__ = ("bucket", "found", "generation", "policy", "unseen", "worrying")

    def __init__(self, bucket: int, generation: int, policy: Policy, unseen: Iterable[str]) -> None:
        self.bucket, self.generation, self.policy = bucket, generation, policy
        self.found: dict[str, int] = {}
        self.unseen = dict.fromkeys(unseen)
        self.worrying: set[str] = set()

    def renew(self, bucket: int) -> None:
        """Ten seconds are over: whoever is silent stays so until it speaks."""
        self.bucket = bucket
        self.unseen.update((name, None) for name, found in self.found.items() if found != SILENT)
        self.worrying.clear()


class Calms:
    """What was found of each backend's reporters, for as long as it is still so."""

    def __init__(self) -> None:
        self._known: dict[str, _Looks] = {}

    def clear(self) -> None:
        """Forget everything."""
        self._known.clear()

    def forget(self, uid: str) -> None:
        """Forget a backend."""
        self._known.pop(uid, None)

    def heard(self, uids: Iterable[str], reporter: str) -> None:
        """A reporter spoke of some backends."""
        for uid in uids:
            if (known := self._known.get(uid)) is not None:
                known.unseen[reporter] = None
                known.worrying.discard(reporter)

    def calm(self, ledger: Ledger, docket: Docket, now: float) -> bool:
        """Whether a backend with a clean record needs no closer look."""
        if not clean(docket):
            return False
        uid, policy, generation = (
            docket.facts.uid,
            docket.policy,
            docket.verdicts.backend.generation,
        )
        bucket, known = int(now // _TEN), self._known.get(uid)
        if known is None or known.generation != generation or not _same(known.policy, policy):
            known = self._known[uid] = _Looks(bucket, generation, policy, ledger.users(uid))
        elif known.bucket != bucket:
            known.renew(bucket)
        if known.unseen and not known.worrying:
            _look_on(known, ledger.users(uid), uid, now)
        return not known.worrying


def _same(one: Policy, other: Policy) -> bool:
    return one is other or one == other


def _look_on(known: _Looks, users: Mapping[str, Reporter], uid: str, now: float) -> None:
    """Look at those unseen until one worries."""
    while known.unseen and not known.worrying:
        name = next(iter(known.unseen))
        del known.unseen[name]
        reporter = users.get(name)
        if reporter is None:
            known.found.pop(name, None)
            continue
        found = known.found[name] = look(reporter, uid, known.policy, known.generation, now)
        if found == WORRYING:
            known.worrying.add(name)
