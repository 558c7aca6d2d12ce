"""The pipeline: small functions from (request profile, candidate) to nothing or a `Reason`.

`PIPELINE` holds them in the contract's order. A step sees one candidate and decides only whether it
may serve; which of those that may is the scheduler's choice (`plan`, `strategy`). Load and rests
change with every request and are therefore no steps: the scheduler looks at them when it chooses.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from nexus_api import reasons
from nexus_proxy.routing.candidate import Candidate
from nexus_proxy.routing.reason import Reason
from nexus_proxy.routing.request import CAPABILITY_NAMES
from nexus_proxy.routing.rules import BLOCK_ALL, BLOCK_CLOUD
from nexus_quality import words
from nexus_quality.subject import Standing

OPEN_ZONE = "Open"


@dataclass(frozen=True, slots=True)
class Profile:
    """What requests of one kind have in common, as far as the pipeline can tell them apart.

    `needs` is a bit set of capabilities, `tokens` the context they take (0: not looked at), `block`
    what the spent budget forbids (`BLOCK_NOTHING`, `BLOCK_CLOUD` or `BLOCK_ALL`).
    """

    needs: int = 0
    tokens: int = 0
    restricted: bool = False
    min_tier: int = 1
    block: str = ""


Step = Callable[[Profile, Candidate], Reason | None]


def _reason(candidate: Candidate, reconciler: str, reason: str, action: str) -> Reason:
    return Reason(candidate.backend.name, reconciler, reason, action)


def capabilities(profile: Profile, candidate: Candidate) -> Reason | None:
    """RequestAnalyzer: what the request needs and the model is known not to have."""
    missing = missing_capabilities(profile, candidate)
    if not missing:
        return None
    return _reason(
        candidate,
        reasons.REQUEST_ANALYZER,
        f"Missing capabilities: {', '.join(missing)}",
        "Use a model that has them, or correct models[] of the LLMBackend",
    )


def missing_capabilities(profile: Profile, candidate: Candidate) -> list[str]:
    """Names of what is missing; empty when nothing is, or nothing is known."""
    traits = candidate.traits
    lacking = 0 if traits.capabilities is None else profile.needs & ~traits.capabilities
    missing = [name for bit, name in CAPABILITY_NAMES.items() if lacking & bit]
    if traits.context_length is not None and profile.tokens > traits.context_length:
        missing.append(f"context_length (the model has {traits.context_length} tokens)")
    return missing


def privacy(profile: Profile, candidate: Candidate) -> Reason | None:
    """PrivacyReconciler: restricted traffic stays in the Restricted zone."""
    if not profile.restricted or candidate.traits.zone != OPEN_ZONE:
        return None
    return _reason(
        candidate,
        reasons.PRIVACY_RECONCILER,
        "Privacy zone Open is not allowed for this model's traffic",
        "Add a Restricted backend for the model, or change trafficPolicies of the RoutingPolicy",
    )


def budget(profile: Profile, candidate: Candidate) -> Reason | None:
    """BudgetReconciler: what the month's hard limit blocks."""
    blocked = profile.block == BLOCK_ALL or (
        profile.block == BLOCK_CLOUD and candidate.traits.zone == OPEN_ZONE
    )
    if not blocked:
        return None
    return _reason(
        candidate,
        reasons.BUDGET_RECONCILER,
        f"The monthly budget is spent (hardLimitAction {profile.block})",
        "Raise budget.monthlyLimitUSD of the RoutingPolicy, or wait for the next month",
    )


def tier(profile: Profile, candidate: Candidate) -> Reason | None:
    """TierReconciler: backends below the tier the model's traffic asks for."""
    if candidate.traits.tier >= profile.min_tier:
        return None
    return _reason(
        candidate,
        reasons.TIER_RECONCILER,
        f"Capability tier {candidate.traits.tier} is below the required {profile.min_tier}",
        "Send X-Nexus-Flexible: true to accept a lower tier, or add a backend of that tier",
    )


def quality(profile: Profile, candidate: Candidate) -> Reason | None:
    """QualityReconciler: what the shared verdict or this proxy's own breaker keeps out."""
    if candidate.subject.standing is not Standing.OUT:
        return None
    return _reason(candidate, reasons.QUALITY_RECONCILER, *candidate.subject.why())


def suspension(profile: Profile, candidate: Candidate) -> Reason | None:
    """SchedulerReconciler: backends that a person took out of routing."""
    if not candidate.traits.suspended:
        return None
    return _reason(candidate, reasons.SCHEDULER_RECONCILER, *words.SUSPENDED)


def obstacle(profile: Profile, candidate: Candidate) -> Reason | None:
    """SchedulerReconciler: backends that cannot be reached as configured, or refuse their key."""
    found = candidate.traits.obstacle or candidate.subject.rejected()
    return None if found is None else _reason(candidate, reasons.SCHEDULER_RECONCILER, *found)


def health(profile: Profile, candidate: Candidate) -> Reason | None:
    """SchedulerReconciler: backends whose probes fail."""
    if candidate.traits.unhealthy is None:
        return None
    return _reason(candidate, reasons.SCHEDULER_RECONCILER, *candidate.traits.unhealthy)


PIPELINE: tuple[Step, ...] = (
    capabilities,
    privacy,
    budget,
    tier,
    quality,
    suspension,
    obstacle,
    health,
)

# What these leave out is still there for the last resort; what any other step leaves out never is.
LAST_RESORT_STEPS = frozenset((quality, health))
