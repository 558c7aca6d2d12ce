"""Objects as the API server has them, passed on to everything that depends on them.

Promises that registry, engine and prober know the same objects, that an older version never undoes
a newer one, and that a verdict is restored from status before anything judges the backend. It
neither watches nor writes. A verdict taken over is about the spec of its generation: whether an
edit nobody saw made another backend of it is told from `specs`, where they know that spec.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

from nexus_api import (
    InvalidObject,
    LLMBackend,
    QualityPolicy,
    RoutingPolicy,
    decode_backend,
    decode_quality_policy,
    decode_routing_policy,
)
from nexus_api.fingerprint import verdict_fingerprint
from nexus_api.meta import BACKEND_PLURAL, QUALITY_POLICY_PLURAL, ROUTING_POLICY_PLURAL
from nexus_operator.engine import FleetEngine
from nexus_operator.findings import Findings
from nexus_operator.metrics import Metrics
from nexus_operator.plan import Key
from nexus_operator.planner import Planner
from nexus_operator.policy_plans import PolicyPlans
from nexus_operator.prober import Prober
from nexus_operator.registry import Registry, full_name
from nexus_operator.specs import Specs
from nexus_operator.writer import Writer
from nexus_quality.engine import BackendFacts

log = logging.getLogger(__name__)

DECODERS: Mapping[
    str, Callable[[Mapping[str, Any]], LLMBackend | QualityPolicy | RoutingPolicy]
] = {
    BACKEND_PLURAL: decode_backend,
    QUALITY_POLICY_PLURAL: decode_quality_policy,
    ROUTING_POLICY_PLURAL: decode_routing_policy,
}


BEFORE_AN_UNSEEN_EDIT = "not known"


class Observer:
    """`touch` has a backend judged soon; `restored` gets one whose status another process wrote."""

    def __init__(
        self,
        *,
        registry: Registry,
        engine: FleetEngine,
        prober: Prober,
        planner: Planner,
        policies: PolicyPlans,
        specs: Specs,
        writer: Writer,
        metrics: Metrics,
        clock: Callable[[], float],
        touch: Callable[[str], None],
        restored: Callable[[LLMBackend], None],
    ) -> None:
        self._registry = registry
        self._engine = engine
        self._prober = prober
        self._planner = planner
        self._policies = policies
        self._specs = specs
        self._writer = writer
        self._metrics = metrics
        self._clock = clock
        self._touch = touch
        self._restored = restored

    def see(self, plural: str, stored: Mapping[str, Any]) -> None:
        """An object is there, in this version."""
        try:
            thing = DECODERS[plural](stored)
        except InvalidObject as error:
            log.error("ignored, until it is mended: %s", error)
            return
        shelf = self._registry.shelf(plural)
        known = shelf.get(thing.metadata.uid)
        if known is not None and not newer(
            thing.metadata.resource_version, known.metadata.resource_version
        ):
            return
        shelf.put(thing)  # type: ignore[arg-type]
        if isinstance(thing, LLMBackend):
            assert known is None or isinstance(known, LLMBackend)
            self._see_backend(thing, known, stored)
        elif known is None or known.spec != thing.spec:
            self._policy_changed(thing.metadata.namespace)
        else:
            self._policies.mark(thing.metadata.namespace)

    def gone(self, key: Key) -> None:
        """An object is not there any more."""
        thing = self._registry.shelf(key.plural).remove(key.uid)
        self._writer.forget(key)
        if thing is None:
            return
        namespace = thing.metadata.namespace
        if not isinstance(thing, LLMBackend):
            self._policy_changed(namespace)
            return
        self._engine.remove(key.uid)
        self._prober.forget(key.uid)
        self._planner.forget(key.uid)
        self._policies.audits.forget(key.uid)
        self._specs.forget(key.uid)
        self._metrics.ttft.forget(full_name(thing.metadata))
        self._policies.mark(namespace)

    def turned(self, uid: str) -> None:
        """The prober learned something about a backend."""
        backend = self._registry.backends.get(uid)
        if backend is not None:
            self._upsert(backend)
            self._touch(uid)

    def _see_backend(
        self, backend: LLMBackend, known: LLMBackend | None, stored: Mapping[str, Any]
    ) -> None:
        uid = backend.metadata.uid
        self._prober.see(backend)
        if known is None and backend.status.state is not None:
            self._restore(backend)
        self._upsert(backend)
        self._specs.published(backend)
        self._planner.observed(backend, stored)
        self._touch(uid)
        if known is None or known.metadata.labels != backend.metadata.labels:
            self._policies.audits.ask(uid)
            self._policies.mark(backend.metadata.namespace)

    def _restore(self, backend: LLMBackend) -> None:
        """Takes the verdict over from status. A spec that nobody judged yet was edited while no
        operator looked; if it is not known what it was before it is taken for another one (S15).
        """
        uid, seen = backend.metadata.uid, backend.status.observed_generation or 0
        before = None
        if backend.metadata.generation > seen:
            before = self._specs.fingerprint(uid, seen) or BEFORE_AN_UNSEEN_EDIT
        self._upsert(backend, fingerprint=before)
        self._engine.restore(uid, backend.status, self._clock())
        self._restored(backend)

    def _upsert(self, backend: LLMBackend, *, fingerprint: str | None = None) -> None:
        metadata, spec = backend.metadata, backend.spec
        facts = BackendFacts(
            uid=metadata.uid,
            namespace=metadata.namespace,
            name=metadata.name,
            fingerprint=fingerprint or verdict_fingerprint(spec),
            models=models_of(backend, self._prober.findings(metadata.uid)),
        )
        self._engine.upsert(facts, self._registry.thresholds(backend), self._clock())

    def _policy_changed(self, namespace: str) -> None:
        for backend in self._registry.backends.of(namespace):
            self._upsert(backend)
            self._touch(backend.metadata.uid)
            self._policies.audits.ask(backend.metadata.uid)
        self._policies.mark(namespace)


def models_of(backend: LLMBackend, findings: Findings) -> tuple[str, ...] | None:
    """The names of a backend's models, configured or discovered; None while unknown."""
    if backend.spec.models is not None:
        return tuple(model.name for model in backend.spec.models)
    return tuple(model.name for model in findings.models) or None


def newer(version: str, known: str) -> bool:
    """Whether a resourceVersion is later than a known one (if no numbers: another one)."""
    if version.isdecimal() and known.isdecimal():
        return int(version) > int(known)
    return version != known
