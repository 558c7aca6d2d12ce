"""Whom Smart and the other strategies choose, over thousands of seeded decisions."""

from __future__ import annotations

import random
from typing import Any

import pytest

from nexus_api import Strategy
from nexus_proxy.routing.candidate import Traits
from nexus_proxy.routing.rules import Rules
from nexus_quality.subject import Standing

MANY = 6000


def test_equals_share_the_load(world: Any, call: Any, chosen: Any) -> None:
    for name in "abc":
        world.add(name)
    counts = chosen(world.install(), (call() for _ in range(MANY)))
    assert all(counts[name] == pytest.approx(MANY / 3, rel=0.1) for name in "abc")


def test_a_clear_winner_always_wins(world: Any, call: Any, chosen: Any) -> None:
    world.add("winner", traits=Traits(priority=1))
    for name in "abc":
        world.add(name, traits=Traits(priority=20))
    assert chosen(world.install(), (call() for _ in range(MANY))) == {"winner": MANY}


def test_those_within_five_points_of_the_best_share(world: Any, call: Any, chosen: Any) -> None:
    world.add("best", traits=Traits(priority=0))
    world.add("near", traits=Traits(priority=10))
    world.add("far", traits=Traits(priority=12))
    counts = chosen(world.install(), (call() for _ in range(MANY)))
    assert set(counts) == {"best", "near"}
    assert counts["near"] == pytest.approx(MANY / 2, rel=0.1)


def test_of_two_drawn_the_one_with_fewer_in_flight_is_chosen(
    world: Any, call: Any, chosen: Any
) -> None:
    busy, idle = world.add("busy"), world.add("idle")
    busy.backend.in_flight, idle.backend.in_flight = 3, 2
    assert chosen(world.install(), (call() for _ in range(500))) == {"idle": 500}


def test_load_in_flight_spreads_evenly_over_equals(world: Any, call: Any) -> None:
    for number in range(20):
        world.add(f"b{number:02}")
    router = world.install()
    for _ in range(400):
        router.choose(call(), 1.0).candidate.backend.in_flight += 1
    loads = [candidate.backend.in_flight for candidate in world.members.values()]
    assert sum(loads) == 400
    assert max(loads) - min(loads) <= 4


def test_a_fast_failure_attracts_no_traffic(world: Any, call: Any) -> None:
    """A backend that fails at once has nothing in flight and no latency: no reason to win."""
    for name in ("fails-fast", "works"):
        world.add(name)
    router, counts = world.install(), {"fails-fast": 0, "works": 0}
    for _ in range(MANY):
        backend = router.choose(call(), 1.0).candidate.backend
        counts[backend.name] += 1
        backend.in_flight += 1
        if backend.name == "works":
            backend.observe_latency(40.0)
        backend.in_flight -= 1
    assert counts["fails-fast"] == pytest.approx(MANY / 2, rel=0.1)


def test_a_slower_backend_loses_once_its_latency_is_known(
    world: Any, call: Any, chosen: Any
) -> None:
    slow = world.add("slow")
    world.add("quick")
    router = world.install()
    assert set(chosen(router, (call() for _ in range(100)))) == {"slow", "quick"}
    for _ in range(30):
        slow.backend.observe_latency(900.0)
    assert chosen(router, (call() for _ in range(100))) == {"quick": 100}


def test_high_ttft_reduces_the_score_and_the_choice(
    world: Any, call: Any, chosen: Any, subject: Any
) -> None:
    traits = Traits(ttft_threshold_ms=3000)
    world.add("slow", traits=traits, subject=subject(ttft_ms=5000))
    world.add("quick", traits=traits, subject=subject(ttft_ms=200))
    assert chosen(world.install(), (call() for _ in range(100))) == {"quick": 100}


def test_at_the_soft_limit_open_backends_score_half(world: Any, call: Any, chosen: Any) -> None:
    world.add("cloud", traits=Traits(zone="Open", priority=0))
    world.add("local", traits=Traits(zone="Restricted", priority=40))
    router = world.install(Rules(soft_limit=True))
    assert chosen(router, (call() for _ in range(100))) == {"local": 100}
    assert chosen(world.install(Rules()), (call() for _ in range(100))) == {"cloud": 100}


