"""A fleet in virtual time: what the shared verdict and the breakers do together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from nexus_api.backend import ExclusionRule, SubjectState
from nexus_api.quantities import parse_time
from nexus_quality.breaker import BreakerState
from nexus_quality.outcome import Outcome
from nexus_quality.policy import DEFAULT_POLICY
from nexus_quality.subject import Standing

START = 1_700_000_000.0
DOWN_AT = 60.0
SEED_POLICY = replace(
    DEFAULT_POLICY,
    min_requests=1,
    min_reporters=1,
    short_window_seconds=0,
    consecutive_failures=0,
    recovery_enabled=False,
    least_bad=False,
)

Make = Callable[..., Any]


def moments(world: Any, name: str = "a") -> list[tuple[str, float]]:
    """The rows taken for a backend, with the second each of them held from."""
    uid = world.backends[name].uid
    return [(t.row, at - START) for at, t in world.history if t.uid == uid]


def lengths(world: Any, name: str = "a") -> list[float]:
    """How long each exclusion of a backend was to last."""
    uid = world.backends[name].uid
    return [
        t.after.until - t.after.started
        for _, t in world.history
        if t.uid == uid and t.after.state is SubjectState.EXCLUDED
    ]


def settle_reports(world: Any) -> None:
    """Stop the traffic and let everything be reported."""
    for proxy in world.proxies:
        proxy.request = lambda: None
    world.run(20.0)


def assert_exact(world: Any) -> None:
    """The operator's counters are those of an oracle that saw every outcome once."""
    for name, backend in world.backends.items():
        counted = world.engine.figures(backend.uid, world.now).whole.day
        oracle = world.oracle[backend.uid]
        assert (counted.requests, counted.errors) == (oracle["requests"], oracle["errors"]), name


def test_a_busy_proxy_keeps_a_dead_backend_out_after_five_failures(
    make_world: Make, failing: Make
) -> None:
    world = make_world(proxies=1, rps=20.0)
    world.backends["a"].behaviour = failing(DOWN_AT)
    world.run(DOWN_AT + 30.0, until=lambda: world.standings("a")[Standing.OUT] == 1)
    assert len(world.backends["a"].failures) == 5


def test_two_busy_proxies_turn_the_shared_verdict_within_a_second_of_the_evidence(
    make_world: Make, failing: Make
) -> None:
    world = make_world(proxies=2, rps=20.0)
    world.backends["a"].behaviour = failing(DOWN_AT)
    world.run(DOWN_AT + 30.0, until=lambda: world.standings("a")[Standing.OUT] == 2)
    evident = world.now
    acted = world.run(
        5.0,
        until=lambda: all(
            p.subjects["uid-a"].backend.breaker.state is BreakerState.FOLLOW_EXCLUDED
            for p in world.proxies
        ),
    )
    assert acted is not None and acted <= 1.0
    assert world.rows("a") == ["S1"]
    assert world.history[0][0] - evident <= 1.0
    assert len(world.backends["a"].failures) <= 12


def test_requests_go_on_elsewhere_while_a_backend_is_excluded(
    make_world: Make, failing: Make
) -> None:
    world = make_world(proxies=2, rps=20.0, retries=2)
    world.backends["a"].behaviour = failing(DOWN_AT)
    world.run(DOWN_AT + 25.0)
    assert sum(proxy.client_failures for proxy in world.proxies) == 0
    excluded = world.history[0][0]
    assert not [hit for hit in world.backends["a"].hits if hit > excluded + 0.2]


@pytest.mark.parametrize(
    ("proxies", "rps", "failures", "seconds"),
    [(1, 20.0, 8, 3.0), (2, 20.0, 14, 3.0), (10, 0.5, 16, 8.0), (50, 0.1, 16, 8.0)],
)
def test_a_dead_backend_goes_and_comes_back_in_any_fleet(
    make_world: Make, failing: Make, proxies: int, rps: float, failures: int, seconds: float
) -> None:
    world = make_world(proxies=proxies, rps=rps)
    world.backends["a"].behaviour = failing(DOWN_AT, DOWN_AT + 20.0)
    world.run(150.0)
    (first, excluded), (second, probation), (third, active) = moments(world)
    assert (first, second, third) == ("S1", "S7", "S11")
    assert excluded - DOWN_AT <= seconds
    assert len(world.backends["a"].failures) <= failures
    assert 27.0 <= probation - excluded <= 32.0
    assert active - probation <= 10.0
    assert world.rows("b") == world.rows("c") == []
    assert world.run(60.0, until=lambda: world.standings("a")[Standing.ADMITTED] == proxies)


