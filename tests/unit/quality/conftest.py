"""A small fleet in virtual time: proxies with their monitors, one engine, backends by schedule.

Everything that decides is the shipped code, driven through its public names; reports and answers
travel as bytes, statuses as `LLMBackendStatus`, each with a delay. The router here is the least
that can use `Subject`: it scores nothing.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from nexus_api.backend import BackendState, LLMBackendStatus, Quality, SubjectState
from nexus_quality.attempt import Attempt
from nexus_quality.engine import BackendFacts, Engine, Transition
from nexus_quality.monitor import Monitor
from nexus_quality.outcome import OUTCOMES, Outcome, OutcomeClass
from nexus_quality.policy import DEFAULT_POLICY, Policy
from nexus_quality.published import exclusion_of, with_verdicts
from nexus_quality.report import decode_answer, decode_report, encode
from nexus_quality.shared import shared_from_status
from nexus_quality.subject import Standing, Subject
from nexus_quality.verdicts import Verdicts

MODEL = "tiny"
EPOCH_START = 1_700_000_000.0

Behaviour = Callable[[float, random.Random], tuple[Outcome, float]]


@dataclass
class Backend:
    """A simulated backend: `behaviour` says how an attempt that begins now will end, `models` the
    same for models with a behaviour of their own.
    """

    name: str
    fingerprint: str = "spec-1"
    behaviour: Behaviour = lambda now, chance: (Outcome.SUCCESS, 0.05)
    models: dict[str, Behaviour] = field(default_factory=dict)
    hits: list[float] = field(default_factory=list)
    failures: list[float] = field(default_factory=list)

    @property
    def uid(self) -> str:
        return f"uid-{self.name}"


def failing(
    since: float,
    until: float = float("inf"),
    *,
    rate: float = 1.0,
    outcome: Outcome = Outcome.SERVER_ERROR,
    after: float = 0.05,
) -> Behaviour:
    """A share `rate` of the attempts begun in a span (seconds of the world) ends badly."""

    def behaviour(now: float, chance: random.Random) -> tuple[Outcome, float]:
        if since <= now - EPOCH_START < until and chance.random() < rate:
            return outcome, after
        return Outcome.SUCCESS, 0.05

    return behaviour


class Proxy:
    """One proxy: its clock is `offset` ahead of the world's, its requests come at `rps`."""

    def __init__(self, world: World, name: str, rps: float, offset: float) -> None:
        self.world, self.name, self.rps, self.offset = world, name, rps, offset
        self.chance = random.Random(f"{world.seed}-{name}")
        self.lives = 0
        self.client_failures = 0
        self.failures_of: Counter[str] = Counter()
        self.subjects: dict[str, Subject] = {}
        self.all: dict[tuple[str, str], Subject] = {}
        self.start()

    def start(self) -> None:
        """A new process: a new incarnation that knows nothing."""
        self.lives += 1
        self.life = life = self.lives
        self.sending = False
        self.due: float | None = None
        self.monitor = Monitor(
            incarnation=f"{self.chance.getrandbits(128):032x}",
            started=self.now,
            random=self.chance.random,
            on_change=lambda: None,
            on_urgent=self.urgent,
        )
        self.all = {
            (uid, model): self.monitor.subject(uid, model)
            for uid in self.world.by_uid
            for model in self.world.models
        }
        self.subjects = {uid: self.all[uid, self.world.models[0]] for uid in self.world.by_uid}
        for backend in self.world.backends.values():
            self.configure(backend, self.world.statuses.get(backend.uid))
        self.world.after(self.chance.random(), lambda: self.ticking(life))
        self.world.after(10.0 * self.chance.random(), lambda: self.reporting_fully(life))

    @property
    def now(self) -> float:
        return self.world.now + self.offset

    def configure(self, backend: Backend, status: LLMBackendStatus | None) -> None:
        policy = self.world.policy
        self.monitor.configure(
            backend.uid,
            policy=policy,
            shared=shared_from_status(
                status,
                server_time=self.world.now,
                now=self.now,
                max_exclusion_seconds=policy.max_exclusion_seconds,
            ),
            fingerprint=backend.fingerprint,
            now=self.now,
        )

    def ticking(self, life: int) -> None:
        if life == self.life:
            self.monitor.tick(self.now)
            self.world.after(1.0, lambda: self.ticking(life))

    def reporting_fully(self, life: int) -> None:
        if life == self.life:
            self.report(full=True)
            self.world.after(15.0, lambda: self.reporting_fully(life))

    def urgent(self, delay: float) -> None:
        due = self.now + delay
        if self.due is None or due < self.due:
            self.due, life = due, self.life
            self.world.after(delay, lambda: self.urgently(due, life))

    def urgently(self, due: float, life: int) -> None:
        if life == self.life and self.due == due:
            self.due = None
            self.report(full=False)

    def report(self, *, full: bool) -> None:
        """One report at a time; what becomes due meanwhile leaves when the answer is there."""
        if self.sending:
            self.world.after(0.05, lambda: self.report(full=full))
            return
        report = self.monitor.report(self.now, full=full)
        if report is None:
            return
        self.sending, life, body = True, self.life, encode(report)

        def answered(answer: bytes | None) -> None:
            if life != self.life:
                return
            self.sending = False
            if answer is None:
                self.monitor.unanswered(self.now)
                self.world.after(1.0, lambda: self.report(full=full))
            elif self.monitor.acknowledged(report, decode_answer(answer), self.now):
                self.world.after(5.0 * self.chance.random(), lambda: self.report(full=True))

        self.world.deliver(self.name, body, answered)

    def request(self) -> None:
        """One client request: probe, else admitted, else slow start, else the last resort."""
        models = self.world.models
        self.attempt(self.chance.choice(models) if len(models) > 1 else models[0], [])

    def attempt(self, model: str, tried: list[Subject]) -> None:
        subject, probe, last = self.choose(model, tried)
        tried.append(subject)
        backend = self.world.by_uid[subject.uid]
        attempt = subject.begin(self.now, probe=probe, last_resort=last)
        attempt.sent(self.now)
        behaviour = backend.models.get(model, backend.behaviour)
        outcome, after = behaviour(self.world.now, self.chance)
        backend.hits.append(self.world.now)
        life = self.life

        def ended() -> None:
            if OUTCOMES[outcome].outcome_class is OutcomeClass.FAILURE:
                backend.failures.append(self.world.now)
            if life == self.life:
                self.end(attempt, outcome, tried)

        self.world.after(after, ended)

    def end(self, attempt: Attempt, outcome: Outcome, tried: list[Subject]) -> None:
        attempt.end(outcome, self.now)
        kind = OUTCOMES[outcome].outcome_class
        counted = self.world.oracle[attempt.subject.uid]
        counted["requests"] += kind in (OutcomeClass.SUCCESS, OutcomeClass.FAILURE)
        counted["errors"] += kind is OutcomeClass.FAILURE
        if kind is not OutcomeClass.SUCCESS and len(tried) <= self.world.retries:
            self.attempt(attempt.subject.model, tried)
        elif kind is not OutcomeClass.SUCCESS:
            self.client_failures += 1
            self.failures_of[attempt.subject.model] += 1

    def choose(self, model: str, tried: list[Subject]) -> tuple[Subject, bool, bool]:
        serving = [s for s in self.all.values() if s.model == model]
        fresh = [s for s in serving if s not in tried]
        if not tried:
            for subject in fresh:
                if subject.standing in (Standing.OUT, Standing.PROBING):
                    subject.kept_out(self.now)
            for subject in fresh:
                if subject.standing is Standing.PROBING and subject.wants_probe(self.now):
                    return subject, True, False
        admitted = [
            s
            for s in fresh
            if s.standing is Standing.ADMITTED
            or (s.standing is Standing.SLOW_START and self.chance.random() < s.admission(self.now))
        ]
        slow = [s for s in fresh if s.standing is Standing.SLOW_START]
        if admitted or slow:
            return self.chance.choice(admitted or slow), False, False
        left = fresh or serving
        return self.chance.choice(left), False, True


