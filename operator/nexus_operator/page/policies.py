"""Policies as the page shows them: what they say, whom they match, for whom they are in force.

Promises lines made of a policy's spec and status alone, and a list of whom it matches by the same
selection that puts it in force. It keeps nothing; which policy wins is `nexus_quality.policy`'s.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from nexus_api import LLMBackend, QualityPolicy, RoutingPolicy, reasons
from nexus_api.meta import Conditions
from nexus_api.policy import LabelSelector, LabelSelectorRequirement, SelectorOperator
from nexus_operator.slices import gathered
from nexus_quality.policy import resolve

MOST_NAMES = 500


class QualityRow(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A QualityPolicy; `rules`: its thresholds, in the names of the spec."""

    namespace: str
    name: str
    enforcement: str
    selector: str
    rules: dict[str, str | int]
    reason: str = ""
    message: str = ""
    matched: int | None = None
    effective: int | None = None
    excluded: int | None = None
    would_exclude: tuple[str, ...] = ()


class RoutingRow(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A RoutingPolicy and its budget; amounts are decimal strings in USD, `as_of` is RFC 3339."""

    namespace: str
    name: str
    strategy: str
    aliases: int = 0
    fallbacks: int = 0
    traffic_policies: int = 0
    max_retries: int = 0
    reason: str = ""
    message: str = ""
    limit: str | None = None
    soft_limit: str | None = None
    action: str | None = None
    spent: str | None = None
    month: str | None = None
    budget: str | None = None
    as_of: str | None = None


class Match(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A backend that a policy matches; `winner`: the policy in force for it."""

    name: str
    state: str
    winner: str | None = None


class Matches(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """Whom a policy matches; `omitted`: how many more than are named."""

    matches: tuple[Match, ...]
    omitted: int = 0


def quality_row(policy: QualityPolicy) -> QualityRow:
    """The line of a QualityPolicy."""
    spec, status = policy.spec, policy.status
    reason, message = _said(status.conditions, reasons.EFFECTIVE)
    return QualityRow(
        namespace=policy.metadata.namespace,
        name=policy.metadata.name,
        enforcement=spec.enforcement.value,
        selector=selector_text(spec.target_selector),
        rules={
            "errorRateThreshold": spec.error_rate_threshold,
            "minRequests": spec.min_requests,
            "minReporters": spec.min_reporters,
            "shortWindowSeconds": spec.short_window_seconds,
            "consecutiveFailures": spec.consecutive_failures,
            "ttftPenaltyThresholdMilliseconds": spec.ttft_penalty_threshold_milliseconds,
            "whenAllExcluded": spec.when_all_excluded.value,
        },
        reason=reason,
        message=message,
        matched=status.matched_backends,
        effective=status.effective_backends,
        excluded=status.excluded_backends,
        would_exclude=status.would_exclude,
    )


def routing_row(policy: RoutingPolicy) -> RoutingRow:
    """The line of a RoutingPolicy."""
    spec, told = policy.spec, policy.status.budget
    reason, message = _said(policy.status.conditions, reasons.ACCEPTED)
    limited = spec.budget.monthly_limit_usd is not None
    return RoutingRow(
        namespace=policy.metadata.namespace,
        name=policy.metadata.name,
        strategy=spec.strategy.value,
        aliases=len(spec.aliases),
        fallbacks=len(spec.fallbacks),
        traffic_policies=len(spec.traffic_policies),
        max_retries=spec.max_retries,
        reason=reason,
        message=message,
        limit=spec.budget.monthly_limit_usd,
        soft_limit=spec.budget.soft_limit if limited else None,
        action=spec.budget.hard_limit_action.value if limited else None,
        spent=told.spent_usd if told is not None else None,
        month=told.month if told is not None else None,
        budget=told.state.value if told is not None else None,
        as_of=told.as_of if told is not None else None,
    )


async def matches(
    policy: QualityPolicy, *, backends: Iterable[LLMBackend], policies: Iterable[QualityPolicy]
) -> Matches:
    """Whom a policy matches, among the backends and policies of its namespace, by name.

    Others have their turn in between: each backend is held against each policy.
    """
    rivals, selector = list(policies), policy.spec.target_selector
    chosen = sorted(
        (each for each in backends if selector.matches(each.metadata.labels)),
        key=lambda each: each.metadata.name,
    )
    found = await gathered(match(each, rivals) for each in chosen[:MOST_NAMES])
    return Matches(matches=tuple(found), omitted=max(0, len(chosen) - MOST_NAMES))


def match(backend: LLMBackend, policies: Iterable[QualityPolicy]) -> Match:
    """A backend and who is in force for it."""
    winner, state = resolve(backend.metadata.labels, policies), backend.status.state
    return Match(
        name=backend.metadata.name,
        state=state.value if state else "",
        winner=winner.metadata.name if winner is not None else None,
    )


def selector_text(selector: LabelSelector) -> str:
    """A selector as `kubectl get -l` takes it; "" selects all."""
    equal = [f"{key}={value}" for key, value in sorted(selector.match_labels.items())]
    return ",".join([*equal, *map(_requirement, selector.match_expressions)])


def _requirement(asked: LabelSelectorRequirement) -> str:
    return _WRITTEN[asked.operator].format(key=asked.key, values=",".join(asked.values))


_WRITTEN = {
    SelectorOperator.IN: "{key} in ({values})",
    SelectorOperator.NOT_IN: "{key} notin ({values})",
    SelectorOperator.EXISTS: "{key}",
    SelectorOperator.DOES_NOT_EXIST: "!{key}",
}


def _said(conditions: Conditions, kind: str) -> tuple[str, str]:
    for each in conditions:
        if each.type == kind:
            return each.reason, each.message
    return "", ""
