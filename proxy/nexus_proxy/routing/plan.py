"""The answer of the pipeline for one kind of request, kept until the table or a standing changes.

A plan is the legs a request may take in order: the model it asked for, then the fallbacks. Requests
of one kind are those that name the same model, need the same capabilities and fit the same contexts
at the same endpoint.
"""

from __future__ import annotations

from bisect import bisect_left

from nexus_api import reasons
from nexus_proxy.routing.choice import CAPABILITY_MATCH, FAILOVER, PRIVACY_REQUIREMENT
from nexus_proxy.routing.leg import Leg, Sorted, Surroundings
from nexus_proxy.routing.request import Call
from nexus_proxy.routing.steps import Profile, missing_capabilities
from nexus_proxy.routing.table import Table


class Plan:
    """The legs of one kind of request, and what each of its candidates was left out for; `kind`
    tells it from the others of its route.
    """

    __slots__ = ("kind", "legs", "missing")

    def __init__(self, legs: tuple[Leg, ...], missing: tuple[str, ...], kind: int = 0) -> None:
        self.kind = kind
        self.legs = legs
        self.missing = missing

    @property
    def incapable(self) -> bool:
        """True if every candidate lacks something the request needs."""
        return all(leg.sorted.incapable == leg.sorted.configured for leg in self.legs)


class Route:
    """Where requests for one name lead: the models that may answer, and a plan per kind of
    request.
    """

    __slots__ = ("lengths", "models", "names", "plans")

    def __init__(self, name: str, table: Table) -> None:
        self.names = table.rules.chain(name)
        model = self.names[-1]
        wanted = dict.fromkeys((model, *table.rules.fallbacks.get(model, ())))
        self.models = tuple(m for m in wanted if m in table.candidates)
        self.lengths = sorted(
            {
                candidate.traits.context_length
                for m in self.models
                for candidate in table.candidates[m]
                if candidate.traits.context_length is not None
            }
        )
        self.plans: dict[int, Plan] = {}

    def plan(self, call: Call, table: Table, surroundings: Surroundings) -> Plan:
        """The plan for a call, from memory where there is one."""
        kind = call.needs | call.flexible << 4 | call.endpoint.number << 5
        tokens = 0
        if self.lengths:
            tokens = call.estimated_tokens()
            kind |= bisect_left(self.lengths, tokens) << 8
        plan = self.plans.get(kind)
        if plan is None:
            plan = self.plans[kind] = _build(self, call, tokens, table, surroundings)
            plan.kind = kind
        return plan


def _build(route: Route, call: Call, tokens: int, table: Table, surroundings: Surroundings) -> Plan:
    missing: dict[str, None] = {}
    legs: list[Leg] = []
    for model in route.models:
        demand = table.rules.demand((*route.names, model))
        profile = Profile(
            needs=call.needs,
            tokens=tokens,
            restricted=demand.restricted,
            min_tier=demand.min_tier,
            block=table.rules.block,
        )
        for candidate in table.candidates[model]:
            missing.update(dict.fromkeys(missing_capabilities(profile, candidate)))
        fallback = model != route.names[-1]
        answer = _sorted(model, profile, table, flexible=call.flexible)
        leg = Leg(
            model,
            answer,
            surroundings,
            endpoint=call.endpoint,
            requested=call.model,
            fallback=fallback,
            reason=FAILOVER if fallback else _base_reason(answer),
        )
        legs.append(leg)
    return Plan(tuple(legs), tuple(missing))


def _sorted(model: str, profile: Profile, table: Table, *, flexible: bool) -> Sorted:
    answer = Sorted(profile, table.candidates[model])
    usable = answer.admitted or answer.slow or answer.probing
    if flexible and profile.min_tier > 1 and not usable:
        relaxed = Profile(profile.needs, profile.tokens, profile.restricted, 1, profile.block)
        answer = Sorted(relaxed, table.candidates[model])
    return answer


def _base_reason(answer: Sorted) -> str:
    private = any(reason.reconciler == reasons.PRIVACY_RECONCILER for reason in answer.reasons)
    return PRIVACY_REQUIREMENT if private else CAPABILITY_MATCH