def test_a_quiet_fleet_is_served_by_the_row_of_all_its_proxies(
    make_world: Make, failing: Make
) -> None:
    world = make_world(proxies=50, rps=0.1)
    world.backends["a"].behaviour = failing(DOWN_AT)
    world.run(DOWN_AT + 10.0)
    assert world.history[0][1].after.firing.rule is ExclusionRule.FLEET_ROW
    assert not any(p.subjects["uid-a"].breaker.k for p in world.proxies)


@pytest.mark.parametrize("seed", [4, 5, 6, 7])
def test_rows_that_ended_unreported_do_not_hide_a_dead_backend_from_a_quiet_fleet(
    make_world: Make, failing: Make, seed: int
) -> None:
    world = make_world(proxies=50, rps=0.2, seed=seed)
    sometimes, always = failing(0.0, rate=0.02), failing(DOWN_AT)
    for backend in world.backends.values():
        backend.behaviour = sometimes
    world.run(DOWN_AT)
    world.backends["a"].behaviour = always
    world.run(15.0)
    assert moments(world)[0][0] == "S1"
    assert moments(world)[0][1] - DOWN_AT <= 6.0


def test_failing_again_on_probation_doubles_the_exclusion(make_world: Make, failing: Make) -> None:
    world = make_world(proxies=2, rps=20.0)
    world.backends["a"].behaviour = failing(DOWN_AT, DOWN_AT + 100.0)
    world.run(360.0)
    assert world.rows("a") == ["S1", "S7", "S12", "S7", "S12", "S7", "S11"]
    first, second, third = lengths(world)
    assert 27.0 <= first <= 31.0 and 54.0 <= second <= 61.0 and 108.0 <= third <= 121.0


def test_a_proxy_whose_own_network_is_broken_does_not_keep_a_good_backend_out(
    make_world: Make, failing: Make
) -> None:
    world = make_world(proxies=10, rps=2.0)
    broken = world.proxies[0].chance
    healthy = world.backends["a"].behaviour
    dead = failing(DOWN_AT, outcome=Outcome.CONNECT_ERROR)
    world.backends["a"].behaviour = lambda now, chance: (
        dead(now, chance) if chance is broken else healthy(now, chance)
    )
    world.run(600.0)
    assert world.rows("a") == []
    assert world.proxies[0].subjects["uid-a"].standing is not Standing.ADMITTED
    within = world.engine.assess("uid-a", world.now).within_policy
    assert within.status == "True"


@pytest.mark.parametrize(("proxies", "rps"), [(1, 20.0), (2, 5.0), (5, 1.0)])
def test_a_fifth_of_failures_excludes_nobody_by_chance(
    make_world: Make, failing: Make, proxies: int, rps: float
) -> None:
    transitions = 0
    for seed in range(2):
        world = make_world(proxies=proxies, rps=rps, seed=seed)
        world.backends["a"].behaviour = failing(0.0, rate=0.2)
        world.run(600.0)
        transitions += len(world.history)
    assert transitions == 0


@pytest.mark.parametrize("outcome", [Outcome.CLIENT_ERROR, Outcome.THROTTLED])
def test_a_probation_of_neutral_outcomes_alone_decides_nothing_and_ends_with_the_first_others(
    make_world: Make, failing: Make, outcome: Outcome
) -> None:
    world = make_world(proxies=3, rps=5.0)
    broken, neutral = failing(DOWN_AT), failing(0.0, DOWN_AT + 600.0, outcome=outcome)
    world.backends["a"].behaviour = broken
    world.run(DOWN_AT + 20.0)
    world.backends["a"].behaviour = neutral
    world.run(580.0)
    assert world.rows("a") == ["S1", "S7"]
    hits = [hit for hit in world.backends["a"].hits if hit > world.now - 60.0]
    assert 30 <= len(hits) <= 120, "about one probe a second all the while"
    world.run(15.0)
    assert world.rows("a") == ["S1", "S7", "S11"]


