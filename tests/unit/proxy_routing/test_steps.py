"""Each step of the pipeline alone: what it lets through, and in which words it does not."""

from __future__ import annotations

from typing import Any

import pytest

from nexus_api import reasons
from nexus_proxy.routing import steps
from nexus_proxy.routing.candidate import Candidate, Traits
from nexus_proxy.routing.request import JSON, TOOLS, VISION
from nexus_proxy.routing.rules import BLOCK_ALL, BLOCK_CLOUD
from nexus_proxy.routing.steps import PIPELINE, Profile, Step
from nexus_quality.subject import Standing

PLAIN = Profile()
STEPS: list[tuple[Step, Profile, Traits, str | None]] = [
    (steps.capabilities, Profile(needs=VISION), Traits(capabilities=None), None),
    (steps.capabilities, Profile(needs=VISION), Traits(capabilities=VISION | TOOLS), None),
    (steps.capabilities, Profile(needs=VISION | JSON), Traits(capabilities=JSON), "vision"),
    (steps.capabilities, Profile(needs=TOOLS | JSON), Traits(capabilities=0), "tools, json"),
    (steps.capabilities, Profile(tokens=100), Traits(context_length=100), None),
    (steps.capabilities, Profile(tokens=101), Traits(context_length=100), "context_length"),
    (steps.capabilities, Profile(tokens=10**9), Traits(context_length=None), None),
    (steps.privacy, PLAIN, Traits(zone="Open"), None),
    (steps.privacy, Profile(restricted=True), Traits(zone="Restricted"), None),
    (steps.privacy, Profile(restricted=True), Traits(zone="Open"), "Open is not allowed"),
    (steps.budget, PLAIN, Traits(zone="Open"), None),
    (steps.budget, Profile(block=BLOCK_CLOUD), Traits(zone="Restricted"), None),
    (steps.budget, Profile(block=BLOCK_CLOUD), Traits(zone="Open"), "budget is spent"),
    (steps.budget, Profile(block=BLOCK_CLOUD), Traits(zone="Open", price=None), "BlockCloud"),
    (steps.budget, Profile(block=BLOCK_ALL), Traits(zone="Restricted"), "BlockAll"),
    (steps.tier, Profile(min_tier=3), Traits(tier=3), None),
    (steps.tier, Profile(min_tier=3), Traits(tier=2), "tier 2 is below the required 3"),
    (steps.suspension, PLAIN, Traits(suspended=True), "Suspended"),
    (steps.suspension, PLAIN, Traits(), None),
    (steps.obstacle, PLAIN, Traits(obstacle=("no key", "mount it")), "no key"),
    (steps.health, PLAIN, Traits(unhealthy=("Unhealthy: refused", "look")), "refused"),
]


@pytest.mark.parametrize(("step", "profile", "traits", "said"), STEPS)
def test_a_step_lets_through_or_says_why(
    world: Any, step: Step, profile: Profile, traits: Traits, said: str | None
) -> None:
    candidate: Candidate = world.add("b", traits=traits)
    reason = step(profile, candidate)
    if said is None:
        assert reason is None
        return
    assert reason is not None
    assert said in reason.reason
    assert reason.backend == "b"
    assert reason.suggested_action
    assert reason.reconciler in reasons.RECONCILERS


@pytest.mark.parametrize(
    ("standing", "out"),
    [
        (Standing.ADMITTED, False),
        (Standing.SLOW_START, False),
        (Standing.PROBING, False),
        (Standing.OUT, True),
    ],
)
def test_the_quality_step_leaves_out_only_what_the_verdict_or_the_breaker_did(
    world: Any, subject: Any, standing: Standing, out: bool
) -> None:
    candidate = world.add("b", subject=subject(standing=standing))
    reason = steps.quality(PLAIN, candidate)
    assert (reason is not None) is out
    if reason is not None:
        assert reason.reason == "error rate 60% of 20 requests"
        assert reason.reconciler == "QualityReconciler"


def test_the_pipeline_runs_in_the_contracts_order(world: Any, subject: Any) -> None:
    traits = Traits(
        zone="Open",
        capabilities=0,
        suspended=True,
        unhealthy=("Unhealthy", "look"),
        obstacle=("no key", "mount it"),
    )
    out = subject(standing=Standing.OUT)
    candidate = world.add("b", traits=traits, subject=out)
    profile = Profile(needs=VISION, restricted=True, min_tier=5, block=BLOCK_ALL)
    said = [reason.reconciler for step in PIPELINE if (reason := step(profile, candidate))]
    assert tuple(dict.fromkeys(said)) == reasons.RECONCILERS
    assert len(said) == len(PIPELINE)
