"""From API objects to a routing table, keeping the live objects: one `Backend` per UID, one
`Candidate` per model.

`LiveBackends.table` is called after every change; it resolves again only what changed, and returns
the table that was if nothing that routing can see did. It reads Secrets through a source and opens
no connection.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from nexus_api import (
    BackendModel,
    BackendState,
    Capability,
    ConditionStatus,
    DiscoveredModel,
    LLMBackend,
    Pricing,
    reasons,
    resolve,
)
from nexus_api.quantities import parse_time, parse_usd
from nexus_proxy.routing import request
from nexus_proxy.routing.candidate import Backend, Candidate, Traits
from nexus_proxy.routing.journal import Journal
from nexus_proxy.routing.reach import Obstacle, Reach, TlsContexts, reach, unverified
from nexus_proxy.routing.rules import Rules
from nexus_proxy.routing.table import Table
from nexus_proxy.secrets import SecretSource
from nexus_quality import words, words_of_health
from nexus_quality.keys import KeyFacts
from nexus_quality.policy import Policy
from nexus_quality.subject import Subject

_log = logging.getLogger("nexus.proxy.routing")

_BITS = {
    Capability.VISION: request.VISION,
    Capability.TOOLS: request.TOOLS,
    Capability.JSON: request.JSON,
    Capability.EMBEDDINGS: request.EMBEDDINGS,
}


@dataclass(slots=True)
class _Known:
    """A backend as last resolved, and from what."""

    source: LLMBackend
    policy: Policy
    reach: Reach
    live: Backend
    candidates: dict[str, Candidate]
    insecure: bool = False


class LiveBackends:
    """The live objects behind the routing table."""

    def __init__(
        self,
        *,
        subject: Callable[[str, str], Subject],
        secrets: SecretSource,
        journal: Journal,
        key: Callable[[str, KeyFacts], None] = lambda _uid, _facts: None,
    ) -> None:
        """`key` is told what is known of a backend's key whenever that changed."""
        self.secrets = secrets
        self._key = key
        self._subject = subject
        self._journal = journal
        self._contexts = TlsContexts()
        self._known: dict[str, _Known] = {}
        self._table: Table | None = None

    def table(self, backends: Iterable[tuple[LLMBackend, Policy]], rules: Rules) -> Table:
        """The routing table of these backends, each with the quality policy in force for it."""
        current = {backend.metadata.uid: (backend, policy) for backend, policy in backends}
        for uid in self._known.keys() - current.keys():
            del self._known[uid]
        moved = [self._taken(backend, policy) for backend, policy in current.values()]
        candidates = self._by_model()
        live = {uid: known.live for uid, known in self._known.items()}
        table = Table(candidates, live, rules)
        if self._table is None or any(moved) or table != self._table:
            self._table = table
        return self._table

    def candidates(self, uid: str) -> Iterable[Candidate]:
        """Those of one backend, a candidate per model."""
        known = self._known.get(uid)
        return () if known is None else known.candidates.values()

    def candidate(self, uid: str, model: str) -> Candidate | None:
        """One of them, None if there is none."""
        known = self._known.get(uid)
        return None if known is None else known.candidates.get(model)

    def _by_model(self) -> dict[str, tuple[Candidate, ...]]:
        found: dict[str, list[Candidate]] = {}
        for known in sorted(self._known.values(), key=lambda k: (k.live.namespace, k.live.name)):
            for model, candidate in known.candidates.items():
                found.setdefault(model, []).append(candidate)
        return {model: tuple(members) for model, members in found.items()}

    def _taken(self, backend: LLMBackend, policy: Policy) -> bool:
        """`_update`, but one backend that cannot be resolved must not stop all others."""
        try:
            return self._update(backend, policy)
        except ValueError as error:
            _log.warning("left out: %s: %s", backend.metadata.name, error)
            return self._known.pop(backend.metadata.uid, None) is not None

    def _update(self, backend: LLMBackend, policy: Policy) -> bool:
        """Bring one backend up to date; True if something changed that routing can see."""
        uid = backend.metadata.uid
        known = self._known.get(uid)
        reached = self._reach(backend, known)
        if known is None:
            known = self._known[uid] = self._first_sight(backend, policy, reached)
        elif known.source is backend and known.policy == policy and known.reach == reached:
            return False
        known.source, known.policy, known.reach = backend, policy, reached
        self._tell(known)
        self._key(uid, reached.key)
        self._apply(known)
        return self._candidates(known)

    def _reach(self, backend: LLMBackend, known: _Known | None) -> Reach:
        # Without references to Secrets only a new spec can change the answer.
        spec = backend.spec
        secretless = spec.auth is None and (spec.tls is None or spec.tls.ca_secret_ref is None)
        if known and secretless and known.source.spec == spec:
            return known.reach
        return reach(backend, self.secrets, self._contexts)

    def _first_sight(self, backend: LLMBackend, policy: Policy, reached: Reach) -> _Known:
        meta = backend.metadata
        live = Backend(
            meta.uid,
            meta.namespace,
            meta.name,
            origin=reached.origin,
            changed=self._journal.changed,
        )
        return _Known(backend, policy, reached, live, {})

    def _tell(self, known: _Known) -> None:
        """What a person must not find out by chance, once per backend."""
        insecure = unverified(known.reach.origin)
        if insecure and not known.insecure:
            _log.warning("%s: %s", known.live.id, words.UNVERIFIED.message)
        known.insecure = insecure

    def _apply(self, known: _Known) -> None:
        live, spec, status = known.live, known.source.spec, known.source.status
        live.origin = known.reach.origin
        live.timeouts = known.reach.timeouts
        live.credentials = known.reach.credentials
        live.answer_headers = known.reach.answer_headers
        if not live.latency_ms and status.probe_latency_milliseconds:
            live.latency_ms = float(status.probe_latency_milliseconds)
        if live.max_concurrency != spec.max_concurrency:
            live.max_concurrency = spec.max_concurrency
        live.touch()

    def _candidates(self, known: _Known) -> bool:
        wanted = dict(_models(known.source))
        moved = wanted.keys() != known.candidates.keys()
        for gone in known.candidates.keys() - wanted.keys():
            del known.candidates[gone]
        for name, model in wanted.items():
            traits = _traits(known.source, model, known.policy, known.reach.obstacle)
            upstream = resolve.upstream_model(known.source.spec, name)
            candidate = known.candidates.get(name)
            if candidate is None:
                subject = self._subject(known.live.uid, name)
                candidate = Candidate(known.live, name, subject=subject)
                known.candidates[name] = candidate
            renamed = None if upstream == name else upstream
            moved = moved or (candidate.traits, candidate.upstream_model) != (traits, renamed)
            candidate.traits, candidate.upstream_model = traits, renamed
        return moved