class World:
    """The fleet, on one clock in epoch seconds from EPOCH_START on."""

    def __init__(
        self,
        *,
        proxies: int,
        rps: float,
        backends: int = 3,
        policy: Policy = DEFAULT_POLICY,
        seed: int = 1,
        retries: int = 0,
        report_delay: float = 0.02,
        write_delay: float = 0.05,
        models: tuple[str, ...] = (MODEL,),
    ) -> None:
        self.now, self.seed, self.policy, self.retries = EPOCH_START, seed, policy, retries
        self.models = models
        self.report_delay, self.write_delay = report_delay, write_delay
        self.chance = random.Random(seed)
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._number = itertools.count()
        self.backends = {n: Backend(n) for n in map(chr, range(ord("a"), ord("a") + backends))}
        self.by_uid = {b.uid: b for b in self.backends.values()}
        self.statuses: dict[str, LLMBackendStatus] = {}
        self.history: list[tuple[float, Transition]] = []
        self.oracle: dict[str, Counter[str]] = {b.uid: Counter() for b in self.backends.values()}
        self.operators = 0
        self.engine: Engine | None = None
        self.deaf: tuple[Engine, float] | None = None
        self.start_operator()
        self.proxies = [
            Proxy(self, f"pod-{i}", rps, offset=self.chance.uniform(-EPOCH_START, 1e6))
            for i in range(proxies)
        ]
        for proxy in self.proxies:
            self.after(self.chance.expovariate(rps), lambda proxy=proxy: self._traffic(proxy))
        self.after(1.0, self._tick)

    # Time.

    def after(self, delay: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._queue, (self.now + delay, next(self._number), action))

    def run(self, seconds: float, until: Callable[[], bool] = lambda: False) -> float | None:
        """Let time pass; the seconds that passed when `until` came true, None if it did not."""
        began, end = self.now, self.now + seconds
        while self._queue and self._queue[0][0] <= end:
            self.now, _, action = heapq.heappop(self._queue)
            action()
            if until():
                return self.now - began
        self.now = end
        return None

    def _traffic(self, proxy: Proxy) -> None:
        proxy.request()
        self.after(self.chance.expovariate(proxy.rps), lambda: self._traffic(proxy))

    # The operator.

    def start_operator(self) -> None:
        """A new operator process; it takes the verdicts over from the statuses."""
        self.operators += 1
        self.engine = Engine(
            epoch=f"epoch-{self.operators}", started=self.now, random=self.chance.random
        )
        self.deaf = None
        self._writing: set[str] = set()
        for backend in self.backends.values():
            self.engine.upsert(self.facts(backend), self.policy, self.now)
            if backend.uid in self.statuses:
                self.engine.restore(backend.uid, self.statuses[backend.uid], self.now)

    def stop_operator(self) -> None:
        self.engine = self.deaf = None

    def deafen_operator(self) -> None:
        """It cannot renew its lease: it takes no reports and writes nothing, but it lives."""
        if self.engine is not None:
            self.deaf, self.engine = (self.engine, self.now), None

    def undeafen_operator(self) -> None:
        """It renewed its lease, and has heard of all edits."""
        if self.deaf is None:
            return
        (self.engine, since), self.deaf = self.deaf, None
        self._writing.clear()
        for backend in self.backends.values():
            self.engine.upsert(self.facts(backend), self.policy, self.now)
        self.engine.resume(since, self.now)

    def facts(self, backend: Backend) -> BackendFacts:
        return BackendFacts(
            uid=backend.uid, namespace="shop", name=backend.name, fingerprint=backend.fingerprint
        )

    def edit_policy(self, policy: Policy) -> None:
        """kubectl edit: operator and proxies hear of it."""
        self.policy = policy
        for backend in self.backends.values():
            self._edited(backend)

    def respecify(self, name: str, fingerprint: str) -> None:
        """A backend's spec changes."""
        self.backends[name].fingerprint = fingerprint
        self._edited(self.backends[name])

    def _edited(self, backend: Backend) -> None:
        if self.engine is not None:
            self.engine.upsert(self.facts(backend), self.policy, self.now)
            self.evaluate(backend.uid)
        for proxy in self.proxies:
            proxy.configure(backend, self.statuses.get(backend.uid))

    def deliver(self, reporter: str, body: bytes, answered: Callable[[bytes | None], None]) -> None:
        def arrives() -> None:
            if self.engine is None:
                self.after(self.report_delay, lambda: answered(None))
                return
            merged = self.engine.merge(reporter, decode_report(body), self.now)
            assert merged.answer.refused == ()
            answer = encode(merged.answer)
            self.after(self.report_delay, lambda: answered(answer))
            for uid in sorted(merged.touched):
                self.evaluate(uid)

        self.after(self.report_delay, arrives)

    def _tick(self) -> None:
        if self.engine is not None:
            self.engine.expire(self.now)
            for uid in self.by_uid:
                self.evaluate(uid)
        self.after(1.0, self._tick)

    def evaluate(self, uid: str) -> None:
        if self.engine is None or uid in self._writing:
            return
        before = shares_of(self.engine.verdicts(uid))
        transition = self.engine.wanted(uid, self.now)
        if transition is not None:
            self._writing.add(uid)
            engine = self.engine
            self.after(self.write_delay, lambda: self._written(engine, transition))
        elif before != shares_of(self.engine.verdicts(uid)):
            self._publish(uid)

    def _written(self, engine: Engine, transition: Transition) -> None:
        if engine is not self.engine:
            return
        self._writing.discard(transition.uid)
        engine.accept(transition, self.now)
        self.history.append((self.now, transition))
        self._publish(transition.uid)
        self.evaluate(transition.uid)

    def _publish(self, uid: str) -> None:
        assert self.engine is not None
        status = self.statuses[uid] = self.status(uid)
        for proxy in self.proxies:
            self.after(
                self.write_delay,
                lambda proxy=proxy: proxy.configure(self.by_uid[uid], status),
            )

    def status(self, uid: str) -> LLMBackendStatus:
        """The status as the operator writes it, as far as the verdict goes."""
        assert self.engine is not None
        verdicts = self.engine.verdicts(uid)
        quality = self.engine.figures(uid, self.now).quality()
        return LLMBackendStatus(
            state=BackendState(str(verdicts.backend.state)),
            verdict_generation=verdicts.generation,
            exclusion=exclusion_of(verdicts.backend),
            quality=quality,
            model_quality=with_verdicts((), verdicts.models),
        )

    # Questions.

    def state(self, name: str) -> SubjectState:
        assert self.engine is not None
        return self.engine.verdict(self.backends[name].uid).state

    def rows(self, name: str) -> list[str]:
        """The rows taken for a backend itself, in order."""
        return self.rows_of(name, "")

    def rows_of(self, name: str, model: str) -> list[str]:
        """The rows taken for a model of a backend, in order."""
        uid = self.backends[name].uid
        return [t.row for _, t in self.history if (t.uid, t.model) == (uid, model)]

    def standings(self, name: str) -> Counter[Standing]:
        uid = self.backends[name].uid
        return Counter(proxy.subjects[uid].standing for proxy in self.proxies)

    def quality(self, name: str) -> Quality:
        assert self.engine is not None
        quality = self.engine.figures(self.backends[name].uid, self.now).quality()
        assert quality is not None
        return quality


def shares_of(verdicts: Verdicts) -> list[tuple[str, int | None]]:
    """What is published without a transition."""
    subjects = {"": verdicts.backend, **verdicts.models}
    return sorted((name, verdict.share_basis_points) for name, verdict in subjects.items())


@pytest.fixture
def make_world() -> type[World]:
    """The class of worlds; a test makes those it needs."""
    return World


@pytest.fixture(name="failing")
def failing_fixture() -> Callable[..., Behaviour]:
    """The maker of behaviours that fail for a while."""
    return failing
