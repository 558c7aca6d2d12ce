"""The standalone mode: objects from a folder, the fleet's quality engine in this process.

The same reports that would go to an operator go to the engine, and its verdicts come back as if
they had been read from a status. Health is probed here, models are discovered here, and changed
files are picked up within a second; a file that cannot be used leaves the last good state in force
and says so. Nothing is kept across a restart.
"""

from __future__ import annotations

import asyncio
import logging
import random as chance
import secrets
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping
from dataclasses import replace
from typing import Any

import msgspec
from prometheus_client.core import Metric

from nexus_api import (
    BackendState,
    Condition,
    DiscoveredModel,
    LLMBackend,
    LLMBackendStatus,
    Quality,
    reasons,
)
from nexus_api.fingerprint import verdict_fingerprint
from nexus_api.meta import ConditionStatus
from nexus_api.quantities import format_time
from nexus_proxy.admin.agents import AgentMetrics
from nexus_proxy.control import Control, Objects, Shared
from nexus_proxy.http.resolver import Resolver
from nexus_proxy.manifests import InvalidManifests, Manifests, fingerprint, load
from nexus_proxy.prober import Prober
from nexus_proxy.secrets import FileSecrets, SecretSource
from nexus_proxy.settings import Settings
from nexus_quality.engine import BackendFacts, Engine
from nexus_quality.health import Crowd, Health, Patient, judged
from nexus_quality.monitor import Monitor
from nexus_quality.policy import Policy
from nexus_quality.published import shared_of
from nexus_quality.report import Answer, decode_report
from nexus_quality.shared import SharedVerdict

POLL_SECONDS = 1.0
# Probes of many backends end in bursts; one table for all that end within this time.
SETTLE_SECONDS = 0.1
REPORTER = "standalone"
# A starting operator waits for its reporters; here there is one, and it starts with us.
NO_WAIT_SECONDS = 3600.0

_log = logging.getLogger("nexus.proxy.standalone")

Later = Callable[[float, Callable[[], None]], object]
Look = tuple[ConditionStatus, str, tuple[DiscoveredModel, ...] | None]


