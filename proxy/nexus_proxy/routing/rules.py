"""The RoutingPolicy in force, compiled to what a decision needs.

`Rules` is immutable. Without any policy the defaults of the schema hold. Which candidates satisfy
the rules is the pipeline's business (`steps`), not this file's.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from nexus_api import (
    BudgetState,
    HardLimitAction,
    Queue,
    RoutingPolicy,
    RoutingPolicySpec,
    Strategy,
    TrafficPolicy,
    TrafficPrivacy,
    Weights,
)
from nexus_proxy.routing.names import alias_chain, alias_map, fallback_map

BLOCK_NOTHING = ""
BLOCK_CLOUD = "BlockCloud"
BLOCK_ALL = "BlockAll"


@dataclass(frozen=True, slots=True)
class Demand:
    """What the traffic policies ask of a request's backends."""

    restricted: bool = False
    min_tier: int = 1

    def joined(self, other: Demand) -> Demand:
        """The stricter of both, in each respect."""
        return Demand(self.restricted or other.restricted, max(self.min_tier, other.min_tier))


@dataclass(frozen=True, slots=True)
class TrafficRule:
    """One traffic policy: a compiled glob and what it asks."""

    pattern: re.Pattern[str]
    demand: Demand


@dataclass(frozen=True, slots=True)
class Rules:
    """How the requests of this namespace are routed."""

    strategy: Strategy = Strategy.SMART
    weights: Weights = field(default_factory=Weights)
    aliases: Mapping[str, str] = field(default_factory=dict)
    fallbacks: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    traffic: tuple[TrafficRule, ...] = ()
    max_retries: int = 2
    queue: Queue = field(default_factory=Queue)
    soft_limit: bool = False
    block: str = BLOCK_NOTHING

    def chain(self, name: str) -> tuple[str, ...]:
        """The name and what it stands for, the model last."""
        return alias_chain(name, self.aliases)

    def demand(self, names: Iterable[str]) -> Demand:
        """What is asked of a request that goes by all of these names: for each name the first
        policy that matches, and of those the strictest, so that no alias or fallback loosens
        anything.
        """
        asked = Demand()
        for name in names:
            first = next((rule for rule in self.traffic if rule.pattern.fullmatch(name)), None)
            if first is not None:
                asked = asked.joined(first.demand)
        return asked


def in_force(policies: Iterable[RoutingPolicy]) -> RoutingPolicy | None:
    """The one policy that governs a namespace: the oldest, then by name."""
    return min(
        policies,
        key=lambda policy: (policy.metadata.creation_timestamp, policy.metadata.name),
        default=None,
    )


def compile_rules(
    policy: RoutingPolicy | None, *, budget: BudgetState = BudgetState.NORMAL
) -> Rules:
    """The rules of a policy; `budget` is how far its budget is spent."""
    spec = policy.spec if policy else RoutingPolicySpec()
    return Rules(
        strategy=spec.strategy,
        weights=spec.weights,
        aliases=alias_map(spec.aliases),
        fallbacks=fallback_map(spec.fallbacks),
        traffic=tuple(map(_traffic_rule, spec.traffic_policies)),
        max_retries=spec.max_retries,
        queue=spec.queue,
        soft_limit=budget is not BudgetState.NORMAL,
        block=_block(budget, spec.budget.hard_limit_action),
    )


def _traffic_rule(policy: TrafficPolicy) -> TrafficRule:
    return TrafficRule(
        pattern=re.compile(fnmatch.translate(policy.model_pattern)),
        demand=Demand(policy.privacy is TrafficPrivacy.RESTRICTED, policy.min_tier or 1),
    )


def _block(state: BudgetState, action: HardLimitAction) -> str:
    if state is not BudgetState.HARD_LIMIT:
        return BLOCK_NOTHING
    return {
        HardLimitAction.WARN: BLOCK_NOTHING,
        HardLimitAction.BLOCK_CLOUD: BLOCK_CLOUD,
        HardLimitAction.BLOCK_ALL: BLOCK_ALL,
    }[action]