def _models(backend: LLMBackend) -> Iterator[tuple[str, BackendModel | DiscoveredModel]]:
    """Models by name: those configured, else those the probe found."""
    for model in backend.spec.models or backend.status.models:
        yield model.name, model


def _traits(
    backend: LLMBackend,
    model: BackendModel | DiscoveredModel,
    policy: Policy,
    obstacle: Obstacle | None,
) -> Traits:
    spec = backend.spec
    capabilities = model.capabilities
    price = resolve.pricing(spec, model.name)
    created = backend.metadata.creation_timestamp
    return Traits(
        zone=resolve.privacy_zone(spec).value,
        tier=spec.capability_tier,
        priority=spec.priority,
        capabilities=None if capabilities is None else sum(_BITS[c] for c in set(capabilities)),
        context_length=model.context_length,
        suspended=spec.suspend,
        unhealthy=_unhealthy(backend),
        obstacle=obstacle,
        least_bad=policy.least_bad,
        ttft_threshold_ms=policy.ttft_penalty_threshold_ms,
        price=_price(price) if price else None,
        created=int(parse_time(created)) if created else 0,
        discovery_seconds=float(spec.health_check.period_seconds),
    )


def _price(price: Pricing) -> tuple[int, int]:
    return (
        parse_usd(price.input_usd_per_million_tokens),
        parse_usd(price.output_usd_per_million_tokens),
    )


def _unhealthy(backend: LLMBackend) -> Obstacle | None:
    if backend.status.state is not BackendState.UNHEALTHY:
        return None
    told = (
        condition.message
        for condition in backend.status.conditions
        if condition.type == reasons.HEALTHY and condition.status is ConditionStatus.FALSE
    )
    said = words.split(next(told, "Its health probes fail"))
    return said.reason, said.action or words_of_health.LOOK
