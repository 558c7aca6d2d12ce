"""What the workers must know of the world, and what changed of it since they were told.

Promises that a worker which is told the whole and then every change has what the parent has. It
compares objects by identity, as a watch replaces them; it sends nothing.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

from msgspec import structs

from nexus_api import BudgetState, LLMBackend, RoutingPolicy
from nexus_proxy.control import Objects
from nexus_proxy.workers.wire import World
from nexus_quality.shared import SharedVerdict

T = TypeVar("T")
Secrets = dict[str, dict[str, str]]


class Outlook:
    """The world as `workers` processes were last told. `verdicts` are set by whoever finds them."""

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self.verdicts: dict[str, SharedVerdict] = {}
        self._objects = Objects()
        self._backends: dict[str, LLMBackend] = {}
        self._told: dict[str, SharedVerdict] = {}
        self._secrets: Secrets | None = None
        self._budget = BudgetState.NORMAL

    def whole(self) -> World:
        """All that was told so far, for a worker that begins."""
        return World(
            backends=list(self._backends.values()),
            verdicts=dict(self._told),
            quality_policies=self._objects.quality_policies,
            routing_policies=self._objects.routing_policies,
            secrets=self._secrets,
            budget=self._budget,
        )

    def news(self, objects: Objects, secrets: Secrets | None, budget: BudgetState) -> World | None:
        """What changed since the last call, None if nothing did."""
        now = {backend.metadata.uid: backend for backend in objects.backends}
        before, self._backends = self._backends, now
        self.verdicts = {uid: said for uid, said in self.verdicts.items() if uid in now}
        told, self._told = self._told, dict(self.verdicts)
        divided = tuple(divide(each, self._workers) for each in objects.routing_policies)
        objects = replace(objects, routing_policies=divided)
        old, self._objects = self._objects, objects
        same = (secrets, budget) == (self._secrets, self._budget)
        world = World(
            backends=[each for uid, each in now.items() if before.get(uid) is not each],
            verdicts={uid: said for uid, said in self._told.items() if told.get(uid) != said},
            gone=[uid for uid in before if uid not in now],
            quality_policies=_changed(old.quality_policies, objects.quality_policies),
            routing_policies=_changed(old.routing_policies, objects.routing_policies),
            secrets=None if secrets == self._secrets else secrets,
            budget=budget,
        )
        self._secrets, self._budget = secrets, budget
        told_apart = (world.backends, world.verdicts, world.gone)
        policies = (world.quality_policies, world.routing_policies)
        return None if same and not any(told_apart) and policies == (None, None) else world


def divide(policy: RoutingPolicy, workers: int) -> RoutingPolicy:
    """The policy for one of several workers: each has a queue of its own, of its part of the size
    rounded up.
    """
    queue = policy.spec.queue
    part = structs.replace(queue, max_size=-(-queue.max_size // workers))
    return structs.replace(policy, spec=structs.replace(policy.spec, queue=part))


def _changed(old: tuple[T, ...], new: tuple[T, ...]) -> tuple[T, ...] | None:
    return None if old == new else new
