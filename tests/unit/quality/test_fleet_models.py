"""A fleet in virtual time whose backends serve two models: what one bad model does to the other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from nexus_api.backend import SubjectState
from nexus_quality.breaker import BreakerState
from nexus_quality.outcome import Outcome
from nexus_quality.subject import Standing

DOWN_AT = 60.0
MODELS = ("good", "bad")
Make = Callable[..., Any]


def standings(world: Any, model: str) -> set[Standing]:
    return {proxy.all["uid-a", model].standing for proxy in world.proxies}


@pytest.mark.parametrize(("proxies", "rps"), [(1, 20.0), (2, 20.0), (10, 1.0)])
def test_one_bad_model_leaves_the_other_alone_and_comes_back(
    make_world: Make, failing: Make, proxies: int, rps: float
) -> None:
    world = make_world(proxies=proxies, rps=rps, models=MODELS, retries=2)
    world.backends["a"].models["bad"] = failing(DOWN_AT, DOWN_AT + 40.0)
    out = world.run(120.0, until=lambda: standings(world, "bad") == {Standing.OUT})
    assert out is not None and out - DOWN_AT <= 15.0
    seen: set[Standing] = set()

    def back() -> bool:
        seen.update(standings(world, "good"))
        return bool(standings(world, "bad") == {Standing.ADMITTED})

    assert world.run(200.0, until=back) is not None
    assert seen == {Standing.ADMITTED}
    assert world.rows("a") == []
    rows = world.rows_of("a", "bad")
    assert rows[0] == "S1" and rows[-1] == "S11"
    assert world.rows_of("a", "good") == world.rows_of("b", "bad") == []
    assert sum(proxy.failures_of["good"] for proxy in world.proxies) == 0


def test_its_requests_go_to_another_backend_meanwhile(make_world: Make, failing: Make) -> None:
    world = make_world(proxies=2, rps=20.0, models=MODELS, retries=2)
    world.backends["a"].models["bad"] = failing(DOWN_AT)
    world.run(DOWN_AT + 28.0)
    assert sum(proxy.client_failures for proxy in world.proxies) == 0
    verdicts = world.engine.verdicts("uid-a")
    assert verdicts.of("bad").state is SubjectState.EXCLUDED
    assert verdicts.backend.generation == 0 < verdicts.generation
    breaker = world.proxies[0].all["uid-a", "bad"].breaker
    assert breaker.state is BreakerState.FOLLOW_EXCLUDED
    reason, _ = world.proxies[0].all["uid-a", "bad"].why()
    assert reason == verdicts.of("bad").firing.reason


@pytest.mark.parametrize("outcome", [Outcome.SERVER_ERROR, Outcome.CONNECT_ERROR])
def test_a_dead_backend_goes_as_a_whole_and_its_models_come_back_with_it(
    make_world: Make, failing: Make, outcome: Outcome
) -> None:
    world = make_world(proxies=2, rps=20.0, models=MODELS)
    world.backends["a"].behaviour = failing(DOWN_AT, DOWN_AT + 20.0, outcome=outcome)
    world.run(DOWN_AT + 10.0)
    assert world.state("a") is SubjectState.EXCLUDED
    assert len(world.backends["a"].failures) <= 24
    world.run(120.0)
    assert world.rows("a")[-1] == "S11"
    assert world.engine.verdicts("uid-a").out == frozenset()
    assert standings(world, "good") == standings(world, "bad") == {Standing.ADMITTED}


def test_a_backend_that_only_a_bad_models_requests_could_probe_still_comes_back(
    make_world: Make, failing: Make
) -> None:
    world = make_world(proxies=2, rps=20.0, models=MODELS)
    backend = world.backends["a"]
    backend.models["bad"] = failing(DOWN_AT, DOWN_AT + 40.0)
    world.run(DOWN_AT + 5.0)
    assert world.rows_of("a", "bad") == ["S1"]
    backend.behaviour = failing(0.0, DOWN_AT + 40.0)
    world.run(120.0, until=lambda: world.rows("a") == ["S1"])
    for proxy in world.proxies:
        proxy.request = lambda proxy=proxy: proxy.attempt("bad", [])
    world.run(300.0)
    assert "S17" in world.rows_of("a", "bad")
    assert world.rows("a")[-1] == "S11"
    assert standings(world, "bad") == {Standing.ADMITTED}


def test_an_operator_restart_keeps_what_it_decided_of_a_model(
    make_world: Make, failing: Make
) -> None:
    world = make_world(proxies=2, rps=20.0, models=MODELS)
    world.backends["a"].models["bad"] = failing(DOWN_AT, DOWN_AT + 20.0)
    world.run(DOWN_AT + 10.0)
    before = world.engine.verdicts("uid-a")
    assert before.out == {"bad"}
    world.stop_operator()
    world.run(5.0)
    world.start_operator()
    after = world.engine.verdicts("uid-a")
    assert after.of("bad").until == before.of("bad").until
    assert after.generation == before.generation
    world.run(60.0)
    assert world.rows_of("a", "bad") == ["S1", "S7", "S11"]


def test_without_an_operator_proxies_find_their_own_way_back_to_a_model(
    make_world: Make, failing: Make
) -> None:
    world = make_world(proxies=2, rps=20.0, models=MODELS)
    world.backends["a"].models["bad"] = failing(DOWN_AT, DOWN_AT + 20.0)
    world.run(DOWN_AT + 10.0)
    assert world.rows_of("a", "bad") == ["S1"]
    world.stop_operator()
    world.run(180.0)
    assert standings(world, "bad") == {Standing.ADMITTED}
    world.start_operator()
    world.run(70.0)
    assert world.rows_of("a", "bad") == ["S1", "S8"]
