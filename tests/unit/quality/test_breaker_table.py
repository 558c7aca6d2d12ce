"""Every row of the local breaker's table, that there are no others, and what no order of events
may break.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from nexus_quality.breaker import Breaker, BreakerState, Event, Facts, Row
from nexus_quality.breaker_table import TRANSITIONS, apply
from nexus_quality.policy import DEFAULT_POLICY
from nexus_quality.shared import SharedVerdict

S, E = BreakerState, Event
T = 1000.0
NOW = T + 50.0


@dataclass(frozen=True)
class Case:
    """A row driven: a breaker in `state` (since T) with `given`, an event, and what is after it."""

    row: str
    state: BreakerState
    event: Event
    after: BreakerState
    given: dict[str, Any]
    facts: dict[str, Any]
    then: dict[str, Any]


def case(
    row: str,
    state: BreakerState,
    event: Event,
    after: BreakerState,
    *,
    given: dict[str, Any] | None = None,
    facts: dict[str, Any] | None = None,
    then: dict[str, Any] | None = None,
) -> Case:
    return Case(
        row, state, event, after, given or {}, {"began": NOW - 1, **(facts or {})}, then or {}
    )


LONG = Row(4, T + 1.0, requests=100)
LONG_ENOUGH = replace(LONG, length=5)
NEWER_FORGETS = {"row": Row(), "probe_in_flight": False, "probe_successes": 0, "spent": False}
CASES = (
    case("L1", S.CLOSED, E.FAILURE, S.OPEN, given={"row": LONG}, then={"k": 1, "until": NOW + 30}),
    case(
        "L1",
        S.CLOSED,
        E.FAILURE,
        S.OPEN,
        given={"row": LONG, "k": 1, "calm_since": NOW - 1},
        then={"k": 2, "until": NOW + 60},
    ),
    case(
        "L1",
        S.CLOSED,
        E.MODELS_FAILED,
        S.OPEN,
        facts={"row": LONG_ENOUGH, "unanswered": 5},
        then={"k": 1, "until": NOW + 30, "row": LONG_ENOUGH},
    ),
    *(
        case(
            "L1",
            state,
            E.PEER_OPENED,
            S.OPEN,
            given={"until": NOW + known, "orphan": True, "probe_in_flight": True},
            facts={"until": NOW + 20, "k": 2, "row": LONG_ENOUGH},
            then={
                "until": NOW + until,
                "k": 2,
                "row": LONG_ENOUGH,
                "orphan": False,
                "probe_in_flight": False,
                "changed_at": NOW,
            },
        )
        for state, known, until in ((S.CLOSED, 99, 20), (S.HALF_OPEN, -1, 20), (S.OPEN, 30, 30))
    ),
    case("L2", S.CLOSED, E.FAILURE, S.CLOSED, then={"row": Row(1, NOW - 1)}),
    case(
        "L2",
        S.CLOSED,
        E.FAILURE,
        S.CLOSED,
        given={"row": LONG},
        facts={"unanswered": 6},
        then={"row": replace(LONG, length=5)},
    ),
    case("L2", S.CLOSED, E.SUCCESS, S.CLOSED, given={"row": LONG}, then={"row": Row()}),
    case(
        "L3",
        S.CLOSED,
        E.FAILURE,
        S.CLOSED,
        given={"row": LONG},
        facts={"began": T - 1},
        then={"row": LONG},
    ),
    case("L5", S.OPEN, E.DEADLINE, S.HALF_OPEN, then={"probe_successes": 0, "orphan": False}),
    case("L6", S.HALF_OPEN, E.PROBE_SENT, S.HALF_OPEN, then={"probe_in_flight": True}),
    *(
        case(
            "L7",
            state,
            E.PEER_CLOSED,
            S.CLOSED,
            given={"k": 2, "row": LONG, "probe_in_flight": True},
            then={"k": 2, "row": Row(), "recovered": NOW, "probe_in_flight": False},
        )
        for state in (S.OPEN, S.HALF_OPEN)
    ),
    case(
        "L7",
        S.HALF_OPEN,
        E.PROBE_SUCCESS,
        S.HALF_OPEN,
        given={"probe_in_flight": True},
        then={"probe_successes": 1, "probe_in_flight": False, "row": Row()},
    ),
    case(
        "L7",
        S.HALF_OPEN,
        E.PROBE_SUCCESS,
        S.CLOSED,
        given={"probe_successes": 1, "row": LONG, "k": 2},
        then={"recovered": NOW, "row": Row(), "k": 2, "probe_in_flight": False},
    ),
    case(
        "L8",
        S.HALF_OPEN,
        E.PROBE_FAILURE,
        S.OPEN,
        given={"k": 1, "probe_in_flight": True, "row": LONG},
        then={"k": 2, "until": NOW + 60, "probe_in_flight": False, "row": replace(LONG, length=5)},
    ),
    case(
        "L9",
        S.HALF_OPEN,
        E.PROBE_NEUTRAL,
        S.HALF_OPEN,
        given={"probe_in_flight": True},
        then={"probe_in_flight": False, "probe_successes": 0},
    ),
    case(
        "L9",
        S.FOLLOW_PROBATION,
        E.PROBE_NEUTRAL,
        S.FOLLOW_PROBATION,
        given={"probe_in_flight": True},
        then={"probe_in_flight": False, "spent": False},
    ),
    *(
        case(
            "L10",
            state,
            E.NEWER_EXCLUDED,
            S.FOLLOW_EXCLUDED,
            given={
                "k": 3,
                "calm_since": NOW,
                "until": NOW + 99,
                "row": LONG,
                "probe_in_flight": True,
                "orphan": True,
            },
            then={**NEWER_FORGETS, "k": 3, "until": 0.0, "orphan": False},
        )
        for state in (S.CLOSED, S.OPEN, S.HALF_OPEN)
    ),
    *(
        case(
            "L11",
            state,
            E.NEWER_PROBATION,
            S.FOLLOW_PROBATION,
            given={
                "k": 3,
                "calm_since": NOW,
                "until": NOW + 99,
                "row": LONG,
                "spent": True,
                "orphan": True,
            },
            then={**NEWER_FORGETS, "k": 3, "until": 0.0, "orphan": False},
        )
        for state in S
    ),
    case(
        "L12", S.FOLLOW_PROBATION, E.PROBE_SENT, S.FOLLOW_PROBATION, then={"probe_in_flight": True}
    ),
    case(
        "L12",
        S.FOLLOW_PROBATION,
        E.PROBE_SUCCESS,
        S.FOLLOW_PROBATION,
        given={"probe_in_flight": True},
        then={"probe_in_flight": False, "spent": False},
    ),
    case(
        "L13",
        S.FOLLOW_PROBATION,
        E.PROBE_FAILURE,
        S.FOLLOW_PROBATION,
        given={"probe_in_flight": True},
        then={"spent": True, "probe_in_flight": False, "k": 0},
    ),
    *(
        case(
            "L15",
            state,
            E.NEWER_ACTIVE,
            S.CLOSED,
            given={"k": 2, "shared": SharedVerdict(recovered=NOW - 3)},
            then={"k": 2, "row": Row(), "recovered": NOW - 3},
        )
        for state in (S.FOLLOW_EXCLUDED, S.FOLLOW_PROBATION)
    ),
    *(
        case(
            "L17",
            state,
            E.NEWER_EXCLUDED,
            S.FOLLOW_EXCLUDED,
            given={"spent": True},
            then=NEWER_FORGETS,
        )
        for state in (S.FOLLOW_EXCLUDED, S.FOLLOW_PROBATION)
    ),
    case("L18", S.FOLLOW_EXCLUDED, E.ORPHANED, S.HALF_OPEN, then={"orphan": True}),
    case(
        "L19",
        S.FOLLOW_PROBATION,
        E.ORPHANED,
        S.HALF_OPEN,
        given={"spent": True},
        then={"orphan": True, "spent": False},
    ),
    case(
        "L20", S.HALF_OPEN, E.NEWER_ACTIVE, S.CLOSED, given={"orphan": True}, then={"orphan": False}
    ),
    *(
        case(
            "L21",
            state,
            E.RESPECIFIED,
            S.CLOSED,
            given={"k": 3, "row": LONG},
            then={"k": 0, "row": Row(), "recovered": None},
        )
        for state in S
    ),
    *(
        case(
            "L21",
            state,
            E.AUDIT,
            S.CLOSED,
            given={"k": 3, "row": LONG, "calm_since": NOW},
            then={"k": 3, "row": Row(), "recovered": None},
        )
        for state in S
    ),
    *(
        case(
            "S17",
            state,
            E.BACKEND_TURNED,
            S.CLOSED,
            given={"k": 3, "row": LONG, "calm_since": NOW},
            then={"k": 3, "row": Row(), "recovered": None},
        )
        for state in (S.CLOSED, S.OPEN, S.HALF_OPEN)
    ),
)


def breaker_in(state: BreakerState, **given: Any) -> Breaker:
    breaker = Breaker()
    breaker.start(state)
    breaker.changed_at = T
    for name, value in given.items():
        setattr(breaker, name, value)
    return breaker


def picture(breaker: Breaker) -> dict[str, Any]:
    return {name: getattr(breaker, name) for name in Breaker.__slots__}


@pytest.mark.parametrize(
    ("facts", "changes"),
    [
        ({"row": LONG}, {}),
        ({"row": LONG_ENOUGH, "unanswered": 6}, {}),
        ({"row": replace(LONG_ENOUGH, requests=100, errors=20)}, {}),  # 11 failures, not 5
        ({"row": LONG_ENOUGH}, {"consecutive_failures": 0}),
        ({"row": LONG_ENOUGH}, {"enforce": False}),
    ],
)
def test_models_that_fail_together_open_it_no_sooner_than_one_model(
    facts: dict[str, Any], changes: dict[str, Any]
) -> None:
    breaker = breaker_in(S.CLOSED, policy=replace(DEFAULT_POLICY, **changes))
    assert apply(breaker, E.MODELS_FAILED, Facts(now=NOW, **facts)) is None
    assert breaker.state is S.CLOSED and breaker.quiet


@pytest.mark.parametrize("one", CASES, ids=lambda c: f"{c.row}-{c.state.value}-{c.event.name}")
def test_a_row_does_what_the_table_says(one: Case) -> None:
    breaker = breaker_in(one.state, **one.given)
    taken = apply(breaker, one.event, Facts(now=NOW, **one.facts))
    assert taken is not None and taken.row == one.row
    assert breaker.state is one.after
    assert {name: getattr(breaker, name) for name in one.then} == one.then
    assert breaker.quiet == (breaker.state is S.CLOSED and not breaker.row.length)


def test_every_row_of_the_table_is_driven_and_there_are_no_others() -> None:
    driven = {(c.row, c.state, c.event) for c in CASES}
    table = {(t.row, state, t.event) for t in TRANSITIONS for state in t.states}
    assert driven == table


def test_events_that_no_row_speaks_of_do_nothing() -> None:
    spoken = {(state, t.event) for t in TRANSITIONS for state in t.states}
    for state, event in product(S, E):
        if (state, event) in spoken:
            continue
        breaker = breaker_in(state, row=LONG)
        before = picture(breaker)
        assert apply(breaker, event, Facts(now=NOW, began=NOW - 1)) is None, (state, event)
        after = picture(breaker)
        if state is S.CLOSED:  # time spent Closed fades the count, whatever is asked
            before.pop("calm_since"), after.pop("calm_since")
        assert after == before, (state, event)


def test_another_process_opens_nothing_under_an_audit() -> None:
    breaker = breaker_in(S.CLOSED, policy=replace(DEFAULT_POLICY, enforce=False))
    assert apply(breaker, E.PEER_OPENED, Facts(now=NOW, until=NOW + 30, k=1)) is None
    assert breaker.state is S.CLOSED


def test_a_locally_open_breaker_outlives_a_shared_active() -> None:
    for state in (S.OPEN, S.HALF_OPEN):
        breaker = breaker_in(state)
        assert apply(breaker, E.NEWER_ACTIVE, Facts(now=NOW)) is None
        assert breaker.state is state


@pytest.mark.parametrize("event", [E.PROBE_SUCCESS, E.PROBE_FAILURE, E.PROBE_NEUTRAL])
@pytest.mark.parametrize("state", list(S))
def test_a_probe_begun_before_the_breaker_last_turned_moves_nothing(
    state: BreakerState, event: Event
) -> None:
    breaker = breaker_in(state, probe_in_flight=True, probe_successes=1)
    before = picture(breaker)
    apply(breaker, event, Facts(now=NOW, began=T - 0.001))
    before["calm_since"] = breaker.calm_since
    assert picture(breaker) == before


class TestRow:
    """How failures become a row."""

    def fail(self, breaker: Breaker, began: float, **facts: Any) -> None:
        apply(breaker, E.FAILURE, Facts(now=NOW, began=began, **facts))

    @pytest.mark.parametrize(
        ("requests", "errors", "needed"),
        [(0, 0, 5), (100, 0, 5), (100, 20, 11), (100, 50, 20), (100, 100, 35), (3, 1, 15)],
    )
    def test_its_length_grows_with_the_error_rate_of_the_hour_before(
        self, requests: int, errors: int, needed: int
    ) -> None:
        breaker = breaker_in(S.CLOSED)
        for number in range(needed):
            assert breaker.state is S.CLOSED, number
            self.fail(breaker, T + 1 + number, requests=requests, errors=errors)
        assert breaker.state is S.OPEN

    def test_a_success_begun_before_its_first_failure_does_not_end_it(self) -> None:
        breaker = breaker_in(S.CLOSED, row=LONG)
        apply(breaker, E.SUCCESS, Facts(now=NOW, began=T + 0.5))
        assert breaker.row == LONG

    def test_a_failure_begun_before_a_success_belongs_to_no_row(self) -> None:
        breaker = breaker_in(S.CLOSED, latest_success=T + 2)
        self.fail(breaker, T + 1)
        assert breaker.row == Row()
        breaker.row = Row(4, T + 3)
        self.fail(breaker, T + 1)
        assert (breaker.state, breaker.row) == (S.CLOSED, Row(4, T + 3))

    def test_unanswered_attempts_beyond_its_length_hold_it_back(self) -> None:
        breaker = breaker_in(S.CLOSED)
        for number in range(9):
            self.fail(breaker, T + 1 + number, unanswered=10)
        assert breaker.state is S.CLOSED
        self.fail(breaker, T + 20, unanswered=10)
        assert breaker.state is S.OPEN

    def test_failures_older_than_an_hour_are_forgotten(self) -> None:
        breaker = breaker_in(S.CLOSED, row=LONG)
        apply(breaker, E.FAILURE, Facts(now=T + 3700, began=T + 3699))
        assert (breaker.state, breaker.row.length) == (S.CLOSED, 1)

    @pytest.mark.parametrize("change", [{"consecutive_failures": 0}, {"enforce": False}])
    def test_the_policy_can_switch_it_off(self, change: dict[str, Any]) -> None:
        breaker = breaker_in(S.CLOSED, policy=replace(DEFAULT_POLICY, **change))
        for number in range(50):
            self.fail(breaker, T + 1 + number)
        assert breaker.state is S.CLOSED

    def test_switching_it_on_counts_what_is_there(self) -> None:
        breaker = breaker_in(S.CLOSED, policy=replace(DEFAULT_POLICY, consecutive_failures=0))
        for number in range(20):
            self.fail(breaker, T + 1 + number)
        breaker.policy = DEFAULT_POLICY
        self.fail(breaker, T + 30)
        assert breaker.state is S.OPEN


class BreakerLife(RuleBasedStateMachine):
    """Any order of events, from a proxy that sends at most one probe and an operator that numbers
    its verdicts.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now, self.random = T, 0.0
        self.breaker = breaker_in(S.CLOSED)
        self.probes: list[float] = []
        self.attempts: list[float] = []
        self.opened: tuple[float, int] | None = None

    def take(self, event: Event, began: float | None = None) -> None:
        before = picture(self.breaker)
        taken = apply(
            self.breaker,
            event,
            Facts(
                now=self.now,
                began=self.now if began is None else began,
                unanswered=len([a for a in self.attempts if a >= self.breaker.row.began]),
                random=lambda: self.random,
            ),
        )
        self.check(before, taken.row if taken else "", began)

    def check(self, before: dict[str, Any], row: str, began: float | None) -> None:
        after = self.breaker
        turned = after.state is not before["state"]
        if began is not None and began < before["changed_at"]:
            assert not turned and after.probe_in_flight == before["probe_in_flight"]
        if after.k > before["k"]:
            assert row in ("L1", "L8") and after.k == before["k"] + 1
            assert 0.9 * 30 <= after.until - self.now <= 300
        if before["state"] is S.OPEN and after.state is S.OPEN:
            assert after.until == before["until"]
        if before["state"] in (S.FOLLOW_EXCLUDED, S.FOLLOW_PROBATION) and turned:
            assert row in ("L11", "L15", "L17", "L18", "L19", "L21", "S17")

    @rule(seconds=st.sampled_from([0.1, 1.0, 20.0, 70.0, 400.0]), random=st.floats(0, 1))
    def time_passes(self, seconds: float, random: float) -> None:
        self.now, self.random = self.now + seconds, random
        if self.breaker.state is S.OPEN and self.now >= self.breaker.until:
            self.take(E.DEADLINE)

    @rule()
    def an_attempt_begins(self) -> None:
        self.attempts.append(self.now)

    @precondition(lambda self: self.attempts)
    @rule(data=st.data(), event=st.sampled_from([E.FAILURE, E.SUCCESS]))
    def an_attempt_ends(self, data: st.DataObject, event: Event) -> None:
        began = data.draw(st.sampled_from(self.attempts))
        self.attempts.remove(began)
        if event is E.SUCCESS:
            self.breaker.latest_success = max(self.breaker.latest_success, began)
        self.take(event, began)

    @precondition(
        lambda self: (
            self.breaker.state in (S.HALF_OPEN, S.FOLLOW_PROBATION)
            and not self.breaker.probe_in_flight
            and not self.breaker.spent
        )
    )
    @rule()
    def a_probe_is_sent(self) -> None:
        self.probes.append(self.now)
        self.take(E.PROBE_SENT)

    @precondition(lambda self: self.probes)
    @rule(
        data=st.data(),
        event=st.sampled_from([E.PROBE_SUCCESS, E.PROBE_FAILURE, E.PROBE_NEUTRAL]),
    )
    def a_probe_ends(self, data: st.DataObject, event: Event) -> None:
        began = data.draw(st.sampled_from(self.probes))
        self.probes.remove(began)
        self.now += 0.01
        self.take(event, began)

    @rule(
        event=st.sampled_from(
            [E.NEWER_ACTIVE, E.NEWER_EXCLUDED, E.NEWER_PROBATION, E.ORPHANED, E.RESPECIFIED]
        )
    )
    def the_world_turns(self, event: Event) -> None:
        self.now += 0.01
        self.take(event)

    @invariant()
    def a_place_is_taken_only_by_a_probe_that_can_free_it(self) -> None:
        if self.breaker.probe_in_flight:
            assert any(began >= self.breaker.changed_at for began in self.probes)
            assert self.breaker.state in (S.HALF_OPEN, S.FOLLOW_PROBATION)

    @invariant()
    def nothing_is_kept_out_twice(self) -> None:
        if self.breaker.state in (S.FOLLOW_EXCLUDED, S.FOLLOW_PROBATION):
            assert self.breaker.until == 0.0 and not self.breaker.row.length

    def teardown(self) -> None:
        """However it stands, a well backend and two generations bring it back."""
        for event in (E.NEWER_EXCLUDED, E.NEWER_PROBATION, E.NEWER_ACTIVE):
            self.now += 1.0
            self.take(event)
        assert self.breaker.state is S.CLOSED


TestBreakerLife = BreakerLife.TestCase
TestBreakerLife.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
