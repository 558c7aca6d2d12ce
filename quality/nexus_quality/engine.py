"""The fleet's quality engine: reports in, verdicts and figures out.

Promises the contract's shared verdict for every backend: the same reports in any order give the
same counters, and a verdict moves only by a row of `verdict.TRANSITIONS` and only once its write
was accepted (S18). It does no I/O; the operator and the standalone mode drive it. What a backend
wants is worked out in `docket`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from nexus_api import reasons
from nexus_api.backend import LLMBackendStatus, Quality
from nexus_quality.absence import await_the_living
from nexus_quality.assessment import Assessment, within_policy
from nexus_quality.docket import EVENTS, BackendFacts, Docket, Transition
from nexus_quality.evidence import ALIVE_SECONDS, Share, Sums
from nexus_quality.figures import Figures, figures, quality
from nexus_quality.firing import Firing
from nexus_quality.hearing import STARTING_SECONDS, Hearing
from nexus_quality.ledger import Growth, Ledger
from nexus_quality.limits import Known
from nexus_quality.policy import Policy
from nexus_quality.published import verdicts_from_status
from nexus_quality.remembered import Remembered, is_steady
from nexus_quality.report import Answer, Report, taken_by
from nexus_quality.sketch import value_of
from nexus_quality.verdict import Verdict
from nexus_quality.verdicts import Verdicts
from nexus_quality.window import Family

__all__ = [
    "EVENTS",
    "STARTING_SECONDS",
    "BackendFacts",
    "Engine",
    "Merged",
    "Observation",
    "Transition",
]

SUSPECT_ROW = 3
SUSPECT_ERRORS = 3


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


class Engine:
    """All backends of one operator, or of one standalone proxy. `now`: epoch seconds."""

    def __init__(self, *, epoch: str, started: float, random: Callable[[], float]) -> None:
        self.epoch, self.started = epoch, started
        self.listening = started  # since when reports are taken without a gap
        self._random = random
        self._ledger = Ledger(started)
        self._backends: dict[str, Docket] = {}
        self._observations: list[Observation] = []
        self._remembered = Remembered()
        self._moved: set[str] = set()
        self._ends: dict[str, float] = {}
        self._heard: tuple[tuple[object, ...], Hearing] | None = None

    def upsert(self, facts: BackendFacts, policy: Policy, now: float) -> None:
        """A backend appeared, or its spec or policy changed (S15, S16)."""
        self._moved.add(facts.uid)
        known = self._backends.get(facts.uid)
        if known is None:
            clean = Verdicts(backend=Verdict(calm_since=now))
            self._backends[facts.uid] = Docket(facts, policy, clean)
            return
        known.respecified |= known.facts.fingerprint != facts.fingerprint
        known.edited |= known.policy != policy
        known.facts, known.policy = facts, policy
        if facts.models is not None:
            known.verdicts = known.verdicts.only(frozenset(facts.models))

    def restore(self, uid: str, status: LLMBackendStatus, now: float) -> None:
        """Take the verdicts over from a status, at the start; the backend must be known."""
        self._moved.add(uid)
        docket = self._backends[uid]
        docket.verdicts = verdicts_from_status(status, now)
        docket.edited = True
        docket.expected = (status.quality.reporters or 0) if status.quality else 0

    def resume(self, since: float, now: float) -> None:
        """Reports are taken again, after none was since `since`: what nobody could say meanwhile is
        waited for as after a start.
        """
        for uid, docket in self._backends.items():
            docket.expected = self._remembered.attendance.users(self._ledger, uid, since)
        await_the_living(self._ledger, since)
        self._remembered.clear()
        self.listening, self._heard = now, None

    def collecting(self, uid: str, reporters: int, now: float) -> bool:
        """Whether this process listens so lately that some of a backend's users may be unheard;
        `reporters`: how many are known to be alive.
        """
        if now - self.listening >= STARTING_SECONDS:
            return False
        unheard = reporters < max(1, self._backends[uid].expected)
        return unheard or (self.listening > self.started and self._ledger.awaits(uid))

    def remove(self, uid: str) -> None:
        """A backend was deleted: its history goes with its UID."""
        self._backends.pop(uid, None)
        self._moved.add(uid)
        self._remembered.forget(uid)
        self._heard = None
        self._ledger.forget(uid)

    @property
    def ledger(self) -> Ledger:
        """What the fleet reported."""
        return self._ledger

    def remember(self, ledger: Ledger) -> None:
        """Take the place of an earlier process, before anything was reported to this one.

        Of backends that are not known any more nothing stays.
        """
        self._ledger = ledger
        self._remembered.clear()
        for uid in ledger.uids():
            if uid not in self._backends:
                ledger.forget(uid)

    def backends(self) -> list[str]:
        """The UIDs of all backends."""
        return list(self._backends)

    def knows(self, uid: str) -> bool:
        """Whether there is such a backend."""
        return uid in self._backends

    def fingerprint(self, uid: str) -> str:
        """What of a backend's spec the verdict is about, as last seen."""
        return self._backends[uid].facts.fingerprint

    def verdict(self, uid: str) -> Verdict:
        """The verdict on a backend as last accepted."""
        return self._backends[uid].verdicts.backend

    def verdicts(self, uid: str) -> Verdicts:
        """The verdicts on a backend and its models as last accepted."""
        return self._backends[uid].verdicts

    def policy(self, uid: str) -> Policy:
        """The policy in force."""
        return self._backends[uid].policy

    def merge(self, reporter: str, report: Report, now: float) -> Merged:
        """Take a report in; whatever in it cannot be is refused and disturbs nothing else."""
        self._heard = None
        report = taken_by(report, self.epoch)
        steady = is_steady(self._ledger, reporter, now)
        taken = self._ledger.take(reporter, report, now, self._backends, self._known)
        self._observe(taken.growth)
        self._remembered.heard(self._ledger, reporter, taken.touched, steady=steady)
        suspects = tuple(sorted(uid for uid in taken.touched if self.suspect(uid, now)))
        answer = Answer(epoch=self.epoch, suspects=suspects, refused=taken.refused)
        return Merged(taken.touched, answer)

    def _known(self, uid: str) -> Known:
        """What a report on a backend is held against."""
        docket = self._backends[uid]
        return Known(docket.facts.models, docket.verdicts.generation)

    def wanted(self, uid: str, now: float) -> Transition | None:
        """The change of state a backend or one of its models wants now; changes without one are
        made at once.
        """
        if self._calm(uid, now):
            self._backends[uid].edited = False
            return None
        self._moved.add(uid)
        return self.hearing(uid, now).wanted()

    def accept(self, transition: Transition, now: float) -> None:
        """The write of a transition was accepted: from here on it holds."""
        self._moved.add(transition.uid)
        docket = self._backends.get(transition.uid)
        if docket is None:
            return
        verdicts = transition.verdicts
        if transition.model:
            # What became of other subjects while the write was under way stays.
            verdicts = docket.verdicts.taken(transition.model, transition.after)
        # Edits that came while the write was under way are still to be judged, another spec too;
        # and of models that it no longer has nothing comes back.
        models, judged = docket.facts.models, transition.fingerprint
        docket.verdicts = verdicts if models is None else verdicts.only(frozenset(models))
        if transition.row == "S15":
            docket.respecified = docket.facts.fingerprint != judged

    def assess(self, uid: str, now: float) -> Assessment:
        """The verdicts and what to say of them."""
        docket = self._backends[uid]
        firing: Firing | None = None
        if self._calm(uid, now):
            reporters = self._remembered.attendance.users(self._ledger, uid, now)
        else:
            hearing = self.hearing(uid, now)
            reporters, firing = len(hearing.whole()), hearing.firing()
        traffic = self._traffic(uid, now, used=reporters > 0)
        within = within_policy(
            docket.verdicts,
            firing,
            docket.policy,
            traffic=traffic,
            starting=self.collecting(uid, reporters, now),
        )
        return Assessment(docket.verdicts, within, traffic, reporters)

    def figures(self, uid: str, now: float) -> Figures:
        """The figures to publish, of all generations."""
        return figures(self._ledger, uid, now)

    def quality(self, uid: str, now: float) -> Quality | None:
        """The figures of the backend as a whole, as they would be published."""
        return quality(self._ledger, uid, now)

    def expire(self, now: float) -> None:
        """Let go of what left the windows; to be called now and then."""
        for _ in self.expiring(now):
            pass

    def expiring(self, now: float) -> Iterator[None]:
        """The same in small steps; reports may come in between."""
        for _ in self._ledger.expiring(now):
            self._heard = None
            yield
        self._heard = None

    def ends(self) -> dict[str, float]:
        """The earliest `until` of each backend that is Excluded or has a model that is."""
        for uid in self._moved:
            docket = self._backends.get(uid)
            end = None if docket is None else docket.verdicts.end()
            if end is None:
                self._ends.pop(uid, None)
            else:
                self._ends[uid] = end
        self._moved.clear()
        return dict(self._ends)

    def deadline(self) -> float | None:
        """The earliest `until` of all."""
        return min(self.ends().values(), default=None)

    def drain_observations(self) -> list[Observation]:
        """The live TTFT samples since the last call; replayed ones are never among them."""
        drained, self._observations = self._observations, []
        return drained

    def _observe(self, growth: tuple[Growth, ...]) -> None:
        for grown in growth:
            if grown.family == Family.MINUTE and not grown.replayed:
                self._observations.extend(
                    Observation(grown.uid, grown.model, value_of(index), n)
                    for index, n in grown.counts.ttft_bins.items()
                )

    def hearing(self, uid: str, now: float) -> Hearing:
        """What is known of a backend; the same one while moment, record and policy are."""
        docket = self._backends[uid]
        key = (uid, now, self._ledger, docket.verdicts, docket.policy)
        if self._heard is None or self._heard[0] != key:
            hearing = self._hear(docket, now)
            self._remembered.shown[uid] = hearing.evidence.shown
            self._heard = (key, hearing)
        return self._heard[1]

    def firing_under(self, uid: str, policy: Policy, now: float) -> Firing | None:
        """The rule that would exclude the backend or a model of it now, were `policy` in force."""
        firing = self._hear(replace(self._backends[uid], policy=policy), now).firing()
        return firing if firing is not None and firing.quorum else None

    def _hear(self, docket: Docket, now: float) -> Hearing:
        return Hearing(
            docket,
            self._ledger,
            now=now,
            started=self.started,
            listening=self.listening,
            random=self._random,
            shown=self._remembered.shown.get(docket.facts.uid),
        )

    def _calm(self, uid: str, now: float) -> bool:
        return self._remembered.calms.calm(self._ledger, self._backends[uid], now)

    def suspect(self, uid: str, now: float) -> bool:
        """Whether successes of a backend should be heard of at once, too."""
        if self._calm(uid, now):
            return False
        evidence, out = self.hearing(uid, now).evidence, self._backends[uid].verdicts.out
        if _suspicious(evidence.whole(out)) or _suspicious(evidence.unreached(out)):
            return True
        return any(_suspicious(evidence.model(model)) for model in evidence.models - out)

    def _traffic(self, uid: str, now: float, *, used: bool) -> str:
        if used:
            return reasons.ACTIVE
        users = [r for r in self._ledger.users(uid).values() if not r.gone]
        if users and all(now - user.heard > ALIVE_SECONDS for user in users):
            return reasons.REPORTS_STALE
        return reasons.NO_TRAFFIC


def _suspicious(shares: Sequence[Share]) -> bool:
    sums = Sums.of(shares)
    if sums.row >= SUSPECT_ROW:
        return True
    return sums.short_errors >= SUSPECT_ERRORS and 4 * sums.short_errors >= sums.short_requests