def test_round_robin_takes_each_in_its_turn_and_passes_over_the_full(world: Any, call: Any) -> None:
    for name in "abc":
        world.add(name, max_concurrency=1)
    router = world.install(Rules(strategy=Strategy.ROUND_ROBIN))
    names = [router.choose(call(), 1.0).candidate.backend.name for _ in range(6)]
    assert names == ["a", "b", "c", "a", "b", "c"]
    world.members["b", "m"].backend.in_flight = 1
    names = [router.choose(call(), 1.0).candidate.backend.name for _ in range(4)]
    assert names == ["a", "c", "a", "c"]


def test_the_turn_survives_a_new_table(world: Any, call: Any) -> None:
    for name in "ab":
        world.add(name)
    rules = Rules(strategy=Strategy.ROUND_ROBIN)
    first = world.install(rules).choose(call(), 1.0).candidate.backend.name
    second = world.install(rules).choose(call(), 1.0).candidate.backend.name
    assert (first, second) == ("a", "b")


def test_priority_only_looks_at_nothing_else(
    world: Any, call: Any, chosen: Any, subject: Any
) -> None:
    worst = subject(ttft_ms=60_000)
    first = world.add("first", traits=Traits(priority=1, ttft_threshold_ms=1), subject=worst)
    world.add("second", traits=Traits(priority=2))
    first.backend.in_flight = 50
    router = world.install(Rules(strategy=Strategy.PRIORITY_ONLY))
    assert chosen(router, (call() for _ in range(200))) == {"first": 200}


def test_random_hits_all_alike(world: Any, call: Any, chosen: Any) -> None:
    for number in range(4):
        world.add(f"b{number}", traits=Traits(priority=number * 25))
    router = world.install(Rules(strategy=Strategy.RANDOM))
    counts = chosen(router, (call() for _ in range(MANY)))
    assert all(count == pytest.approx(MANY / 4, rel=0.1) for count in counts.values())


def test_slow_start_gets_its_share_of_requests(
    world: Any, call: Any, chosen: Any, subject: Any
) -> None:
    world.add("old")
    young = subject(standing=Standing.SLOW_START, share=0.2)
    world.add("young", subject=young)
    counts = chosen(world.install(), (call() for _ in range(MANY)))
    # Admitted to a fifth of the requests, and drawn from two equals in half of those.
    assert counts["young"] == pytest.approx(MANY * 0.1, rel=0.15)


def test_a_slow_start_alone_still_serves_everything(
    world: Any, call: Any, chosen: Any, subject: Any
) -> None:
    world.add("young", subject=subject(standing=Standing.SLOW_START, share=0.1))
    assert chosen(world.install(), (call() for _ in range(200))) == {"young": 200}


def test_a_decision_follows_every_change_of_load_exactly(world: Any, call: Any) -> None:
    """Whatever changed since the last look, the board ranks as a fresh one would."""
    chance = random.Random(11)
    for number in range(12):
        world.add(f"b{number:02}", traits=Traits(priority=number), max_concurrency=9)
    router, now = world.install(), 1.0
    members = list(world.members.values())
    for _ in range(3000):
        member = chance.choice(members)
        match chance.randrange(4):
            case 0:
                member.backend.in_flight = chance.randrange(12)
            case 1:
                member.backend.observe_latency(chance.uniform(1, 1500))
            case 2:
                member.rest(now, chance.uniform(0, 5), random=chance.random)
            case _:
                now += chance.uniform(0, 0.4)
        choice = router.choose(call(), now)
        leg = router.plan(call()).legs[0]
        leg.settle(now)
        for number, each in enumerate(leg.members):
            free = leg.unavailable_until(each, now) is None
            assert leg.board.score[number] == (leg.score(each, now) if free else -1)
        if hasattr(choice, "candidate"):
            assert leg.unavailable_until(choice.candidate, now) is None
