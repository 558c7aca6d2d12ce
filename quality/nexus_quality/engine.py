"""The fleet's quality engine: reports in, verdicts and figures out.

Promises the contract's shared verdict for every backend: the same reports in any order give the
same counters, and a verdict moves only by a row of `verdict.TRANSITIONS` and only once its write
was accepted (S18). It does no I/O; the operator and the standalone mode drive it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from nexus_api import reasons
from nexus_api.backend import LLMBackendStatus, SubjectState
from nexus_api.pace import paced
from nexus_quality.assessment import Assessment, within_policy
from nexus_quality.evidence import ALIVE_SECONDS, Share, Sums, shares
from nexus_quality.figures import Figures, figures
from nexus_quality.ledger import Growth, Ledger
from nexus_quality.policy import Policy
from nexus_quality.published import verdict_from_status
from nexus_quality.report import Answer, Report
from nexus_quality.rules import Firing, fire
from nexus_quality.sketch import value_of
from nexus_quality.verdict import LATE_SECONDS, Facts, Probes, Verdict, step
from nexus_quality.window import Family

STARTING_SECONDS = paced(60.0)
SUSPECT_ROW = 3
SUSPECT_ERRORS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendFacts:
    """What the engine knows of a backend's spec; `fingerprint` changes with what makes it new."""

    uid: str
    namespace: str
    name: str
    fingerprint: str
    models: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Transition:
    """A change of state that wants a write. `event`: the reason of its Event."""

    uid: str
    row: str
    before: Verdict
    after: Verdict
    event: str
    message: str


@dataclass(frozen=True, slots=True)
class Merged:
    """What came of a report: the backends it touched, the answer to give."""

    touched: frozenset[str]
    answer: Answer


@dataclass(frozen=True, slots=True)
class Observation:
    """`count` live TTFT samples of about `milliseconds`, for a histogram."""

    uid: str
    model: str
    milliseconds: float
    count: int


@dataclass(slots=True)
class _Backend:
    facts: BackendFacts
    policy: Policy
    verdict: Verdict
    respecified: bool = False
    edited: bool = False
    expected: int = 0