@pytest.mark.parametrize("outcome", [Outcome.CLIENT_ERROR, Outcome.THROTTLED, Outcome.CLIENT_GONE])
def test_a_storm_of_neutral_outcomes_excludes_nobody(
    make_world: Make, failing: Make, outcome: Outcome
) -> None:
    world = make_world(proxies=2, rps=20.0)
    for backend in world.backends.values():
        backend.behaviour = failing(10.0, outcome=outcome)
    world.run(90.0)
    assert world.history == []
    assert world.standings("a") == {Standing.ADMITTED: 2}


def test_slow_answers_do_not_let_fast_failures_open_a_breaker(
    make_world: Make, failing: Make
) -> None:
    world = make_world(proxies=1, rps=50.0, backends=1)
    fast = failing(0.0, rate=0.05, after=0.01)

    def behaviour(now: float, chance: Any) -> tuple[Outcome, float]:
        outcome, after = fast(now, chance)
        return outcome, after if outcome is not Outcome.SUCCESS else 4.0

    world.backends["a"].behaviour = behaviour
    world.run(300.0)
    assert world.history == []


def test_an_operator_restart_loses_nothing(make_world: Make, failing: Make) -> None:
    world = make_world(proxies=3, rps=10.0)
    world.backends["a"].behaviour = failing(DOWN_AT)
    world.run(DOWN_AT + 10.0)
    before = world.engine.verdict("uid-a")
    world.stop_operator()
    world.run(5.0)
    world.start_operator()
    after = world.engine.verdict("uid-a")
    assert before.state is after.state is SubjectState.EXCLUDED
    assert (after.until, after.count, after.generation) == (
        before.until,
        before.count,
        before.generation,
    )
    assert after.firing.rule is before.firing.rule
    world.run(10.0)
    settle_reports(world)
    assert_exact(world)
    assert world.rows("a")[:2] == ["S1", "S7"]


def test_a_restarted_operator_publishes_no_sample_twice(make_world: Make) -> None:
    world = make_world(proxies=2, rps=5.0)
    world.run(100.0)
    for proxy in world.proxies:
        proxy.monitor.recorder.of("uid-a", "tiny").slot(proxy.now, 0).ttft(250.0)
    world.run(30.0)
    assert sum(seen.count for seen in world.engine.drain_observations()) == 2
    world.stop_operator()
    world.start_operator()
    world.run(60.0)
    assert world.engine.figures("uid-a", world.now).whole.hour.ttft_count == 2
    assert world.engine.drain_observations() == []


def test_a_proxy_restart_counts_nothing_twice_and_forgets_its_breaker(
    make_world: Make, failing: Make
) -> None:
    world = make_world(proxies=4, rps=5.0)
    only_one = world.proxies[0].chance
    dead, well = failing(DOWN_AT), world.backends["a"].behaviour
    world.backends["a"].behaviour = lambda now, chance: (
        dead(now, chance) if chance is only_one else well(now, chance)
    )
    world.run(DOWN_AT + 15.0)
    assert world.proxies[0].subjects["uid-a"].standing is Standing.OUT
    for proxy in world.proxies:
        proxy.report(full=True)
    world.run(1.0)
    for proxy in world.proxies:
        proxy.request = lambda: None
    world.run(5.0)
    world.proxies[0].start()
    world.run(30.0)
    assert world.proxies[0].subjects["uid-a"].standing is Standing.ADMITTED
    assert_exact(world)


