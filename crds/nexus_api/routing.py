"""RoutingPolicy: how the proxies of a namespace choose between backends.

Promises: the fields, defaults and bounds of `crds/routingpolicies.yaml`.
Not here: the routing itself.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import msgspec
from msgspec import Meta

from nexus_api.meta import Conditions, ObjectMeta
from nexus_api.wire import Amount, Count, Money, Month, Name, Percent, Seconds, Tier, Time, Wire


class Strategy(StrEnum):
    """How one of several suitable backends is chosen."""

    SMART = "Smart"
    ROUND_ROBIN = "RoundRobin"
    PRIORITY_ONLY = "PriorityOnly"
    RANDOM = "Random"


class TrafficPrivacy(StrEnum):
    """Where requests for a model may go."""

    RESTRICTED = "Restricted"
    UNRESTRICTED = "Unrestricted"


class HardLimitAction(StrEnum):
    """What happens once the month's budget is spent."""

    WARN = "Warn"
    BLOCK_CLOUD = "BlockCloud"
    BLOCK_ALL = "BlockAll"


class BudgetState(StrEnum):
    """How far the month's budget is spent."""

    NORMAL = "Normal"
    SOFT_LIMIT = "SoftLimit"
    HARD_LIMIT = "HardLimit"


Weight = Annotated[int, Meta(ge=0, le=100)]


class Weights(Wire, frozen=True, kw_only=True):
    """Parts of the Smart score, in percent; they sum to 100."""

    priority: Weight = 50
    load: Weight = 30
    latency: Weight = 20


class Alias(Wire, frozen=True, kw_only=True):
    """A model name that stands for another one."""

    name: Name
    model: Name


class Fallback(Wire, frozen=True, kw_only=True):
    """Models that may answer, in this order, when no backend of `model` can."""

    model: Name
    to: Annotated[tuple[Name, ...], Meta(min_length=1, max_length=8)]


class TrafficPolicy(Wire, frozen=True, kw_only=True):
    """A restriction on the requests whose model name matches a glob."""

    model_pattern: Name
    privacy: TrafficPrivacy | None = None
    min_tier: Tier | None = None


class Queue(Wire, frozen=True, kw_only=True):
    """Requests that wait in a proxy for a free place."""

    enabled: bool = True
    max_size: Annotated[int, Meta(ge=1, le=100_000)] = 100
    max_wait_seconds: Seconds = 30


class Budget(Wire, frozen=True, kw_only=True):
    """The month's spending limit. `monthly_limit_usd` None means no limit."""

    monthly_limit_usd: Money | None = None
    soft_limit: Percent = "75%"
    hard_limit_action: HardLimitAction = HardLimitAction.WARN


class RoutingPolicySpec(Wire, frozen=True, kw_only=True):
    """How to route. The defaults are what holds without any policy."""

    strategy: Strategy = Strategy.SMART
    weights: Weights = msgspec.field(default_factory=Weights)
    aliases: Annotated[tuple[Alias, ...], Meta(max_length=128)] = ()
    fallbacks: Annotated[tuple[Fallback, ...], Meta(max_length=64)] = ()
    traffic_policies: Annotated[tuple[TrafficPolicy, ...], Meta(max_length=64)] = ()
    max_retries: Annotated[int, Meta(ge=0, le=10)] = 2
    queue: Queue = msgspec.field(default_factory=Queue)
    budget: Budget = msgspec.field(default_factory=Budget)


class BudgetStatus(Wire, frozen=True, kw_only=True):
    """What the namespace's proxies have spent in a UTC month."""

    month: Month
    spent_usd: Amount
    state: BudgetState
    as_of: Time


class RoutingPolicyStatus(Wire, frozen=True, kw_only=True):
    """What the operator publishes about a policy."""

    observed_generation: Count | None = None
    conditions: Conditions = ()
    budget: BudgetStatus | None = None


class RoutingPolicy(Wire, frozen=True, kw_only=True):
    """A routing policy object."""

    metadata: ObjectMeta
    spec: RoutingPolicySpec = msgspec.field(default_factory=RoutingPolicySpec)
    status: RoutingPolicyStatus = msgspec.field(default_factory=RoutingPolicyStatus)
