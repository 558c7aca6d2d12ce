"""Group, version, kinds, object metadata and conditions: what all three kinds have in common.

Promises: the identifiers of the custom resources are spelled here and nowhere else.
Not here: condition types and reasons (see `reasons`).
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import msgspec
from msgspec import Meta

from nexus_api.wire import Count, Time, Wire

GROUP = "nexus.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"

BACKEND_KIND = "LLMBackend"
BACKEND_PLURAL = "llmbackends"
QUALITY_POLICY_KIND = "QualityPolicy"
QUALITY_POLICY_PLURAL = "qualitypolicies"
ROUTING_POLICY_KIND = "RoutingPolicy"
ROUTING_POLICY_PLURAL = "routingpolicies"

KINDS = (BACKEND_KIND, QUALITY_POLICY_KIND, ROUTING_POLICY_KIND)
PLURALS = {
    BACKEND_KIND: BACKEND_PLURAL,
    QUALITY_POLICY_KIND: QUALITY_POLICY_PLURAL,
    ROUTING_POLICY_KIND: ROUTING_POLICY_PLURAL,
}


class ObjectMeta(Wire, frozen=True, kw_only=True):
    """The part of Kubernetes object metadata that Nexus reads.

    `uid`, `resource_version` and `creation_timestamp` are empty and `generation` is 0 for an object
    that never was on an API server (the standalone mode's files).
    """

    name: str
    namespace: str = ""
    uid: str = ""
    generation: int = 0
    resource_version: str = ""
    labels: dict[str, str] = msgspec.field(default_factory=dict)
    creation_timestamp: str = ""


_REASON = r"^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$"


class ConditionStatus(StrEnum):
    """The three values of a condition."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


class Condition(Wire, frozen=True, kw_only=True):
    """One condition of a status, as the Kubernetes API conventions define it."""

    type: Annotated[str, Meta(min_length=1, max_length=316)]
    status: ConditionStatus
    reason: Annotated[str, Meta(pattern=_REASON, min_length=1, max_length=1024)]
    message: Annotated[str, Meta(max_length=32768)]
    last_transition_time: Time
    observed_generation: Count | None = None


Conditions = Annotated[tuple[Condition, ...], Meta(max_length=16)]
