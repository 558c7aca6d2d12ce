"""Operator and proxies together, in any order of faults, absences and edits.

Whatever happens: nothing is excluded twice, nothing without a quorum, an exclusion never ends
earlier but by an edit, and once a backend is well and has traffic it is Active everywhere, with
every outcome counted once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from nexus_api.backend import SubjectState
from nexus_quality.breaker import BreakerState
from nexus_quality.outcome import Outcome
from nexus_quality.policy import DEFAULT_POLICY
from nexus_quality.subject import Standing

QUICK = replace(
    DEFAULT_POLICY,
    base_exclusion_seconds=10,
    max_exclusion_seconds=40,
    slow_start_seconds=10,
)
POLICIES = (
    QUICK,
    replace(QUICK, threshold_basis_points=9_000),
    replace(QUICK, consecutive_failures=0),
    replace(QUICK, max_exclusion_seconds=15),
)
S = SubjectState
MODELS = ("tiny", "big")

FAULTS = st.tuples(
    st.just("fault"),
    st.sampled_from("ab"),
    st.sampled_from([0.3, 1.0]),
    st.sampled_from([Outcome.SERVER_ERROR, Outcome.CONNECT_ERROR, Outcome.THROTTLED]),
    st.sampled_from([0.05, 3.0]),
)
BAD_MODELS = st.tuples(
    st.just("model fails"),
    st.sampled_from("ab"),
    st.sampled_from(["tiny", "big"]),
    st.sampled_from([0.3, 1.0]),
    st.sampled_from([Outcome.SERVER_ERROR, Outcome.CUT]),
)
ACTIONS = st.one_of(
    FAULTS,
    BAD_MODELS,
    st.tuples(st.just("heal"), st.sampled_from("ab")),
    st.tuples(st.just("operator stops")),
    st.tuples(st.just("operator starts")),
    st.tuples(st.just("operator is deaf")),
    st.tuples(st.just("operator hears again")),
    st.tuples(st.just("proxy restarts"), st.integers(0, 2)),
    st.tuples(st.just("policy"), st.sampled_from(POLICIES)),
    st.tuples(st.just("spec"), st.sampled_from("ab")),
)
STORY = st.lists(st.tuples(ACTIONS, st.sampled_from([2.0, 15.0, 60.0, 120.0])), max_size=8)


class Story:
    """A world and what is done to it."""

    def __init__(self, world: Any, failing: Callable[..., Any]) -> None:
        self.world, self.failing = world, failing
        self.edits: list[float] = []
        self.specs = self.departed_under = 0
        self.well = world.backends["a"].behaviour

    def act(self, name: str, *details: Any) -> None:
        world = self.world
        if name == "fault":
            backend, rate, outcome, after = details
            world.backends[backend].behaviour = self.failing(
                0.0, rate=rate, outcome=outcome, after=after
            )
        elif name == "model fails":
            backend, model, rate, outcome = details
            world.backends[backend].models[model] = self.failing(0.0, rate=rate, outcome=outcome)
        elif name == "heal":
            self.heal(world.backends[details[0]])
        elif name == "operator stops":
            world.stop_operator()
        elif name == "operator starts":
            world.start_operator()
        elif name == "operator is deaf":
            world.deafen_operator()
        elif name == "operator hears again":
            world.undeafen_operator()
        elif name == "proxy restarts":
            self.restart(world.proxies[details[0]])
        elif name == "policy":
            self.edits.append(world.now)
            world.edit_policy(details[0])
        else:
            self.specs += 1
            world.respecify(details[0], f"spec-{self.specs}")

    def heal(self, backend: Any) -> None:
        backend.behaviour = self.well
        backend.models.clear()

    def restart(self, proxy: Any) -> None:
        """A restart as a rollout does it: the old process drains, reports and goes."""
        request, proxy.request = proxy.request, lambda: None
        if self.world.engine is None:
            self.world.start_operator()
        self.world.run(30.0)
        self.departed_under = self.departed_under or self.world.operators
        proxy.start()
        proxy.request = request

    @property
    def lost(self) -> bool:
        """An operator came after a process had gone: without a store its counts are gone, too."""
        return 0 < self.departed_under < self.world.operators

    def settle(self) -> None:
        """All is well again, for longer than anything takes."""
        world = self.world
        for backend in world.backends.values():
            self.heal(backend)
        if world.engine is None:
            world.start_operator()
        world.run(400.0)
        for proxy in world.proxies:
            proxy.request = lambda: None
        world.run(40.0)


def check_history(story: Story) -> None:
    """The order of transitions, per backend, with its models under the same counter."""
    world = story.world
    for uid in world.by_uid:
        verdicts, generation = {"": (S.ACTIVE, None)}, 0
        for at, transition in [(t, x) for t, x in world.history if x.uid == uid]:
            model, before, after = transition.model, transition.before, transition.after
            state, until = verdicts.get(model, (S.ACTIVE, None))
            assert before.state is state, "a transition from a state that did not hold"
            assert after.generation == generation + 1
            assert transition.row == "S17" or not model or verdicts[""][0] is S.ACTIVE
            if after.state is S.EXCLUDED:
                assert before.state is (S.ACTIVE if transition.row == "S1" else S.PROBATION)
                assert after.firing is not None and after.firing.quorum
                assert not model or after.firing.reason.startswith(f"Model {model}: ")
            if transition.row == "S7":
                edited = any(edit <= at for edit in story.edits)
                assert edited or at >= until, "an exclusion that ended early"
            if not model and after.state is S.ACTIVE:
                verdicts.clear()  # S17, or a new backend
            verdicts[model], generation = (after.state, after.until), after.generation


@settings(
    max_examples=8,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
)
@given(seed=st.integers(0, 1000), story=STORY)
def test_the_fleet_comes_back_from_anything(
    make_world: Any, failing: Any, seed: int, story: list[tuple[tuple[Any, ...], float]]
) -> None:
    models = MODELS[: 1 + seed % 2]
    world = make_world(proxies=3, rps=3.0, backends=2, policy=QUICK, seed=seed, models=models)
    told = Story(world, failing)
    world.run(20.0)
    for action, seconds in story:
        told.act(*action)
        world.run(seconds)
    told.settle()
    check_history(told)
    for name, backend in world.backends.items():
        assert world.state(name) is S.ACTIVE, name
        assert world.standings(name) == {Standing.ADMITTED: 3}, name
        for proxy in world.proxies:
            breaker = proxy.subjects[backend.uid].backend.breaker
            assert breaker.state is BreakerState.CLOSED and not breaker.probe_in_flight
        for proxy in world.proxies:
            for model in models:
                own = proxy.all[backend.uid, model].breaker
                assert own.state is BreakerState.CLOSED and not own.probe_in_flight
        counted = world.engine.figures(backend.uid, world.now).whole.day
        oracle = world.oracle[backend.uid]
        assert counted.requests <= oracle["requests"] and counted.errors <= oracle["errors"]
        if not told.lost:
            assert (counted.requests, counted.errors) == (oracle["requests"], oracle["errors"])
