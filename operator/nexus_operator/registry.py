"""The objects the operator knows: backends and both kinds of policy, by UID.

Promises to hold exactly what it was told, and to say which policy is in force. What a policy means
is `nexus_quality.policy`'s to decide; nothing here watches, judges or writes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from nexus_api import LLMBackend, ObjectMeta, QualityPolicy, RoutingPolicy
from nexus_api.meta import (
    BACKEND_KIND,
    BACKEND_PLURAL,
    QUALITY_POLICY_KIND,
    QUALITY_POLICY_PLURAL,
    ROUTING_POLICY_KIND,
    ROUTING_POLICY_PLURAL,
)
from nexus_quality.policy import DEFAULT_POLICY, Policy, policy_from_spec, resolve

NexusObject = LLMBackend | QualityPolicy | RoutingPolicy
_T = TypeVar("_T", LLMBackend, QualityPolicy, RoutingPolicy)

KIND_OF = {
    BACKEND_PLURAL: BACKEND_KIND,
    QUALITY_POLICY_PLURAL: QUALITY_POLICY_KIND,
    ROUTING_POLICY_PLURAL: ROUTING_POLICY_KIND,
}
PLURALS = tuple(KIND_OF)


class Shelf(Generic[_T]):
    """The objects of one kind, by UID and by namespace; `changed` hears of each that is another."""

    def __init__(self) -> None:
        self._by_uid: dict[str, _T] = {}
        self._by_namespace: dict[str, dict[str, _T]] = {}
        self.changed: Callable[[str], None] = lambda uid: None

    def put(self, thing: _T) -> None:
        """Takes in an object, in the place of what it was before."""
        self._by_uid[thing.metadata.uid] = thing
        self._by_namespace.setdefault(thing.metadata.namespace, {})[thing.metadata.uid] = thing
        self.changed(thing.metadata.uid)

    def remove(self, uid: str) -> _T | None:
        """Forgets an object."""
        gone = self._by_uid.pop(uid, None)
        if gone is not None:
            siblings = self._by_namespace[gone.metadata.namespace]
            del siblings[uid]
            if not siblings:
                del self._by_namespace[gone.metadata.namespace]
            self.changed(uid)
        return gone

    def get(self, uid: str) -> _T | None:
        """The object with that UID."""
        return self._by_uid.get(uid)

    def named(self, namespace: str, name: str) -> _T | None:
        """The object with that name."""
        siblings = self._by_namespace.get(namespace, {}).values()
        return next((thing for thing in siblings if thing.metadata.name == name), None)

    def of(self, namespace: str) -> list[_T]:
        """All objects of a namespace."""
        return list(self._by_namespace.get(namespace, {}).values())

    def namespaces(self) -> list[str]:
        """The namespaces that hold any."""
        return list(self._by_namespace)

    def uids(self) -> set[str]:
        """The UIDs of all."""
        return set(self._by_uid)

    def __iter__(self) -> Iterator[_T]:
        return iter(list(self._by_uid.values()))

    def __len__(self) -> int:
        return len(self._by_uid)


@dataclass(slots=True)
class Registry:
    """All three kinds."""

    backends: Shelf[LLMBackend] = field(default_factory=Shelf)
    quality: Shelf[QualityPolicy] = field(default_factory=Shelf)
    routing: Shelf[RoutingPolicy] = field(default_factory=Shelf)

    def shelf(self, plural: str) -> Shelf[LLMBackend] | Shelf[QualityPolicy] | Shelf[RoutingPolicy]:
        """The shelf of a kind, by its plural."""
        shelves = {
            BACKEND_PLURAL: self.backends,
            QUALITY_POLICY_PLURAL: self.quality,
            ROUTING_POLICY_PLURAL: self.routing,
        }
        return shelves[plural]  # type: ignore[return-value]

    def policy_in_force(self, backend: LLMBackend) -> QualityPolicy | None:
        """The one enforcing policy of a backend, None for the defaults."""
        metadata = backend.metadata
        policies = self.quality.of(metadata.namespace)
        return resolve(metadata.labels, policies) if policies else None

    def thresholds(self, backend: LLMBackend) -> Policy:
        """The numbers in force for a backend."""
        policy = self.policy_in_force(backend)
        return DEFAULT_POLICY if policy is None else policy_from_spec(policy.spec)


def full_name(metadata: ObjectMeta) -> str:
    """`namespace/name`, the id of a backend in metrics, statistics and messages."""
    return f"{metadata.namespace}/{metadata.name}"
