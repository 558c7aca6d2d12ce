"""How long an exclusion lasts, and how its memory fades.

Promises the contract's d(n): doubling from the base to the maximum, jittered downwards only, so
that a fleet does not come back at one instant and nobody waits longer than the policy says.
"""

from __future__ import annotations

from collections.abc import Callable

from nexus_quality.policy import Policy

JITTER = 0.1


def exclusion_seconds(count: int, policy: Policy, random: Callable[[], float]) -> float:
    """The length of the `count`th exclusion in a row (from 1), in seconds."""
    doubled = policy.base_exclusion_seconds << min(max(count, 1) - 1, 20)
    return min(doubled, policy.max_exclusion_seconds) * (1 - JITTER * random())


def faded(count: int, calm_since: float, now: float, policy: Policy) -> tuple[int, float]:
    """`count` less one for each maximum exclusion spent calm; and since when the rest counts."""
    if count <= 0:
        return 0, now
    steps = min(count, int((now - calm_since) // policy.max_exclusion_seconds))
    return count - steps, calm_since + steps * policy.max_exclusion_seconds
