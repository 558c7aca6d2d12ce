"""What a proxy makes of a verdict on one model, and of several models failing at one backend."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from nexus_api.backend import SubjectState
from nexus_quality.attempt import Attempt
from nexus_quality.breaker import BreakerState
from nexus_quality.monitor import Monitor
from nexus_quality.outcome import Outcome
from nexus_quality.policy import DEFAULT_POLICY
from nexus_quality.report import Answer, Pulse
from nexus_quality.shared import SharedVerdict
from nexus_quality.subject import Standing

ACTIVE, EXCLUDED, PROBATION = SubjectState.ACTIVE, SubjectState.EXCLUDED, SubjectState.PROBATION
FAILURE, SUCCESS, UNREACHED = Outcome.SERVER_ERROR, Outcome.SUCCESS, Outcome.CONNECT_ERROR
B = BreakerState
START = 1_000.0
REASON = "Model bad: error rate 100% of the last 60 s (40 of 40) reaches the threshold 50%"


class Bench:
    """One backend of three models, with time, chance and verdicts in the test's hands."""

    def __init__(self) -> None:
        self.now, self.random, self.generation = START, 0.0, 0
        self.urgent: list[float] = []
        self.monitor = Monitor(
            incarnation="a" * 32,
            started=START,
            random=lambda: self.random,
            on_change=lambda: None,
            on_urgent=self.urgent.append,
        )
        self.good, self.bad, self.third = (
            self.monitor.subject("uid-a", model) for model in ("good", "bad", "third")
        )
        self.turn()

    def turn(
        self,
        state: SubjectState = ACTIVE,
        *,
        newer: int = 1,
        models: dict[str, SharedVerdict] | None = None,
        **policy: Any,
    ) -> None:
        """The status says: a state of the backend, and those of models with a record."""
        self.generation += newer
        self.monitor.configure(
            "uid-a",
            policy=replace(DEFAULT_POLICY, **policy),
            shared=SharedVerdict(
                state=state, generation=self.generation, started="b", models=models or {}
            ),
            fingerprint="spec",
            now=self.now,
        )

    def turn_bad(self, state: SubjectState, *, backend: SubjectState = ACTIVE, **more: Any) -> None:
        self.turn(backend, models={"bad": verdict(state, **more)})

    def end(self, attempt: Attempt, outcome: Outcome) -> None:
        self.now += 0.01
        attempt.end(outcome, self.now)

    def attempt(self, subject: Any, outcome: Outcome, times: int = 1, **begin: Any) -> None:
        for _ in range(times):
            self.end(subject.begin(self.now, **begin), outcome)

    def later(self, seconds: float) -> None:
        self.now += seconds
        self.monitor.tick(self.now)

    def pulses(self) -> dict[str, Pulse]:
        made = self.monitor.report(self.now, full=True)
        assert made is not None
        self.monitor.acknowledged(made, Answer(epoch="one"), self.now)
        return {pulse.model: pulse for pulse in made.pulses}

    @property
    def standings(self) -> tuple[Standing, Standing]:
        """Of the good and of the bad one."""
        return self.good.standing, self.bad.standing

    @property
    def whole(self) -> BreakerState:
        """The backend's own breaker."""
        return self.good.backend.breaker.state


def verdict(state: SubjectState, *, started: str = "t1", **more: Any) -> SharedVerdict:
    return SharedVerdict(
        state=state, started=started, reason=REASON, suggested_action="Look", **more
    )


@pytest.fixture
def bench() -> Bench:
    return Bench()


