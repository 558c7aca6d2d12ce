"""What should be written now about policies.

Promises a plan only where the status would say something new. Whom a policy matches is `policies`',
what is excluded the engine's, what would be the audits'.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from msgspec.structs import replace

from nexus_api import SubjectState, decode_quality_policy, decode_routing_policy
from nexus_api.meta import QUALITY_POLICY_PLURAL, ROUTING_POLICY_PLURAL
from nexus_operator.audits import Audits
from nexus_operator.budget_desk import BudgetDesk
from nexus_operator.engine import FleetEngine
from nexus_operator.notes import Note
from nexus_operator.plan import Key, Plan
from nexus_operator.policies import in_force, quality_status, routing_status
from nexus_operator.registry import Registry


class PolicyPlans:
    """Plans by UID; `mark` is the writer's. Without `budgets` those published stay as they are."""

    def __init__(
        self,
        *,
        registry: Registry,
        engine: FleetEngine,
        clock: Callable[[], float],
        mark: Callable[[Key], None],
        budgets: BudgetDesk | None = None,
    ) -> None:
        self._registry = registry
        self._engine = engine
        self._clock = clock
        self._mark = mark
        self._budgets = budgets
        self.audits = Audits(registry=registry, engine=engine, clock=clock, mark=mark)

    def mark(self, namespace: str) -> None:
        """Has the statuses of a namespace's policies looked at."""
        for quality in self._registry.quality.of(namespace):
            self._mark(Key(QUALITY_POLICY_PLURAL, quality.metadata.uid))
        for routing in self._registry.routing.of(namespace):
            self._mark(Key(ROUTING_POLICY_PLURAL, routing.metadata.uid))

    def quality(self, uid: str) -> Plan | None:
        """The write that is due for a QualityPolicy."""
        policy = self._registry.quality.get(uid)
        if policy is None:
            return None
        now, namespace = self._clock(), policy.metadata.namespace
        status = quality_status(
            policy,
            backends=self._registry.backends.of(namespace),
            policies=self._registry.quality.of(namespace),
            excluded=lambda b: self._engine.verdict(b).state is not SubjectState.ACTIVE,
            would_exclude=lambda b: self.audits.would_exclude(policy, b),
            now=now,
        )
        if status == policy.status:
            return None

        def accepted(stored: Mapping[str, Any]) -> list[Note]:
            if uid in self._registry.quality.uids():
                written = decode_quality_policy(stored)
                self._registry.quality.put(replace(written, status=status))
            return []

        return Plan(metadata=policy.metadata, status=status, accepted=accepted)

    def routing(self, uid: str) -> Plan | None:
        """The write that is due for a RoutingPolicy."""
        policy = self._registry.routing.get(uid)
        if policy is None:
            return None
        rivals = self._registry.routing.of(policy.metadata.namespace)
        status = routing_status(policy, policies=rivals, now=self._clock())
        notes: list[Note] = []
        if self._budgets is not None and in_force(rivals) is policy:
            wanted = self._budgets.wanted(policy, edited=status != policy.status)
            status = replace(status, budget=wanted)
            notes = self._budgets.notes(policy, wanted)
        if status == policy.status:
            return None

        def accepted(stored: Mapping[str, Any]) -> list[Note]:
            if uid in self._registry.routing.uids():
                written = decode_routing_policy(stored)
                self._registry.routing.put(replace(written, status=status))
            if self._budgets is not None:
                self._budgets.written(uid)
            return notes

        return Plan(metadata=policy.metadata, status=status, accepted=accepted)