def test_proxies_without_an_operator_find_their_own_way_back_and_it_agrees(
    make_world: Make, failing: Make
) -> None:
    world = make_world(proxies=2, rps=20.0)
    world.backends["a"].behaviour = failing(DOWN_AT, DOWN_AT + 20.0)
    world.run(DOWN_AT + 5.0)
    world.stop_operator()
    until = parse_time(world.statuses["uid-a"].exclusion.until_time)
    breaker = world.proxies[0].subjects["uid-a"].backend.breaker
    world.run(until + 59.0 - world.now)
    assert breaker.state is BreakerState.FOLLOW_EXCLUDED
    world.run(12.5)
    assert breaker.state in (BreakerState.HALF_OPEN, BreakerState.CLOSED)  # L18
    world.run(60.0)
    assert world.standings("a") == {Standing.ADMITTED: 2}
    world.start_operator()
    world.run(60.0)
    assert world.rows("a") == ["S1", "S8"]
    assert world.state("a") is SubjectState.ACTIVE


def test_an_operator_that_could_take_no_reports_agrees_with_what_its_proxies_found_meanwhile(
    make_world: Make, failing: Make
) -> None:
    world = make_world(proxies=3, rps=20.0)
    world.backends["a"].behaviour = failing(DOWN_AT, DOWN_AT + 20.0)
    world.run(DOWN_AT + 5.0)
    world.deafen_operator()
    world.run(300.0)
    assert world.standings("a") == {Standing.ADMITTED: 3}  # L18, L7
    world.undeafen_operator()
    for uid in world.by_uid:
        world.evaluate(uid)  # as the writer does that has waited, before anybody has reported
    world.run(60.0)
    assert world.rows("a") == ["S1", "S8"]
    assert world.rows("b") == world.rows("c") == []


def test_proxies_that_lose_the_operator_on_probation_decide_for_themselves(
    make_world: Make, failing: Make
) -> None:
    world = make_world(proxies=2, rps=20.0)
    world.backends["a"].behaviour = failing(DOWN_AT, DOWN_AT + 25.0)
    world.run(200.0, until=lambda: world.rows("a") == ["S1", "S7"])
    world.stop_operator()
    world.run(88.0)
    assert world.standings("a") == {Standing.PROBING: 2}
    world.run(60.0)
    assert world.standings("a")[Standing.PROBING] == 0  # L19, then L7
    world.start_operator()
    world.run(60.0)
    assert world.rows("a") == ["S1", "S7", "S11"]


def test_an_excluded_backend_without_traffic_waits_on_probation_and_is_not_released(
    make_world: Make, failing: Make
) -> None:
    world = make_world(proxies=2, rps=20.0)
    world.backends["a"].behaviour = failing(DOWN_AT)
    world.run(DOWN_AT + 10.0)
    for proxy in world.proxies:
        proxy.request = lambda: None
    world.run(600.0)
    assert world.rows("a") == ["S1", "S7"]
    within = world.engine.assess("uid-a", world.now).within_policy
    assert within.reason == "AwaitingProbe"


def test_a_policy_under_which_the_evidence_would_not_fire_releases(
    make_world: Make, failing: Make
) -> None:
    only_rates = replace(DEFAULT_POLICY, consecutive_failures=0)
    world = make_world(proxies=2, rps=20.0, policy=only_rates)
    world.backends["a"].behaviour = failing(DOWN_AT, rate=0.6)
    world.run(300.0, until=lambda: world.rows("a") == ["S1"])
    assert world.history[0][1].after.firing.rule is ExclusionRule.SHORT_WINDOW
    world.run(5.0)
    world.edit_policy(replace(only_rates, threshold_basis_points=9_500))
    world.run(1.0)
    assert world.rows("a") == ["S1", "S16"]
    assert world.standings("a") == {Standing.SLOW_START: 2}


def test_a_policy_that_still_fires_caps_the_exclusion(make_world: Make, failing: Make) -> None:
    world = make_world(proxies=2, rps=20.0)
    world.backends["a"].behaviour = failing(DOWN_AT)
    world.run(DOWN_AT + 5.0)
    until = world.engine.verdict("uid-a").until
    shorter = replace(DEFAULT_POLICY, base_exclusion_seconds=5, max_exclusion_seconds=10)
    world.edit_policy(shorter)
    capped = world.engine.verdict("uid-a").until
    assert world.now + 10.0 <= capped <= world.now + 11.0 < until
    world.edit_policy(DEFAULT_POLICY)
    assert world.engine.verdict("uid-a").until == capped
    assert world.rows("a") == ["S1"]


