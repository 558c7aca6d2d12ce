"""What audit policies think of each backend, kept from one look to the next.

A look costs a hearing per backend and policy, so backends are looked at one by one, when the
evaluator's round comes to them, and never all at once for a policy's status. Promises that a policy
is marked when an opinion changed, that whoever was not looked at yet counts as published, and that
`ask` has a backend looked at within a round. It excludes nobody.
"""

from __future__ import annotations

from collections.abc import Callable

from nexus_api import Enforcement, LLMBackend, QualityPolicy
from nexus_api.meta import QUALITY_POLICY_PLURAL
from nexus_operator.engine import FleetEngine
from nexus_operator.plan import Key
from nexus_operator.registry import Registry
from nexus_quality.policy import policy_from_spec


class Audits:
    """Opinions by backend and policy; `mark` is the writer's."""

    def __init__(
        self,
        *,
        registry: Registry,
        engine: FleetEngine,
        clock: Callable[[], float],
        mark: Callable[[Key], None],
    ) -> None:
        self._registry = registry
        self._engine = engine
        self._clock = clock
        self._mark = mark
        self._opinions: dict[str, dict[str, bool]] = {}
        self._asked: set[str] = set()

    def ask(self, uid: str) -> None:
        """What was thought of a backend may be so no more: its labels or a policy changed."""
        self._asked.add(uid)

    def asked(self, uid: str) -> bool:
        """Whether it is to be looked at without waiting for its interval."""
        return uid in self._asked

    def forget(self, uid: str) -> None:
        """A backend is gone."""
        self._asked.discard(uid)
        self._opinions.pop(uid, None)

    def look(self, uid: str) -> None:
        """Asks every audit policy of a backend that is there."""
        self._asked.discard(uid)
        backend = self._registry.backends.get(uid)
        if backend is None:
            return
        before, found = self._opinions.get(uid, {}), {}
        for policy in self._of(backend):
            thresholds = policy_from_spec(policy.spec)
            firing = self._engine.firing_under(uid, thresholds, self._clock())
            found[policy.metadata.uid] = firing is not None
        if found != before:
            self._opinions[uid] = found
            for changed in dict(found.items() ^ before.items()):
                self._mark(Key(QUALITY_POLICY_PLURAL, changed))

    def would_exclude(self, policy: QualityPolicy, backend: LLMBackend) -> bool:
        """Whether a policy, were it in force, would exclude a backend or a model of it."""
        known = self._opinions.get(backend.metadata.uid, {}).get(policy.metadata.uid)
        return backend.metadata.name in policy.status.would_exclude if known is None else known

    def _of(self, backend: LLMBackend) -> list[QualityPolicy]:
        metadata = backend.metadata
        return [
            policy
            for policy in self._registry.quality.of(metadata.namespace)
            if policy.spec.enforcement is Enforcement.AUDIT
            and policy.spec.target_selector.matches(metadata.labels)
        ]