class TestFollowing:
    def test_a_model_that_is_out_is_left_out_in_the_words_of_the_status(self, bench: Bench) -> None:
        bench.turn_bad(EXCLUDED, until=START + 30.0)
        assert bench.standings == (Standing.ADMITTED, Standing.OUT)
        assert bench.bad.why() == (REASON, "Look")
        assert (bench.bad.returns_at(), bench.good.returns_at()) == (START + 30.0, None)
        assert bench.whole is B.CLOSED

    def test_a_model_met_later_obeys_what_is_known_of_it(self, bench: Bench) -> None:
        bench.turn(models={"late": verdict(EXCLUDED), "new": verdict(PROBATION)})
        assert bench.monitor.subject("uid-a", "late").standing is Standing.OUT
        assert bench.monitor.subject("uid-a", "new").standing is Standing.PROBING
        assert bench.monitor.subject("uid-a", "newer").standing is Standing.ADMITTED

    def test_a_probe_of_an_earlier_generation_ends_no_probing_under_the_present_one(
        self, bench: Bench
    ) -> None:
        on_probation = verdict(PROBATION, share_basis_points=10_000)
        bench.turn(models={"bad": on_probation})
        probe = bench.bad.begin(bench.now, probe=True)
        bench.turn(models={"bad": on_probation, "third": verdict(EXCLUDED, started="t2")})
        # An operator that starts now knows of "bad" by the present generation alone.
        bench.end(probe, FAILURE)
        assert bench.bad.wants_probe(bench.now)
        bench.attempt(bench.bad, FAILURE, probe=True)
        assert not bench.bad.wants_probe(bench.now)

    def test_a_model_that_turns_leaves_its_backends_probe_in_flight(self, bench: Bench) -> None:
        bench.turn(EXCLUDED)
        bench.turn(PROBATION)
        probe = bench.good.begin(bench.now, probe=True)
        bench.turn(PROBATION, models={"bad": verdict(ACTIVE)})  # S17, stranded
        assert not bench.third.wants_probe(bench.now)
        bench.end(probe, SUCCESS)
        assert bench.third.wants_probe(bench.now)

    def test_a_model_that_turns_lets_the_backend_be_probed_again_by_who_failed(
        self, bench: Bench
    ) -> None:
        bench.turn(EXCLUDED)
        bench.turn(PROBATION)
        bench.attempt(bench.good, FAILURE, probe=True)
        assert not bench.good.wants_probe(bench.now)
        bench.turn(PROBATION, models={"bad": verdict(ACTIVE)})
        assert bench.good.wants_probe(bench.now)

    @pytest.mark.parametrize(
        ("state", "standing"),
        [(EXCLUDED, Standing.OUT), (PROBATION, Standing.PROBING), (ACTIVE, Standing.ADMITTED)],
    )
    def test_an_audit_that_ends_before_the_operator_saw_it_leaves_the_verdict_in_force(
        self, bench: Bench, state: SubjectState, standing: Standing
    ) -> None:
        for models in ({}, {"bad": verdict(state)}):
            whole = ACTIVE if models else state
            bench.turn(whole, models=models)
            bench.turn(whole, models=models, newer=0, enforce=False)
            assert bench.standings == (Standing.ADMITTED, Standing.ADMITTED)
            bench.turn(whole, models=models, newer=0)
            assert bench.bad.standing is standing

    def test_a_model_met_under_an_audit_obeys_nothing(self, bench: Bench) -> None:
        bench.turn(models={"late": verdict(EXCLUDED)}, enforce=False)
        assert bench.monitor.subject("uid-a", "late").standing is Standing.ADMITTED

    @pytest.mark.parametrize("state", [EXCLUDED, PROBATION])
    @pytest.mark.parametrize("of_model", [True, False])
    def test_what_is_decided_by_an_operator_that_does_not_know_of_the_audit_yet_is_not_obeyed(
        self, bench: Bench, state: SubjectState, of_model: bool
    ) -> None:
        whole, models = (ACTIVE, {"bad": verdict(state)}) if of_model else (state, {})
        bench.turn(enforce=False)
        bench.turn(whole, models=models, enforce=False)
        assert bench.standings == (Standing.ADMITTED, Standing.ADMITTED)
        assert (bench.whole, bench.bad.breaker.state) == (B.CLOSED, B.CLOSED)
        bench.turn(enforce=False)
        assert bench.standings == (Standing.ADMITTED, Standing.ADMITTED)
        bench.turn(whole, models=models, enforce=False)
        bench.turn(whole, models=models, newer=0)
        expected = Standing.OUT if state is EXCLUDED else Standing.PROBING
        assert bench.bad.standing is expected, "once the audit is over it is in force"

    def test_a_proxy_that_starts_follows_at_once(self) -> None:
        bench = Bench()
        bench.monitor.forget("uid-a")
        bench.bad = bench.monitor.subject("uid-a", "bad")
        bench.turn_bad(PROBATION, share_basis_points=10_000)
        assert bench.bad.breaker.state is B.FOLLOW_PROBATION

    def test_probes_are_drawn_by_the_models_share_and_one_at_a_time(self, bench: Bench) -> None:
        bench.turn_bad(PROBATION, share_basis_points=2_500)
        assert bench.standings == (Standing.ADMITTED, Standing.PROBING)
        bench.random = 0.3
        assert not bench.bad.wants_probe(bench.now)
        bench.random = 0.2
        assert bench.bad.wants_probe(bench.now)
        probe = bench.bad.begin(bench.now, probe=True)
        assert not bench.bad.wants_probe(bench.now)
        assert [(m, p.probing) for m, p in bench.pulses().items()] == [("bad", True)]
        bench.end(probe, SUCCESS)
        assert bench.bad.wants_probe(bench.now)

    def test_a_failed_probe_is_the_last_under_this_probation_whatever_other_models_do(
        self, bench: Bench
    ) -> None:
        probation = verdict(PROBATION, share_basis_points=10_000)
        bench.turn(models={"bad": probation})
        bench.attempt(bench.bad, FAILURE, probe=True)
        assert not bench.bad.wants_probe(bench.now)
        bench.turn(models={"bad": probation, "third": verdict(EXCLUDED)})
        assert not bench.bad.wants_probe(bench.now)
        bench.turn_bad(PROBATION, started="t2", share_basis_points=10_000)
        assert bench.bad.wants_probe(bench.now)  # another exclusion lay in between

    def test_it_comes_back_by_slow_start_and_the_others_do_not(self, bench: Bench) -> None:
        bench.turn_bad(EXCLUDED)
        bench.turn_bad(PROBATION)
        bench.turn_bad(ACTIVE, recovered=bench.now)
        assert bench.standings == (Standing.ADMITTED, Standing.SLOW_START)
        assert bench.bad.admission(bench.now + 15.0) == 0.5
        assert bench.good.admission(bench.now) == 1.0
        bench.later(31.0)
        assert bench.standings == (Standing.ADMITTED, Standing.ADMITTED)

    def test_a_verdict_that_is_gone_from_the_status_is_over(self, bench: Bench) -> None:
        bench.turn_bad(EXCLUDED)
        bench.turn(newer=0)
        assert bench.standings == (Standing.ADMITTED, Standing.ADMITTED)

    def test_an_older_status_moves_nothing(self, bench: Bench) -> None:
        bench.turn_bad(EXCLUDED)
        bench.turn(newer=-1)
        assert bench.standings == (Standing.ADMITTED, Standing.OUT)

    def test_the_shared_verdict_drops_the_proxys_own(self, bench: Bench) -> None:
        bench.attempt(bench.bad, FAILURE, 5)
        assert bench.bad.breaker.state is B.OPEN
        bench.turn_bad(EXCLUDED)
        assert bench.bad.breaker.state is B.FOLLOW_EXCLUDED
        bench.later(35.0)
        assert bench.bad.breaker.state is B.FOLLOW_EXCLUDED

    def test_last_resort_outcomes_move_nothing(self, bench: Bench) -> None:
        bench.turn_bad(EXCLUDED)
        bench.attempt(bench.bad, FAILURE, 9, last_resort=True)
        bench.attempt(bench.bad, SUCCESS, 9, last_resort=True)
        assert bench.bad.breaker.state is B.FOLLOW_EXCLUDED and bench.whole is B.CLOSED

    def test_without_an_operator_it_finds_its_own_way_back(self, bench: Bench) -> None:
        bench.turn_bad(EXCLUDED, until=START + 30.0)
        bench.later(89.0)
        assert bench.bad.breaker.state is B.FOLLOW_EXCLUDED
        bench.later(2.0)
        assert bench.bad.breaker.state is B.HALF_OPEN  # L18
        bench.attempt(bench.bad, SUCCESS, 2, probe=True)
        assert bench.bad.breaker.state is B.CLOSED

    def test_on_probation_without_answers_as_well(self, bench: Bench) -> None:
        bench.turn_bad(PROBATION, share_basis_points=0)
        bench.later(91.0)
        assert bench.bad.breaker.state is B.HALF_OPEN  # L19
        assert bench.bad.wants_probe(bench.now)

    def test_requests_kept_from_it_are_counted_for_it_and_soon_told(self, bench: Bench) -> None:
        bench.turn_bad(EXCLUDED)
        bench.urgent.clear()
        bench.bad.kept_out(bench.now)
        assert bench.urgent
        made = bench.monitor.report(bench.now, full=True)
        assert made is not None
        assert {cell.model for cell in made.cells if cell.eligible} == {"bad"}