def test_an_audit_policy_releases_and_excludes_nothing(make_world: Make, failing: Make) -> None:
    world = make_world(proxies=2, rps=20.0)
    world.backends["a"].behaviour = failing(DOWN_AT)
    world.run(DOWN_AT + 5.0)
    world.edit_policy(replace(DEFAULT_POLICY, enforce=False))
    world.run(40.0)
    assert world.rows("a") == ["S1", "S16"]
    within = world.engine.assess("uid-a", world.now).within_policy
    assert within.reason == "WouldBeExcluded"
    assert world.standings("a") == {Standing.ADMITTED: 2}


def test_without_recovery_a_backend_returns_when_the_hour_has_passed(
    make_world: Make, failing: Make
) -> None:
    world = make_world(proxies=1, rps=1.0, policy=SEED_POLICY, backends=2)
    world.backends["a"].behaviour = failing(0.0, 20.0)
    world.run(3500.0)
    assert world.rows("a") == ["S1"]
    world.run(300.0)
    (_, excluded), (row, returned) = moments(world)
    assert row == "S9"
    assert 3480.0 <= returned - excluded <= 3720.0
    assert world.engine.verdict("uid-a").recovered is None


def test_without_recovery_neither_silence_nor_a_restart_releases(
    make_world: Make, failing: Make
) -> None:
    world = make_world(proxies=2, rps=2.0, policy=SEED_POLICY)
    world.backends["a"].behaviour = failing(0.0)
    world.run(30.0)
    assert world.rows("a") == ["S1"]
    world.stop_operator()
    world.start_operator()
    world.run(120.0)
    for proxy in world.proxies:
        proxy.report = lambda *, full: None
    world.run(300.0)
    assert world.rows("a") == ["S1"]


def test_a_new_spec_is_a_new_backend(make_world: Make, failing: Make) -> None:
    world = make_world(proxies=2, rps=20.0)
    world.backends["a"].behaviour = failing(DOWN_AT, DOWN_AT + 5.0)
    world.run(DOWN_AT + 6.0)
    assert world.state("a") is SubjectState.EXCLUDED
    world.respecify("a", "spec-2")
    assert world.standings("a") == {Standing.ADMITTED: 2}
    world.run(30.0)
    assert world.rows("a") == ["S1", "S15"]
    verdict = world.engine.verdict("uid-a")
    assert (verdict.count, verdict.recovered) == (0, None)
    assert world.standings("a") == {Standing.ADMITTED: 2}


def test_a_spec_change_while_a_write_is_under_way_is_not_lost(
    make_world: Make, failing: Make
) -> None:
    world = make_world(proxies=2, rps=20.0, write_delay=2.0)
    world.backends["a"].behaviour = failing(DOWN_AT, DOWN_AT + 2.0)
    world.run(200.0, until=lambda: "uid-a" in world._writing)
    world.respecify("a", "spec-2")
    world.run(10.0)
    assert world.rows("a") == ["S1", "S15"]


def test_the_count_fades_with_time_spent_active(make_world: Make, failing: Make) -> None:
    quick = replace(
        DEFAULT_POLICY, base_exclusion_seconds=5, max_exclusion_seconds=20, slow_start_seconds=0
    )
    world = make_world(proxies=1, rps=20.0, policy=quick)
    world.backends["a"].behaviour = failing(DOWN_AT, DOWN_AT + 18.0)
    world.run(200.0, until=lambda: world.rows("a")[-1:] == ["S11"])
    count = world.engine.verdict("uid-a").count
    assert count >= 2
    world.run(21.0)
    assert world.engine.verdict("uid-a").count == count - 1
    world.run(20.0 * count)
    assert world.engine.verdict("uid-a").count == 0