class StandaloneSource:
    """A folder of manifests and an engine. Raises InvalidManifests when the folder cannot be
    used.
    """

    def __init__(
        self,
        settings: Settings,
        environ: Mapping[str, str],
        *,
        clock: Callable[[], float],
        later: Later = lambda seconds, call: asyncio.get_running_loop().call_later(seconds, call),
    ) -> None:
        assert settings.manifests is not None
        self._folder = settings.manifests
        self._namespace = settings.namespace
        self._environ = environ
        self._clock = clock
        self._later = later
        self._offset = time.time() - clock()
        self._seen = fingerprint(self._folder)
        self._manifests = load(self._folder, namespace=self._namespace)
        self.secrets: SecretSource = FileSecrets(self._manifests.secrets, environ)
        self.engine = Engine(
            epoch=secrets.token_hex(16),
            started=self._now() - NO_WAIT_SECONDS,
            random=chance.random,
        )
        self.agents = AgentMetrics(self.engine, self._now)
        self.shared: Shared = self._shared
        self._health: dict[str, Health] = {}
        self._out: set[str] = set()
        self._models: dict[str, tuple[DiscoveredModel, ...]] = {}
        self._dressed: dict[str, tuple[LLMBackend, Look, str, LLMBackend]] = {}
        self._unsettled: set[str] = set()
        self._resolver = Resolver(clock=clock)
        self._prober: Prober | None = None
        self._control: Control | None = None
        self._apply: Callable[[Objects], None] = lambda _objects: None

    def _now(self) -> float:
        """Epoch seconds on a clock that never jumps: the engine's."""
        return self._clock() + self._offset

    def bind(self, control: Control, monitor: Monitor, apply: Callable[[Objects], None]) -> None:
        """Hand all objects to `apply` after each change."""
        self._control, self._apply = control, apply
        self._prober = Prober(
            backend_of=lambda uid: control.table.backends.get(uid),
            random=chance.random,
            resolver=self._resolver,
        )

    def utc(self, now: float) -> float:
        """The clock of this machine when the process started, and what has passed since."""
        return now + self._offset

    def tasks(self) -> Iterable[Coroutine[Any, Any, None]]:
        """The poll of the folder; probes start with the first look."""
        yield self._poll()

    async def _poll(self) -> None:
        self._take(self._manifests)
        while True:
            await asyncio.sleep(POLL_SECONDS)
            self.look()

    def look(self) -> None:
        """Take in the folder if it changed."""
        try:
            seen = fingerprint(self._folder)
        except OSError as error:
            _log.error("%s: %s; the last good state stays in force", self._folder, error.strerror)
            return
        if seen == self._seen:
            return
        self._seen = seen
        try:
            manifests = load(self._folder, namespace=self._namespace)
        except InvalidManifests as error:
            _log.error("%s; the last good state stays in force", error)
            return
        _log.info("manifests changed: %d backends", len(manifests.objects.backends))
        self._take(manifests)

    def _take(self, manifests: Manifests) -> None:
        self._manifests = manifests
        if isinstance(self.secrets, FileSecrets):
            self.secrets.replace(manifests.secrets)
        present = {backend.metadata.uid for backend in manifests.objects.backends}
        for uid in set(self.engine.backends()) - present:
            self.engine.remove(uid)
            self._health.pop(uid, None)
            self._out.discard(uid)
            self._models.pop(uid, None)
            self._dressed.pop(uid, None)
        self._reapply()
        if self._prober is not None:
            self._prober.watch(manifests.objects.backends, self._probed)

    def _reapply(self) -> None:
        objects = self._manifests.objects
        crowd = self._crowd()
        backends = tuple(self._with_status(backend, crowd) for backend in objects.backends)
        self._apply(replace(objects, backends=backends))

    def _probed(self, uid: str, health: Health, models: tuple[DiscoveredModel, ...] | None) -> None:
        before = self._health.get(uid, Health())
        self._health[uid] = health
        if health.status is not before.status:
            _log.info("%s: Healthy=%s: %s", self._id(uid), health.status, health.message)
        if models is not None:
            self._models[uid] = models
        if not self._unsettled:
            self._later(SETTLE_SECONDS, self._settle)
        self._unsettled.add(uid)

    def _settle(self) -> None:
        """Look at all that was probed meanwhile: a new table if routing can see any of it."""
        probed, self._unsettled = self._unsettled, set()
        crowd = self._crowd()
        for backend in self._manifests.objects.backends:
            uid = backend.metadata.uid
            if uid in probed and self._look_of(backend, crowd)[0] != self._dressed[uid][1]:
                self._reapply()
                return

    def _look_of(self, backend: LLMBackend, crowd: Crowd) -> tuple[Look, Health]:
        """What routing can see of a backend's health, and all there is."""
        uid = backend.metadata.uid
        health = self._judged(backend, crowd)
        return (health.status, health.reason, self._models.get(uid)), health

    def _with_status(self, backend: LLMBackend, crowd: Crowd) -> LLMBackend:
        uid = backend.metadata.uid
        look, health = self._look_of(backend, crowd)
        known = self._dressed.get(uid)
        if known is not None and known[0] is backend and known[1:3] == (look, health.message):
            return known[3]
        sick = health.status is ConditionStatus.FALSE
        (self._out.add if sick else self._out.discard)(uid)
        condition = Condition(
            type=reasons.HEALTHY,
            status=health.status,
            reason=health.reason,
            message=health.message,
            last_transition_time=format_time(self._now()),
        )
        status = LLMBackendStatus(
            conditions=(condition,),
            state=BackendState.UNHEALTHY if sick else None,
            models=self._models.get(uid, ()),
            probe_latency_milliseconds=health.latency_ms,
        )
        dressed = msgspec.structs.replace(backend, status=status)
        self._dressed[uid] = (backend, look, health.message, dressed)
        return dressed

    def _judged(self, backend: LLMBackend, crowd: Crowd) -> Health:
        """What to make of the probes: traffic that succeeds outweighs them, and so does trouble
        of most backends at once.
        """
        uid, check = backend.metadata.uid, backend.spec.health_check
        health = self._health.get(uid, Health())
        if health.status is not ConditionStatus.FALSE:
            return health
        span = check.failure_threshold * check.period_seconds
        return judged(
            health,
            suspect=None if uid in self._out else crowd.suspicion(self._patient(backend)),
            served=self._succeeded_since(uid, self._clock() - span),
            heard=True,
            failure_threshold=check.failure_threshold,
            period_seconds=check.period_seconds,
        )

    def _crowd(self) -> Crowd:
        """The probed backends as they are now."""
        backends = self._manifests.objects.backends
        return Crowd(self._patient(b) for b in backends if b.metadata.uid in self._health)

    def _patient(self, backend: LLMBackend) -> Patient:
        uid, check = backend.metadata.uid, backend.spec.health_check
        return Patient(
            failing_since=self._health.get(uid, Health()).failing_since,
            period_seconds=check.period_seconds,
            timeout_seconds=check.timeout_seconds,
            out=uid in self._out,
        )

    def _succeeded_since(self, uid: str, moment: float) -> bool:
        return self._control is not None and any(
            subject.breaker.latest_success >= moment for subject in self._control.subjects(uid)
        )

    def _shared(self, backend: LLMBackend, policy: Policy, now: float) -> SharedVerdict:
        uid = backend.metadata.uid
        self.engine.upsert(_facts(backend), policy, self._now())
        self._advance(uid)
        shared = shared_of(self.engine.verdicts(uid), offset=self._offset)
        sick = backend.status.state is BackendState.UNHEALTHY
        return replace(shared, overlay=BackendState.UNHEALTHY) if sick else shared

    def _advance(self, uid: str) -> bool:
        """Let the engine's verdict move as far as it wants to; True if it did."""
        moved = False
        while (transition := self.engine.wanted(uid, self._now())) is not None:
            before, after = transition.before.state, transition.after.state
            subject = f"{self._id(uid)}{' ' * bool(transition.model)}{transition.model}"
            text = f"{before} to {after}: {transition.message}"
            _log.warning("%s: %s", subject, text, extra=transition.fields(self._id(uid)))
            self.engine.accept(transition, self._now())
            moved = True
        return moved

    def _judge(self, uids: Iterable[str]) -> None:
        moved = [uid for uid in uids if self._advance(uid)]
        if moved and self._control is not None:
            now = self._clock()
            for backend in self._control.objects.backends:
                if backend.metadata.uid in moved:
                    self._control.configure(backend, now)

    async def deliver(self, body: bytes) -> Answer:
        """Hand a report to the engine and act on what comes of it."""
        merged = self.engine.merge(REPORTER, decode_report(body), self._now())
        self._judge(merged.touched)
        return merged.answer

    def tick(self, now: float) -> None:
        """Deadlines of exclusions, what left the windows, names that are due."""
        self._resolver.tick(now)
        self._judge(self.engine.backends())
        self.engine.expire(self._now())
        self.agents.drain()

    def _id(self, uid: str) -> str:
        backends = self._manifests.objects.backends
        ids = (
            f"{b.metadata.namespace}/{b.metadata.name}" for b in backends if b.metadata.uid == uid
        )
        return next(ids, uid)

    def waiting_for(self) -> str:
        """The first look at the folder."""
        return f"waiting for the first look at {self._folder}"

    def quality_of(self, uid: str) -> Quality | None:
        """The engine's figures."""
        return self.engine.figures(uid, self._now()).quality()

    def metrics(self) -> Iterable[Metric]:
        """The seed's three metrics, from the engine."""
        return self.agents.collect({uid: self._id(uid) for uid in self.engine.backends()})

    async def close(self) -> None:
        """Stop probing."""
        self._resolver.close()
        if self._prober is not None:
            await self._prober.close()


def _facts(backend: LLMBackend) -> BackendFacts:
    models = backend.spec.models or backend.status.models
    return BackendFacts(
        uid=backend.metadata.uid,
        namespace=backend.metadata.namespace,
        name=backend.metadata.name,
        fingerprint=verdict_fingerprint(backend.spec),
        models=tuple(model.name for model in models) or None,
    )
