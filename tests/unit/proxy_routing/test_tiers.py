"""In which order candidates are used, down to the last resort."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from nexus_api import Queue, RoutingPolicy
from nexus_proxy.routing.candidate import Traits
from nexus_proxy.routing.choice import Choice
from nexus_proxy.routing.endpoint import Endpoint
from nexus_proxy.routing.reason import Rejection
from nexus_proxy.routing.rules import BLOCK_ALL, Rules, compile_rules
from nexus_quality.subject import Standing

REJECT = Traits(least_bad=False)
SICK = Traits(unhealthy=("Unhealthy: refused", "look"))


def kinds(world: Any, subject: Any, names: str) -> None:
    """Add one candidate per letter: Active, slow start, Probation, Excluded, Unhealthy."""
    made = {
        "A": {},
        "S": {"subject": subject(standing=Standing.SLOW_START, share=0.0)},
        "P": {"subject": subject(standing=Standing.PROBING)},
        "E": {"subject": subject(standing=Standing.OUT)},
        "U": {"traits": SICK},
    }
    for name in names:
        world.add(name, **made[name])


@pytest.mark.parametrize(
    ("present", "chosen", "last_resort"),
    [
        ("ASPEU", "A", False),
        ("SPEU", "S", False),
        ("PEU", "P", True),
        ("EU", "E", True),
        ("U", "U", True),
    ],
)
def test_the_best_tier_there_is_serves(
    world: Any, call: Any, subject: Any, present: str, chosen: str, last_resort: bool
) -> None:
    kinds(world, subject, present)
    choice = world.install().choose(call(), 1.0)
    assert choice.candidate.backend.name == chosen
    assert choice.last_resort is last_resort
    assert choice.reason == ("last-resort" if last_resort else "capability-match")
    assert not choice.probe


def test_attempts_go_down_the_tiers_one_after_the_other(
    world: Any, call: Any, subject: Any
) -> None:
    kinds(world, subject, "ASPEU")
    router, request = world.install(Rules(max_retries=10)), call()
    choice, seen = router.choose(request, 1.0), []
    while isinstance(choice, Choice) and len(seen) < 5:
        seen.append(choice.candidate.backend.name)
        request.tried.append((choice, "HTTP 500"))
        choice = router.again(request, 1.0, first_retry_free=True)
    assert seen == ["A", "S", "P", "E", "U"]


def test_the_only_last_resort_is_tried_again(world: Any, call: Any, subject: Any) -> None:
    kinds(world, subject, "E")
    router, request = world.install(), call()
    request.tried.append((router.choose(request, 1.0), "HTTP 500"))
    again = router.again(request, 1.0, first_retry_free=True)
    assert again.candidate.backend.name == "E"
    assert again.last_resort


def test_a_failed_active_candidate_is_not_tried_again(world: Any, call: Any) -> None:
    world.add("only")
    router, request = world.install(), call()
    request.tried.append((router.choose(request, 1.0), "connect: refused"))
    refused = router.again(request, 1.0, first_retry_free=True)
    assert isinstance(refused, Rejection)
    assert refused.status == 503
    assert refused.reasons[0].reason == "The attempt failed: connect: refused"


def test_with_reject_the_excluded_and_unhealthy_are_no_last_resort(
    world: Any, call: Any, subject: Any
) -> None:
    world.add("out", traits=REJECT, subject=subject(standing=Standing.OUT))
    world.add("sick", traits=Traits(least_bad=False, unhealthy=("Unhealthy", "look")))
    refused = world.install().choose(call(), 1.0)
    assert (refused.status, refused.code) == (503, "no_available_backend")
    assert {reason.backend for reason in refused.reasons} == {"out", "sick"}


@pytest.mark.parametrize(("others", "served"), [("", True), ("E", False)])
def test_with_reject_probation_serves_only_where_nothing_else_is_configured(
    world: Any, call: Any, subject: Any, others: str, served: bool
) -> None:
    world.add("probing", traits=REJECT, subject=subject(standing=Standing.PROBING))
    for name in others:
        world.add(name, traits=REJECT, subject=subject(standing=Standing.OUT))
    choice = world.install().choose(call(), 1.0)
    assert isinstance(choice, Choice) is served


NEVER = [
    Traits(suspended=True),
    Traits(obstacle=("Secret s key k is not available", "mount it")),
    Traits(tier=1),
    Traits(zone="Open"),
]


@pytest.mark.parametrize("traits", NEVER)
@pytest.mark.parametrize("standing", [Standing.ADMITTED, Standing.OUT])
def test_the_last_resort_loosens_only_the_verdict_and_health(
    world: Any, call: Any, subject: Any, traits: Traits, standing: Standing
) -> None:
    traffic = [{"modelPattern": "*", "privacy": "Restricted", "minTier": 2}]
    policy = {"metadata": {"name": "r"}, "spec": {"trafficPolicies": traffic}}
    rules = compile_rules(msgspec.convert(policy, RoutingPolicy))
    world.add("never", traits=traits, subject=subject(standing=standing))
    assert isinstance(world.install(rules).choose(call(), 1.0), Rejection)


@pytest.mark.parametrize("standing", [Standing.ADMITTED, Standing.PROBING, Standing.OUT])
def test_a_backend_that_refuses_its_key_is_none_for_the_last_resort_either(
    world: Any, call: Any, subject: Any, standing: Standing
) -> None:
    said = ("key refused", "put a valid one there")
    world.add("refusing", subject=subject(standing=standing, refused=said))
    refused = world.install().choose(call(), 1.0)
    assert isinstance(refused, Rejection)
    told = {(r.reconciler, r.reason, r.suggested_action) for r in refused.reasons}
    if standing is not Standing.OUT:  # else the verdict is named, which comes first
        assert told == {("SchedulerReconciler", *said)}


def test_a_spent_budget_that_blocks_all_leaves_no_last_resort(
    world: Any, call: Any, subject: Any
) -> None:
    kinds(world, subject, "APEU")
    refused = world.install(Rules(block=BLOCK_ALL)).choose(call(), 1.0)
    assert isinstance(refused, Rejection)
    assert {reason.reconciler for reason in refused.reasons} == {"BudgetReconciler"}


def test_the_last_resort_draws_by_weight(world: Any, call: Any, subject: Any, chosen: Any) -> None:
    world.add("bad", subject=subject(standing=Standing.OUT, odds=0.05))
    world.add("better", subject=subject(standing=Standing.OUT, odds=0.45))
    counts = chosen(world.install(), (call() for _ in range(5000)))
    assert counts["bad"] == pytest.approx(500, rel=0.2)


def test_equal_weights_are_broken_by_load(world: Any, call: Any, subject: Any, chosen: Any) -> None:
    busy = world.add("busy", subject=subject(standing=Standing.OUT, odds=0.3))
    world.add("idle", subject=subject(standing=Standing.OUT, odds=0.3))
    busy.backend.in_flight = 4
    assert chosen(world.install(), (call() for _ in range(100))) == {"idle": 100}


def test_a_drawn_probe_goes_first_and_is_marked(world: Any, call: Any, subject: Any) -> None:
    world.add("active")
    world.add("probed", subject=subject(standing=Standing.PROBING, probe=True))
    choice = world.install().choose(call(), 1.0)
    assert choice.candidate.backend.name == "probed"
    assert choice.probe
    assert not choice.last_resort
    assert choice.reason == "recovery-probe"


def test_a_failed_probe_is_retried_elsewhere_and_not_probed_again(
    world: Any, call: Any, subject: Any
) -> None:
    world.add("active")
    world.add("probed", subject=subject(standing=Standing.PROBING, probe=True))
    router, request = world.install(), call()
    request.tried.append((router.choose(request, 1.0), "HTTP 500"))
    again = router.again(request, 1.0, first_retry_free=True)
    assert (again.candidate.backend.name, again.probe) == ("active", False)
    assert again.reason == "failover"


def test_requests_that_only_the_verdict_keeps_away_are_counted_once_each(
    world: Any, call: Any, subject: Any
) -> None:
    out, probing = subject(standing=Standing.OUT), subject(standing=Standing.PROBING)
    blocked = subject(standing=Standing.OUT)
    world.add("active")
    world.add("out", subject=out)
    world.add("probing", subject=probing)
    world.add("suspended", traits=Traits(suspended=True), subject=blocked)
    router = world.install()
    for _ in range(5):
        request = call()
        request.tried.append((router.choose(request, 1.0), "HTTP 500"))
        router.again(request, 1.0, first_retry_free=True)
    assert (out.eligible, probing.eligible, blocked.eligible) == (5, 5, 0)


def test_a_resting_candidate_is_passed_over_and_is_nothing_for_the_last_resort(
    world: Any, call: Any, subject: Any
) -> None:
    resting = world.add("resting")
    out = world.add("out", subject=subject(standing=Standing.OUT))
    router = world.install(Rules(queue=Queue(enabled=False)))
    resting.rest(1.0, 10.0, random=lambda: 0.0)
    assert router.choose(call(), 2.0).candidate is out
    out.rest(2.0, 4.0, random=lambda: 0.0)
    refused = router.choose(call(), 3.0)
    assert refused.retry_after == 8
    assert router.choose(call(), 11.5).candidate is resting


def test_a_full_candidate_is_passed_over_until_a_place_is_free(world: Any, call: Any) -> None:
    full = world.add("full", max_concurrency=1, traits=Traits(priority=0))
    world.add("other", traits=Traits(priority=90))
    router = world.install()
    full.backend.in_flight += 1
    choice = router.choose(call(), 1.0)
    assert (choice.candidate.backend.name, choice.reason) == ("other", "capacity-overflow")
    full.backend.in_flight -= 1
    assert router.choose(call(), 1.0).candidate is full


@pytest.mark.parametrize(
    ("asked", "least", "most"),
    [(None, 5.0, 5.5), (3.0, 3.0, 3.3), (600.0, 60.0, 66.0), (0.0, 0, 0)],
)
def test_a_rest_lasts_what_was_asked_at_most_a_minute_and_a_tenth_more(
    world: Any, asked: float | None, least: float, most: float
) -> None:
    for chance in (0.0, 0.999):
        candidate = world.add(f"b{asked}{chance}")
        candidate.rest(100.0, asked, random=lambda chance=chance: chance)
        assert 100 + least <= candidate.resting_until <= 100 + most


def test_a_model_that_is_missing_is_left_out_at_its_endpoint_only(world: Any, call: Any) -> None:
    candidate = world.add("b")
    router = world.install()
    candidate.lacks(1.0, Endpoint.RESPONSES)
    refused = router.choose(call(endpoint=Endpoint.RESPONSES), 2.0)
    assert (refused.status, refused.code) == (404, "model_not_found")
    assert router.choose(call(), 2.0).candidate is candidate
    assert router.choose(call(endpoint=Endpoint.RESPONSES), 32.0).candidate is candidate


@pytest.mark.parametrize(
    ("ends", "retry_after"), [((31.0, 12.5), 12), ((None, 9.0), 8), ((None, None), None)]
)
def test_a_rejection_for_exclusions_says_when_the_first_of_them_ends(
    world: Any, call: Any, subject: Any, ends: tuple[float | None, ...], retry_after: int | None
) -> None:
    for name, end in zip("ab", ends, strict=True):
        world.add(name, traits=REJECT, subject=subject(standing=Standing.OUT, end=end))
    refused = world.install().choose(call(), 1.0)
    assert isinstance(refused, Rejection)
    assert (refused.status, refused.retry_after) == (503, retry_after)