class TestTheBackendGoes:
    def test_a_models_verdict_stands_still_meanwhile(self, bench: Bench) -> None:
        bench.turn_bad(EXCLUDED, until=START + 30.0)
        bench.turn_bad(EXCLUDED, backend=EXCLUDED, until=START + 30.0)
        bench.later(200.0)
        assert bench.bad.breaker.state is B.FOLLOW_EXCLUDED
        bench.turn_bad(EXCLUDED, backend=PROBATION, until=START + 30.0)
        assert bench.standings == (Standing.PROBING, Standing.OUT)
        bench.turn(ACTIVE)
        assert bench.standings == (Standing.ADMITTED, Standing.ADMITTED)

    def test_one_that_had_gone_its_own_way_follows_again(self, bench: Bench) -> None:
        bench.turn_bad(EXCLUDED, until=START + 30.0)
        bench.later(91.0)
        assert bench.bad.breaker.state is B.HALF_OPEN
        bench.turn_bad(EXCLUDED, backend=EXCLUDED, until=START + 30.0)
        assert bench.bad.breaker.state is B.FOLLOW_EXCLUDED

    def test_own_breakers_of_models_begin_anew_with_it(self, bench: Bench) -> None:
        bench.attempt(bench.bad, FAILURE, 5)
        bench.turn(EXCLUDED)
        assert bench.bad.breaker.state is B.CLOSED
        assert bench.standings == (Standing.OUT, Standing.OUT)


