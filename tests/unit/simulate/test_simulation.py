"""The simulated fleets: nothing is lost on the way, and the better policy wins only where it is."""

from __future__ import annotations

import pytest
from bench.simulate.arrivals import Demand, Traffic
from bench.simulate.backends import Fault
from bench.simulate.measure import Result
from bench.simulate.poison import poison
from bench.simulate.scenarios import BY_NAME, POISONED
from bench.simulate.simulation import NEXUS, POLICIES, Simulation, branch

from nexus_quality.outcome import Outcome

DOWN = Fault(outcome=Outcome.SERVER_ERROR, end=60.0)
GREY = Fault(outcome=Outcome.SERVER_ERROR, share=0.6, end=60.0)
TROUBLES = (
    (DOWN,),
    (Fault(outcome=Outcome.THROTTLED, share=0.5, retry_after=2.0),),
    (Fault(outcome=Outcome.CUT, late=True, after=0.0, share=0.5), GREY),
    (Fault(outcome=Outcome.SERVER_ERROR, share=0.7, backends=(0, 1, 2)),),
)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("faults", TROUBLES, ids=("down", "throttled", "cut", "all"))
def test_every_request_that_arrives_has_exactly_one_fate(simulate, policy, faults) -> None:
    traffic = Traffic(rps=4.0, leaving=0.1)
    result: Result = simulate(policy, *faults, retries=1, traffic=traffic, slots=6, queue=3)
    assert result.arrived > 300
    assert result.fates.total() == result.arrived
    assert result.lost == len(result.losses)
    assert result.failures <= result.attempts.total()
    # Each request has at most the attempts it may have.
    assert result.arrived - result.rejected <= result.attempts.total() <= 2 * result.arrived


@pytest.mark.parametrize("policy", POLICIES)
def test_the_same_seed_gives_the_same_run_and_another_does_not(simulate, policy) -> None:
    first, again = (simulate(policy, GREY, retries=2) for _ in range(2))
    assert first == again
    assert simulate(policy, GREY, retries=2, seed=2) != first


def test_one_bad_model_leaves_the_backends_other_one_alone(simulate) -> None:
    traffic = Traffic(rps=4.0, demands=(Demand("m"), Demand("other")))
    fault = Fault(outcome=Outcome.SERVER_ERROR, end=60.0, models=("m",))
    result: Result = simulate(NEXUS, fault, traffic=traffic, retries=2)
    outs = [move for move in result.moves if not move.inside]
    assert {(move.backend, move.model) for move in outs} == {("backend-1", "m")}
    assert result.lost == 0


def test_all_policies_meet_the_same_requests(simulate) -> None:
    assert len({simulate(policy, DOWN).arrived for policy in POLICIES}) == 1


def test_a_branch_leaves_the_world_it_came_from_untouched() -> None:
    shape = BY_NAME["F3"].shape
    simulation = Simulation(shape, policy=NEXUS, retries=0, seed=3)
    simulation.world.run(60.0)
    simulation.log.reset()
    broken = branch(lambda: simulation.measure(seconds=30.0, faults=(DOWN,)))
    quiet = branch(lambda: simulation.measure(seconds=30.0))
    assert broken.failures > 5 > quiet.failures
    assert branch(lambda: simulation.measure(seconds=30.0, faults=(DOWN,))) == broken


def test_what_goes_wrong_in_a_branch_is_told() -> None:
    with pytest.raises(RuntimeError, match="a branch of the simulation failed"):
        branch(lambda: Result(1.0 / 0))


def test_a_dead_backend_costs_the_product_less_than_the_seed(simulate) -> None:
    ours, seed = (simulate(policy, DOWN, seconds=200.0) for policy in (NEXUS, "seed"))
    assert ours.lost < 10 < 50 < seed.lost
    assert [turn.row for turn in ours.turns][:2] == ["S1", "S7"]
    assert ours.turns[-1].state == "Active"


def test_a_short_blip_costs_the_product_more_than_linkerd_in_traffic_left(simulate) -> None:
    """A baseline can win: Linkerd asks again after a second, an exclusion lasts 30."""
    blip = Fault(outcome=Outcome.SERVER_ERROR, end=4.0)
    ours, linkerd = (simulate(policy, blip) for policy in (NEXUS, "linkerd"))
    assert ours.attempts[1] < linkerd.attempts[1]


def test_the_seed_answers_nobody_when_all_backends_fail_and_the_product_some(simulate) -> None:
    everything = Fault(outcome=Outcome.SERVER_ERROR, share=0.7, backends=(0, 1, 2))
    ours, seed = (simulate(policy, everything, warm=1.0) for policy in (NEXUS, "seed"))
    assert ours.rejected == 0 < seed.rejected
    assert ours.lost < seed.lost


def test_streams_that_break_late_are_no_failure_to_who_reads_only_the_head(simulate) -> None:
    cut = Fault(outcome=Outcome.CUT, late=True, after=0.0)
    losses = {policy: simulate(policy, cut, seconds=300.0).lost for policy in POLICIES}
    assert losses[NEXUS] < losses["linkerd"]
    assert losses[NEXUS] < losses["envoy"]


def test_an_operator_that_went_away_and_came_back_still_decides(simulate) -> None:
    scenario = BY_NAME["F3"]
    simulation = Simulation(scenario.shape, policy=NEXUS, retries=0, seed=1)
    simulation.world.run(30.0)
    simulation.log.reset()
    operator = simulation.operator
    assert operator is not None
    result = simulation.measure(
        seconds=200.0,
        faults=(DOWN,),
        changes=((10.0, lambda _: operator.away()), (20.0, lambda _: operator.back())),
    )
    assert result.turns[0].row == "S1"
    assert result.turns[-1].state == "Active"
    assert result.turns[-1].at > 60.0
    generations = [turn.at for turn in result.turns]
    assert generations == sorted(generations)


def test_a_liar_excludes_nothing_and_is_heard() -> None:
    simulation = Simulation(POISONED, policy=NEXUS, retries=0, seed=1)
    simulation.world.run(60.0)
    simulation.log.reset()
    result = simulation.measure(seconds=60.0, changes=((0.0, poison),))
    assert result.turns == []
    assert simulation.operator is not None
    suspected = simulation.operator.engine.figures("backend-1", 1_767_225_600.0 + 120.0)
    quality = suspected.quality()
    assert quality is not None
    assert quality.errors_1h is not None
    assert quality.errors_1h >= 100_000