class Engine:
    """All backends of one operator, or of one standalone proxy. `now`: epoch seconds."""

    def __init__(self, *, epoch: str, started: float, random: Callable[[], float]) -> None:
        self.epoch, self.started = epoch, started
        self._random = random
        self._ledger = Ledger(started)
        self._backends: dict[str, _Backend] = {}
        self._observations: list[Observation] = []

    def upsert(self, facts: BackendFacts, policy: Policy, now: float) -> None:
        """A backend appeared, or its spec or policy changed (S15, S16)."""
        known = self._backends.get(facts.uid)
        if known is None:
            self._backends[facts.uid] = _Backend(facts, policy, Verdict(calm_since=now))
            return
        known.respecified |= known.facts.fingerprint != facts.fingerprint
        known.edited |= known.policy != policy
        known.facts, known.policy = facts, policy

    def restore(self, uid: str, status: LLMBackendStatus, now: float) -> None:
        """Take a verdict over from a status, at the start; the backend must be known."""
        backend = self._backends[uid]
        backend.verdict = verdict_from_status(status, now)
        backend.edited = True
        backend.expected = (status.quality.reporters or 0) if status.quality else 0

    def remove(self, uid: str) -> None:
        """A backend was deleted: its history goes with its UID."""
        self._backends.pop(uid, None)
        self._ledger.forget(uid)

    def backends(self) -> list[str]:
        """The UIDs of all backends."""
        return list(self._backends)

    def verdict(self, uid: str) -> Verdict:
        """The verdict as last accepted."""
        return self._backends[uid].verdict

    def policy(self, uid: str) -> Policy:
        """The policy in force."""
        return self._backends[uid].policy

    def merge(self, reporter: str, report: Report, now: float) -> Merged:
        """Take a report in; whatever in it cannot be is refused and disturbs nothing else."""
        taken = self._ledger.take(reporter, report, now, self._backends)
        self._observe(taken.growth)
        suspects = tuple(sorted(uid for uid in taken.touched if self._suspect(uid, now)))
        answer = Answer(epoch=self.epoch, suspects=suspects, refused=taken.refused)
        return Merged(taken.touched, answer)

    def wanted(self, uid: str, now: float) -> Transition | None:
        """The change of state a backend wants now; changes without one are made at once."""
        backend = self._backends[uid]
        parts = self._shares(backend, now)
        firing = self._firing(backend, parts, now)
        for _ in range(4):
            facts = self._facts(backend, parts, firing, now)
            taken = step(backend.verdict, facts)
            if taken is None:
                backend.edited = False
                return None
            if taken.moves:
                return _transition(uid, taken.row, backend.verdict, taken.verdict)
            backend.verdict = taken.verdict
        return None

    def accept(self, transition: Transition, now: float) -> None:
        """The write of a transition was accepted: from here on it holds."""
        backend = self._backends.get(transition.uid)
        if backend is None:
            return
        backend.verdict = transition.after
        # Edits that came while the write was under way are still to be judged.
        if transition.row == "S15":
            backend.respecified = False

    def assess(self, uid: str, now: float) -> Assessment:
        """The verdict and what to say of it."""
        backend = self._backends[uid]
        parts = self._shares(backend, now)
        traffic = self._traffic(uid, parts, now)
        within = within_policy(
            backend.verdict,
            self._firing(backend, parts, now),
            backend.policy,
            traffic=traffic,
            starting=now - self.started < STARTING_SECONDS,
        )
        return Assessment(backend.verdict, within, traffic, len(parts))

    def figures(self, uid: str, now: float) -> Figures:
        """The figures to publish, of all generations."""
        return figures(self._ledger, uid, now)

    def expire(self, now: float) -> None:
        """Let go of what left the windows; to be called now and then."""
        self._ledger.expire(now)

    def deadline(self) -> float | None:
        """The earliest `until` of an excluded backend."""
        ends = [
            b.verdict.until
            for b in self._backends.values()
            if b.verdict.state is SubjectState.EXCLUDED and b.verdict.until is not None
        ]
        return min(ends, default=None)

    def drain_observations(self) -> list[Observation]:
        """The live TTFT samples since the last call; replayed ones are never among them."""
        drained, self._observations = self._observations, []
        return drained

    def _observe(self, growth: tuple[Growth, ...]) -> None:
        for grown in growth:
            if grown.cell.family == Family.MINUTE and not grown.replayed:
                self._observations.extend(
                    Observation(grown.cell.uid, grown.cell.model, value_of(index), n)
                    for index, n in grown.counts.ttft_bins.items()
                )

    def _shares(self, backend: _Backend, now: float) -> tuple[Share, ...]:
        verdict, policy = backend.verdict, backend.policy
        since = now if verdict.until is None else verdict.until
        return shares(
            self._ledger,
            backend.facts.uid,
            now=now,
            generation=verdict.generation,
            short_window_seconds=policy.short_window_seconds,
            recent_seconds=max(0.0, now - since),
        )

    def _firing(self, backend: _Backend, parts: tuple[Share, ...], now: float) -> Firing | None:
        verdict, policy = backend.verdict, backend.policy
        if policy.recovery_enabled or verdict.state is not SubjectState.EXCLUDED:
            return fire(parts, policy, now)
        # S9 asks the windows as they are: of every generation, of silent reporters as well.
        everything = shares(
            self._ledger,
            backend.facts.uid,
            now=now,
            generation=0,
            short_window_seconds=policy.short_window_seconds,
            recent_seconds=0.0,
            silent=True,
        )
        return fire(everything, policy, now)

    def _facts(
        self, backend: _Backend, parts: tuple[Share, ...], firing: Firing | None, now: float
    ) -> Facts:
        verdict, policy = backend.verdict, backend.policy
        until = verdict.until
        heard = sum(part.complete for part in parts)
        young = now - self.started < STARTING_SECONDS
        unheard = young and heard < backend.expected
        eligible = _eligible(parts)
        return Facts(
            now=now,
            policy=policy,
            next_generation=verdict.generation + 1,
            firing=firing,
            young=young,
            unheard=unheard,
            starting=unheard and len(parts) < policy.min_reporters,
            probes=_probes(parts),
            eligible_rate=sum(eligible.values()),
            eligible_reporters=tuple(name for name, rate in eligible.items() if rate > 0.0),
            recent_successes=sum(p.recent_requests - p.recent_errors for p in parts),
            late=until is not None and (now - until > LATE_SECONDS or self.started > until),
            respecified=backend.respecified,
            policy_edited=backend.edited,
            random=self._random,
        )

    def _suspect(self, uid: str, now: float) -> bool:
        sums = Sums.of(self._shares(self._backends[uid], now))
        if sums.row >= SUSPECT_ROW:
            return True
        return sums.short_errors >= SUSPECT_ERRORS and 4 * sums.short_errors >= sums.short_requests

    def _traffic(self, uid: str, parts: tuple[Share, ...], now: float) -> str:
        if parts:
            return reasons.ACTIVE
        users = [r for r in self._ledger.reporters.values() if not r.gone and r.of(uid)]
        if users and all(now - user.heard > ALIVE_SECONDS for user in users):
            return reasons.REPORTS_STALE
        return reasons.NO_TRAFFIC


def _eligible(parts: tuple[Share, ...]) -> dict[str, float]:
    """Eligible requests a second per reporter; a claim beyond all others is cut to the next."""
    rates = sorted((p.eligible for p in parts), reverse=True)
    most = rates[1] if len(rates) > 1 and rates[1] > 0.0 else rates[0] if rates else 0.0
    return {p.reporter: min(p.eligible, most) for p in parts}


def _probes(parts: tuple[Share, ...]) -> Probes:
    return Probes(
        unanswered=sum(p.probing for p in parts),
        successes=sum(p.probe_successes for p in parts),
        failures=sum(p.probe_failures for p in parts),
        failed_by=tuple(p.reporter for p in parts if p.probe_failures),
    )


EVENTS = {
    "S1": reasons.EVENT_EXCLUDED,
    "S7": reasons.EVENT_PROBATION,
    "S8": reasons.EVENT_RECOVERED,
    "S9": reasons.EVENT_RECOVERED,
    "S11": reasons.EVENT_RECOVERED,
    "S12": reasons.EVENT_EXCLUDED,
    "S15": reasons.EVENT_RELEASED,
    "S16": reasons.EVENT_RELEASED,
}
MESSAGES = {
    "S7": "The exclusion ended; probing requests decide",
    "S8": "It served well while the operator was away",
    "S9": "No rule fires any more",
    "S11": "The probing requests succeeded; traffic comes back by slow start",
    "S15": "The spec changed: judged as a new backend",
    "S16": "The policy was edited: its evidence no longer excludes",
}


def _transition(uid: str, row: str, before: Verdict, after: Verdict) -> Transition:
    message = MESSAGES.get(row) or (after.firing.reason if after.firing else "")
    return Transition(
        uid=uid, row=row, before=before, after=after, event=EVENTS[row], message=message
    )