class TestFailingTogether:
    def test_the_row_of_the_backend_leaves_the_worst_model_out(self, bench: Bench) -> None:
        bench.attempt(bench.bad, FAILURE, 4)
        bench.attempt(bench.good, FAILURE, 3)
        bench.attempt(bench.third, FAILURE, 1)
        assert bench.whole is B.CLOSED
        bench.attempt(bench.third, FAILURE, 1)
        assert bench.whole is B.OPEN
        assert bench.standings == (Standing.OUT, Standing.OUT)
        assert bench.good.why()[0] == "This proxy's breaker is Open after 5 failures in a row"
        assert bench.urgent[-1] == 0.0
        assert bench.pulses()[""].open

    def test_a_model_that_fails_alone_trips_its_own_breaker_and_no_other(
        self, bench: Bench
    ) -> None:
        for _ in range(20):
            bench.attempt(bench.bad, FAILURE)
            bench.attempt(bench.good, SUCCESS)
        assert bench.standings == (Standing.ADMITTED, Standing.OUT)
        assert bench.whole is B.CLOSED
        assert bench.bad.why()[0].startswith("Model bad: this proxy's breaker is Open after ")

    def test_a_success_of_another_model_ends_what_came_before_it(self, bench: Bench) -> None:
        bench.attempt(bench.bad, FAILURE, 5)
        bench.attempt(bench.good, FAILURE, 4)
        bench.attempt(bench.third, SUCCESS)
        bench.attempt(bench.third, FAILURE, 4)
        assert bench.whole is B.CLOSED
        bench.attempt(bench.third, FAILURE, 1)  # now third is as long as bad, and good is out
        assert bench.third.breaker.state is B.OPEN

    def test_a_success_of_the_worst_model_does_not(self, bench: Bench) -> None:
        bench.attempt(bench.good, FAILURE, 3)
        bench.attempt(bench.bad, SUCCESS)
        bench.attempt(bench.bad, FAILURE, 4)
        bench.attempt(bench.third, FAILURE, 2)
        assert bench.whole is B.OPEN

    def test_attempts_unanswered_hold_it_back(self, bench: Bench) -> None:
        bench.attempt(bench.bad, FAILURE, 4)
        bench.attempt(bench.good, FAILURE, 3)
        slow = [bench.good.begin(bench.now) for _ in range(6)]
        bench.attempt(bench.third, FAILURE, 2)
        assert bench.whole is B.CLOSED
        bench.end(slow.pop(), FAILURE)
        assert bench.whole is B.OPEN  # six failed, five are unanswered

    def test_connect_class_failures_make_a_row_at_once(self, bench: Bench) -> None:
        for subject in (bench.good, bench.bad, bench.third, bench.good, bench.bad):
            bench.attempt(subject, UNREACHED)
        assert bench.whole is B.OPEN
        assert bench.bad.breaker.state is B.CLOSED

    def test_rows_from_before_it_closed_again_are_over(self, bench: Bench) -> None:
        bench.attempt(bench.bad, FAILURE, 4)
        bench.attempt(bench.good, FAILURE, 4)
        bench.attempt(bench.third, FAILURE, 1)
        assert bench.whole is B.OPEN
        bench.later(31.0)
        assert bench.whole is B.HALF_OPEN
        bench.attempt(bench.third, SUCCESS, 2, probe=True)
        assert bench.whole is B.CLOSED
        assert bench.third.breaker.row.length == 0
        bench.attempt(bench.third, FAILURE, 4)
        assert bench.whole is B.CLOSED

    @pytest.mark.parametrize("policy", [{"enforce": False}, {"consecutive_failures": 0}])
    def test_where_the_policy_has_no_breakers_there_is_none(
        self, bench: Bench, policy: dict[str, Any]
    ) -> None:
        bench.turn(**policy)
        for subject in (bench.good, bench.bad, bench.third) * 9:
            bench.attempt(subject, FAILURE)
        assert bench.whole is B.CLOSED

    def test_the_pulse_tells_what_other_models_have_in_flight(self, bench: Bench) -> None:
        bench.good.begin(bench.now)
        assert bench.pulses() == {}
        bench.attempt(bench.bad, FAILURE)
        pulses = bench.pulses()
        assert {m: (p.row, p.in_flight) for m, p in pulses.items()} == {
            "good": (0, 1),
            "bad": (1, 0),
        }
