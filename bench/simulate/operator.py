"""An operator in a simulated world: the real Engine behind a network, an API server and a watch.

Promises the operator's order: a report is merged when it arrives, what it touched is judged at once
and each backend once however often it was touched, at most one status write of a backend is under
way, a transition holds from the moment its write was accepted, and proxies hear of it later. No
rule is here.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Callable
from dataclasses import dataclass

from bench.simulate.measure import Log
from bench.simulate.world import EPOCH, World

from nexus_api import BackendState, LLMBackend, LLMBackendStatus
from nexus_api.fingerprint import verdict_fingerprint
from nexus_proxy.control import Objects
from nexus_quality.engine import BackendFacts, Engine, Transition
from nexus_quality.policy import DEFAULT_POLICY, policy_from_spec
from nexus_quality.published import exclusion_of, shared_of, with_verdicts
from nexus_quality.report import Answer, decode_report
from nexus_quality.shared import SharedVerdict
from nexus_quality.verdicts import Verdicts

EXPIRE_SECONDS = 10.0
ROUND_SECONDS = 30.0
WARM_SECONDS = 3600.0
LATEST_COPY_SECONDS = 60.0

Watcher = Callable[[str, SharedVerdict], None]


@dataclass(frozen=True, slots=True)
class Delays:
    """Medians of log-normal delays, in seconds: a report's way, the operator's turn, a status
    write, a watch event. `twice`: the share of reports of which a copy comes up to a minute later.
    """

    report: float = 0.02
    turn: float = 0.01
    write: float = 0.03
    watch: float = 0.02
    spread: float = 0.6
    twice: float = 0.0


class Operator:
    """One operator process; `away` stops it, `back` starts the next one from what was written."""

    def __init__(self, world: World, log: Log, objects: Objects, delays: Delays) -> None:
        self._world, self._log, self._objects, self._delays = world, log, objects, delays
        self._chance = world.chance("operator")
        self._watchers: dict[int, Watcher] = {}
        self._seen: dict[int, float] = {}
        self.published: dict[str, SharedVerdict] = {}
        self.written: dict[str, Verdicts] = {}
        self._life = 0
        self.running = True
        self._begin(started=self._now() - WARM_SECONDS)
        world.every(EXPIRE_SECONDS, self._expire, first=EXPIRE_SECONDS)
        world.every(ROUND_SECONDS, self._round, first=ROUND_SECONDS)

    def _now(self) -> float:
        return EPOCH + self._world.now

    def _begin(self, *, started: float) -> None:
        self._life += 1
        self.engine = Engine(
            epoch=f"{self._life:032x}",
            started=started,
            random=self._world.chance(f"engine/{self._life}").random,
        )
        self._touched: set[str] = set()
        self._writing: set[str] = set()
        self._timer = float("inf")
        specs = self._objects.quality_policies
        policy = policy_from_spec(specs[0].spec) if specs else DEFAULT_POLICY
        for backend in self._objects.backends:
            self.engine.upsert(facts_of(backend), policy, self._now())

    # Being away

    def away(self) -> None:
        """The process dies; what it had not written is lost."""
        self.running = False

    def back(self) -> None:
        """A new process starts: verdicts from status, counters from the proxies' replay."""
        self.running = True
        self._begin(started=self._now())
        for uid, verdicts in self.written.items():
            self.engine.restore(uid, status_of(verdicts), self._now())
        self._set_timer()

    # Reports

    def watch(self, proxy: int, watcher: Watcher) -> None:
        """Tell a proxy of every verdict."""
        self._watchers[proxy] = watcher

    def post(self, proxy: int, body: bytes, answered: Callable[[Answer | None], None]) -> None:
        """A report sets out; the answer, or None, comes back."""
        self._world.after(self._delay("report"), lambda: self._receive(proxy, body, answered))
        if self._delays.twice and self._chance.random() < self._delays.twice:
            late = LATEST_COPY_SECONDS * self._chance.random()
            self._world.after(late, lambda: self._receive(proxy, body, lambda _: None))

    def _receive(self, proxy: int, body: bytes, answered: Callable[[Answer | None], None]) -> None:
        answer = None
        if self.running:
            merged = self.engine.merge(f"pod-{proxy}", decode_report(body), self._now())
            self.engine.drain_observations()
            answer = merged.answer
            self._log.refused += len(answer.refused)
            for uid in merged.touched:
                self._touch(uid)
        self._world.after(self._delay("report"), lambda: answered(answer))

    # Judging and writing

    def _touch(self, uid: str) -> None:
        if not self._touched:
            life = self._life
            self._world.after(self._delay("turn"), lambda: self._judge_touched(life))
        self._touched.add(uid)

    def _judge_touched(self, life: int) -> None:
        if life != self._life:
            return
        touched, self._touched = self._touched, set()
        if self.running:
            for uid in sorted(touched):
                self._judge(uid)
            self._set_timer()

    def _judge(self, uid: str) -> None:
        transition = self.engine.wanted(uid, self._now())
        if uid in self._writing:
            return
        verdicts = transition.verdicts if transition else self.engine.verdicts(uid)
        if transition or shares_of(verdicts) != shares_of(self.written.get(uid, Verdicts())):
            self._writing.add(uid)
            life = self._life
            self._world.after(
                self._delay("write"), lambda: self._accepted(uid, life, transition, verdicts)
            )

    def _accepted(
        self, uid: str, life: int, transition: Transition | None, verdicts: Verdicts
    ) -> None:
        if life != self._life or not self.running:
            return
        self._writing.discard(uid)
        if transition is not None:
            self.engine.accept(transition, self._now())
            self._log.transition(uid, transition)
        self._publish(uid, verdicts)
        self._judge(uid)
        self._set_timer()

    def _publish(self, uid: str, verdicts: Verdicts) -> None:
        self.written[uid] = verdicts
        shared = self.published[uid] = shared_of(verdicts, offset=EPOCH)
        for proxy, watcher in self._watchers.items():
            # A watch delivers in order.
            when = max(self._world.now + self._delay("watch"), self._seen.get(proxy, 0.0))
            self._seen[proxy] = when
            self._world.at(when, functools.partial(watcher, uid, shared))

    # Time

    def _set_timer(self) -> None:
        deadline = self.engine.deadline()
        if deadline is None or deadline <= self._now() or self._timer == deadline:
            return  # one that has passed is judged already, its write is under way
        self._timer = deadline
        self._world.at(deadline - EPOCH, lambda: self._ended(deadline))

    def _ended(self, deadline: float) -> None:
        if self._timer == deadline:
            self._timer = float("inf")
            self._round()

    def _round(self) -> None:
        if self.running:
            for uid in self.engine.backends():
                self._judge(uid)
            self._set_timer()

    def _expire(self) -> None:
        if self.running:
            self.engine.expire(self._now())

    def _delay(self, which: str) -> float:
        delays = self._delays
        median: float = getattr(delays, which)
        return median * lognormal(self._chance, delays.spread)


def lognormal(chance: random.Random, spread: float) -> float:
    """A factor whose median is 1."""
    return chance.lognormvariate(0.0, spread)


def facts_of(backend: LLMBackend) -> BackendFacts:
    """What the engine knows of a backend."""
    return BackendFacts(
        uid=backend.metadata.uid,
        namespace=backend.metadata.namespace,
        name=backend.metadata.name,
        fingerprint=verdict_fingerprint(backend.spec),
        models=tuple(model.name for model in backend.spec.models or ()) or None,
    )


def shares_of(verdicts: Verdicts) -> list[tuple[str, int | None]]:
    """The shares of probing requests, which are written without a transition."""
    subjects = {"": verdicts.backend, **verdicts.models}
    return sorted((name, verdict.share_basis_points) for name, verdict in subjects.items())


def status_of(verdicts: Verdicts) -> LLMBackendStatus:
    """Verdicts as they stand in a status."""
    return LLMBackendStatus(
        state=BackendState(verdicts.backend.state.value),
        verdict_generation=verdicts.generation,
        exclusion=exclusion_of(verdicts.backend),
        model_quality=with_verdicts((), verdicts.models),
    )
