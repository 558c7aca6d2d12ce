"""What one proxy makes of its attempts: standings, probes, and when a report leaves."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from nexus_api.backend import SubjectState
from nexus_quality.breaker import BreakerState
from nexus_quality.monitor import Monitor
from nexus_quality.outcome import Outcome
from nexus_quality.policy import DEFAULT_POLICY, Policy
from nexus_quality.report import Answer, Pulse, Report, decode_report, encode
from nexus_quality.shared import SharedVerdict
from nexus_quality.subject import Standing, Subject
from nexus_quality.window import Family

ACTIVE, EXCLUDED, PROBATION = SubjectState.ACTIVE, SubjectState.EXCLUDED, SubjectState.PROBATION
FAILURE = Outcome.SERVER_ERROR
START = 1_000.0


class Bench:
    """A monitor with time, chance and reports in the test's hands."""

    def __init__(self) -> None:
        self.now, self.random = START, 0.0
        self.urgent: list[float] = []
        self.changes = 0
        self.monitor = Monitor(
            incarnation="a" * 32,
            started=START,
            random=lambda: self.random,
            on_change=self.changed,
            on_urgent=self.urgent.append,
        )
        self.subject = self.monitor.subject("uid-a", "tiny")
        self.turn()

    def changed(self) -> None:
        self.changes += 1

    def turn(
        self,
        state: SubjectState = ACTIVE,
        generation: int = 0,
        *,
        policy: Policy = DEFAULT_POLICY,
        fingerprint: str = "spec",
        **shared: Any,
    ) -> None:
        self.monitor.configure(
            "uid-a",
            policy=policy,
            shared=SharedVerdict(state=state, generation=generation, **shared),
            fingerprint=fingerprint,
            now=self.now,
        )

    def attempt(self, outcome: Outcome, subject: Subject | None = None, **begin: Any) -> None:
        attempt = (subject or self.subject).begin(self.now, **begin)
        self.now += 0.01
        attempt.end(outcome, self.now)

    def fail(self, times: int, subject: Subject | None = None) -> None:
        for _ in range(times):
            self.attempt(FAILURE, subject)

    def later(self, seconds: float) -> None:
        self.now += seconds
        self.monitor.tick(self.now)

    def report(self, *, full: bool = False) -> Report | None:
        """The report as it arrives."""
        made = self.monitor.report(self.now, full=full)
        return None if made is None else decode_report(encode(made))

    def exchange(self, *, epoch: str = "one", full: bool = True, **answer: Any) -> bool:
        made = self.monitor.report(self.now, full=full)
        assert made is not None
        return self.monitor.acknowledged(made, Answer(epoch=epoch, **answer), self.now)

    def pulses(self) -> list[Pulse]:
        made = self.report(full=True)
        assert made is not None
        return made.pulses

    @property
    def state(self) -> BreakerState:
        """That of the model's own breaker."""
        return self.subject.breaker.state

    @property
    def whole(self) -> BreakerState:
        """That of the backend's."""
        return self.subject.backend.breaker.state


def quiet_monitor(random: float = 0.0) -> Monitor:
    """A monitor that tells nobody."""
    return Monitor(
        incarnation="b" * 32,
        started=START,
        random=lambda: random,
        on_change=lambda: None,
        on_urgent=lambda _: None,
    )


@pytest.fixture
def bench() -> Bench:
    return Bench()


class TestBreakers:
    def test_five_failures_in_a_row_open_and_are_told(self, bench: Bench) -> None:
        bench.fail(4)
        assert bench.subject.standing is Standing.ADMITTED
        before = bench.changes
        bench.fail(1)
        assert bench.subject.standing is Standing.OUT
        assert bench.changes > before and bench.urgent[-1] == 0.0
        reason, action = bench.subject.why()
        assert "breaker" in reason and action

    def test_it_is_tried_again_by_one_probe_at_a_time(self, bench: Bench) -> None:
        bench.fail(5)
        bench.later(29.0)
        assert bench.subject.standing is Standing.OUT
        bench.later(1.1)
        assert bench.subject.standing is Standing.PROBING
        assert bench.subject.wants_probe(bench.now)
        probe = bench.subject.begin(bench.now, probe=True)
        assert not bench.subject.wants_probe(bench.now)
        probe.end(Outcome.SUCCESS, bench.now)
        assert bench.subject.wants_probe(bench.now)
        bench.attempt(Outcome.SUCCESS, probe=True)
        assert bench.subject.standing is Standing.SLOW_START
        assert bench.subject.admission(bench.now) == pytest.approx(0.1)
        bench.later(15.0)
        assert bench.subject.admission(bench.now) == pytest.approx(0.5)
        bench.later(15.1)
        assert bench.subject.standing is Standing.ADMITTED

    @pytest.mark.parametrize("outcome", [Outcome.CLIENT_GONE, Outcome.THROTTLED, FAILURE])
    def test_the_place_of_a_probe_is_freed_however_it_ends(
        self, bench: Bench, outcome: Outcome
    ) -> None:
        bench.turn(EXCLUDED, 1)
        bench.turn(PROBATION, 2, share_basis_points=10_000)
        bench.attempt(outcome, probe=True)
        breaker = bench.subject.backend.breaker
        assert not breaker.probe_in_flight
        assert bench.subject.wants_probe(bench.now) is (outcome is not FAILURE)  # L13

    def test_a_stream_is_a_success_of_the_probe_at_its_first_content(self, bench: Bench) -> None:
        bench.fail(5)
        bench.later(31.0)
        for _ in range(2):
            probe = bench.subject.begin(bench.now, probe=True)
            probe.content(bench.now + 0.5)
            bench.now += 2.0
        assert bench.state is BreakerState.CLOSED
        counts = bench.subject.series.last(3600.0, bench.now - START, Family.MINUTE)
        assert (counts.errors, counts.probe_successes, counts.probe_failures) == (5, 2, 0)

    def test_where_streams_break_one_is_a_success_at_its_end_alone(self, bench: Bench) -> None:
        for number in range(5):
            assert bench.state is BreakerState.CLOSED
            stream = bench.subject.begin(bench.now)
            stream.content(bench.now + 0.5)
            stream.end(Outcome.CUT if number % 2 else Outcome.TIMEOUT, bench.now + 1.0)
            bench.now += 2.0
        assert bench.state is BreakerState.OPEN
        bench.later(31.0)
        probe = bench.subject.begin(bench.now, probe=True)
        probe.content(bench.now + 0.5)
        counts = bench.subject.series.last(3600.0, bench.now - START, Family.MINUTE)
        assert counts.probe_successes == 0
        probe.end(Outcome.CUT, bench.now + 1.0)
        assert bench.state is BreakerState.OPEN

    def test_a_complete_stream_ends_what_broken_ones_began(self, bench: Bench) -> None:
        for _ in range(4):
            stream = bench.subject.begin(bench.now)
            stream.content(bench.now + 0.5)
            stream.end(Outcome.CUT, bench.now + 1.0)
            bench.now += 2.0
        whole = bench.subject.begin(bench.now)
        whole.content(bench.now + 0.5)
        assert bench.subject.breaker.row.length == 4
        whole.end(Outcome.SUCCESS, bench.now + 1.0)
        assert bench.subject.breaker.row.length == 0
        bench.now += 2.0
        bench.fail(4)
        next_one = bench.subject.begin(bench.now)
        next_one.content(bench.now + 0.5)
        assert bench.subject.breaker.row.length == 0

    def test_connect_errors_of_several_models_make_a_row_of_the_backend(self, bench: Bench) -> None:
        others = [bench.monitor.subject("uid-a", f"model-{n}") for n in range(5)]
        for other in others:
            bench.attempt(Outcome.CONNECT_ERROR, other)
        assert bench.whole is BreakerState.OPEN
        assert {other.standing for other in others} == {Standing.OUT}
        assert bench.subject.standing is Standing.OUT

    def test_one_bad_model_leaves_the_backends_others_alone(self, bench: Bench) -> None:
        other = bench.monitor.subject("uid-a", "large")
        bench.fail(5, other)
        assert (other.standing, bench.subject.standing) == (Standing.OUT, Standing.ADMITTED)

    def test_attempts_begun_before_the_trip_move_nothing_afterwards(self, bench: Bench) -> None:
        late = [bench.subject.begin(bench.now) for _ in range(5)]
        bench.now += 0.1
        bench.fail(10)
        assert bench.state is BreakerState.OPEN
        until, k = bench.subject.breaker.until, bench.subject.breaker.k
        late.pop().end(FAILURE, bench.now)
        late.pop().end(Outcome.SUCCESS, bench.now)
        assert (bench.subject.breaker.until, bench.subject.breaker.k) == (until, k)
        bench.later(31.0)
        for attempt in late:
            attempt.end(FAILURE, bench.now)
        assert bench.state is BreakerState.HALF_OPEN

    def test_a_failure_of_a_backend_that_came_back_is_not_held_against_its_past(
        self, bench: Bench
    ) -> None:
        bench.fail(40)
        bench.turn(EXCLUDED, 1)
        bench.turn(PROBATION, 2)
        bench.turn(ACTIVE, 3)
        bench.now += 1.0
        bench.fail(5)
        assert bench.state is BreakerState.OPEN

    def test_an_attempt_that_ends_twice_is_an_error(self, bench: Bench) -> None:
        attempt = bench.subject.begin(bench.now)
        attempt.end(FAILURE, bench.now)
        with pytest.raises(RuntimeError, match="ended twice"):
            attempt.end(FAILURE, bench.now)
        assert bench.subject.in_flight == 0


class TestFollowing:
    @pytest.mark.parametrize(
        ("state", "standing"),
        [
            (ACTIVE, Standing.ADMITTED),
            (EXCLUDED, Standing.OUT),
            (PROBATION, Standing.PROBING),
        ],
    )
    def test_a_starting_proxy_takes_over_what_it_reads(
        self, state: SubjectState, standing: Standing
    ) -> None:
        monitor = quiet_monitor()
        monitor.configure(
            "uid-a",
            policy=DEFAULT_POLICY,
            shared=SharedVerdict(state=state, generation=9),
            fingerprint="",
            now=START,
        )
        assert monitor.subject("uid-a", "tiny").standing is standing

    def test_the_shared_reason_is_told(self, bench: Bench) -> None:
        bench.turn(EXCLUDED, 1, reason="too many errors", suggested_action="look")
        assert bench.subject.why() == ("too many errors", "look")

    def test_an_older_generation_moves_nothing(self, bench: Bench) -> None:
        bench.turn(EXCLUDED, 5)
        bench.turn(ACTIVE, 4)
        assert bench.subject.standing is Standing.OUT

    def test_probes_are_drawn_by_the_share(self, bench: Bench) -> None:
        bench.turn(PROBATION, 1, share_basis_points=2_500)
        bench.random = 0.24
        assert bench.subject.wants_probe(bench.now)
        bench.random = 0.25
        assert not bench.subject.wants_probe(bench.now)
        bench.turn(PROBATION, 1, share_basis_points=0)
        bench.random = 0.0
        assert not bench.subject.wants_probe(bench.now)

    def test_a_proxy_whose_probe_failed_sends_no_more_under_this_generation(
        self, bench: Bench
    ) -> None:
        bench.turn(PROBATION, 1)
        bench.attempt(FAILURE, probe=True)
        assert bench.urgent[-1] == 0.0
        assert not bench.subject.wants_probe(bench.now)
        bench.turn(PROBATION, 3)  # it missed the exclusion in between
        assert bench.subject.wants_probe(bench.now)

    @pytest.mark.parametrize("state", [EXCLUDED, PROBATION])
    @pytest.mark.parametrize("outcome", [FAILURE, Outcome.CONNECT_ERROR, Outcome.SUCCESS])
    def test_outcomes_of_the_last_resort_are_counted_and_move_nothing(
        self, bench: Bench, state: SubjectState, outcome: Outcome
    ) -> None:
        bench.turn(state, 1)
        for _ in range(20):
            bench.attempt(outcome, last_resort=True)
        assert (bench.state, bench.subject.breaker.row.length) == (BreakerState.CLOSED, 0)
        assert bench.subject.series.last(60.0, bench.now - START, Family.MINUTE).requests == 20
        bench.turn(ACTIVE, 2)
        assert bench.subject.standing is Standing.ADMITTED

    def test_what_began_before_an_exclusion_opens_no_model_behind_it(self, bench: Bench) -> None:
        late = [bench.subject.begin(bench.now) for _ in range(9)]
        bench.now += 1.0
        bench.turn(EXCLUDED, 1)
        for attempt in late:
            attempt.end(FAILURE, bench.now)
        assert (bench.state, bench.subject.breaker.row.length) == (BreakerState.CLOSED, 0)

    def test_a_model_begins_anew_with_its_backend(self, bench: Bench) -> None:
        bench.fail(5)
        bench.turn(EXCLUDED, 1)
        assert bench.state is BreakerState.CLOSED
        bench.turn(PROBATION, 2)
        bench.turn(ACTIVE, 3, recovered=bench.now)
        assert bench.subject.standing is Standing.SLOW_START
        assert bench.subject.breaker.k == 1

    def test_an_orphan_follows_again_as_soon_as_there_is_a_newer_generation(
        self, bench: Bench
    ) -> None:
        bench.turn(EXCLUDED, 1, until=bench.now + 30.0)
        bench.later(90.1)
        assert bench.whole is BreakerState.HALF_OPEN
        bench.turn(ACTIVE, 2)
        assert bench.subject.standing is Standing.ADMITTED

    @pytest.mark.parametrize("jitter", [0.0, 0.99])
    def test_orphans_wait_for_a_minute_after_the_end_and_some_chance(self, jitter: float) -> None:
        bench = Bench()
        bench.monitor = quiet_monitor(jitter)
        bench.subject = bench.monitor.subject("uid-a", "tiny")
        bench.turn(EXCLUDED, 1, until=START + 30.0)
        bench.later(89.9 + 10.0 * jitter)
        assert bench.whole is BreakerState.FOLLOW_EXCLUDED
        bench.later(0.2)
        assert bench.whole is BreakerState.HALF_OPEN

    def test_probation_is_decided_alone_only_when_no_report_was_answered_for_long(
        self, bench: Bench
    ) -> None:
        bench.turn(PROBATION, 1)
        bench.later(80.0)
        bench.exchange()
        bench.later(89.0)
        assert bench.whole is BreakerState.FOLLOW_PROBATION
        bench.later(1.1)
        assert bench.whole is BreakerState.HALF_OPEN

    def test_a_new_spec_is_a_new_backend_at_once(self, bench: Bench) -> None:
        bench.turn(EXCLUDED, 4)
        bench.turn(EXCLUDED, 4, fingerprint="other")
        assert bench.subject.standing is Standing.ADMITTED
        assert bench.subject.admission(bench.now) == 1.0
        bench.turn(ACTIVE, 5, fingerprint="other")
        assert bench.subject.standing is Standing.ADMITTED

    def test_an_audit_policy_closes_and_opens_nothing(self, bench: Bench) -> None:
        bench.fail(5)
        audit = replace(DEFAULT_POLICY, enforce=False)
        bench.turn(policy=audit)
        bench.now += 1.0
        bench.fail(50)
        assert bench.subject.standing is Standing.ADMITTED


class TestReports:
    def test_the_first_failure_leaves_soon_and_further_ones_once_a_second(
        self, bench: Bench
    ) -> None:
        bench.attempt(FAILURE)
        assert bench.urgent == [pytest.approx(0.2)]
        bench.attempt(FAILURE)
        assert len(bench.urgent) == 1
        bench.report()
        bench.attempt(FAILURE)
        assert bench.urgent[-1] == pytest.approx(1.0, abs=0.05)

    def test_successes_of_an_active_backend_wait_for_the_full_report(self, bench: Bench) -> None:
        bench.attempt(Outcome.SUCCESS)
        assert bench.urgent == []

    def test_successes_hurry_where_something_hangs_on_them(self, bench: Bench) -> None:
        def hurries() -> bool:
            bench.urgent.clear()
            bench.attempt(Outcome.SUCCESS)
            hurried = bool(bench.urgent)
            bench.report()
            return hurried

        bench.turn(EXCLUDED, 1)
        assert hurries()
        bench.turn(ACTIVE, 2)
        assert hurries()
        bench.now += 61.0
        assert not hurries()
        bench.attempt(Outcome.SUCCESS)
        bench.exchange(suspects=("uid-a",))
        assert hurries()
        bench.attempt(Outcome.SUCCESS)
        bench.exchange()
        assert not hurries()

    def test_kept_out_requests_are_counted_and_hurry_while_the_fleet_waits(
        self, bench: Bench
    ) -> None:
        bench.turn(EXCLUDED, 1)
        bench.urgent.clear()
        bench.subject.kept_out(bench.now)
        assert bench.urgent
        made = bench.report()
        assert made is not None
        assert {cell.eligible for cell in made.cells} == {1}

    def test_a_report_without_news_is_none(self, bench: Bench) -> None:
        assert bench.report() is None
        bench.attempt(Outcome.SUCCESS)
        assert bench.report() is not None
        assert bench.report() is None

    def test_a_report_holds_what_changed_and_a_full_one_all(self, bench: Bench) -> None:
        bench.attempt(Outcome.SUCCESS)
        bench.exchange(full=False)
        bench.now += 10.0
        bench.attempt(Outcome.SUCCESS)
        changed, full = bench.report(), bench.report(full=True)
        assert changed is not None and full is not None
        assert [(c.family, c.bucket) for c in changed.cells] == [(10, 1), (60, 0), (3600, 0)]
        assert len(full.cells) == 4

    def test_what_was_not_answered_is_told_again(self, bench: Bench) -> None:
        bench.attempt(Outcome.SUCCESS)
        assert bench.report() is not None
        bench.monitor.unanswered(bench.now)
        again = bench.report()
        assert again is not None and len(again.cells) == 3

    def test_a_new_operator_is_told_everything_once_as_a_replay(self, bench: Bench) -> None:
        bench.attempt(Outcome.SUCCESS)
        assert bench.exchange(epoch="one") is False
        bench.attempt(Outcome.SUCCESS)
        assert bench.exchange(epoch="two", full=False) is True
        replay = bench.monitor.report(bench.now, full=True)
        assert replay is not None and replay.replay
        assert bench.monitor.acknowledged(replay, Answer(epoch="two"), bench.now) is False
        following = bench.monitor.report(bench.now, full=True)
        assert following is not None and not following.replay

    def test_a_replay_that_was_lost_is_still_owed(self, bench: Bench) -> None:
        bench.attempt(Outcome.SUCCESS)
        bench.exchange(epoch="one")
        bench.attempt(Outcome.SUCCESS)
        bench.exchange(epoch="two", full=False)
        assert bench.report(full=True) is not None
        bench.monitor.unanswered(bench.now)
        again = bench.monitor.report(bench.now, full=True)
        assert again is not None and again.replay

    def test_pulses_tell_rows_open_breakers_and_probes_under_way(self, bench: Bench) -> None:
        assert bench.pulses() == []
        waiting = bench.subject.begin(bench.now)
        bench.fail(2)
        (row,) = bench.pulses()
        assert (row.model, row.row, row.open, row.in_flight) == ("tiny", 2, False, 1)
        assert row.row_began_ms == 0
        waiting.end(Outcome.CLIENT_GONE, bench.now)
        bench.fail(3)
        assert [pulse.open for pulse in bench.pulses()] == [True]
        bench.later(31.0)
        bench.subject.begin(bench.now, probe=True)
        assert [(pulse.open, pulse.probing) for pulse in bench.pulses()] == [(True, True)]

    def test_pulses_end_with_what_they_tell_of(self, bench: Bench) -> None:
        bench.fail(2)
        bench.attempt(Outcome.SUCCESS)
        assert bench.pulses() == []

    def test_pulses_carry_the_generation_that_the_proxy_knows(self, bench: Bench) -> None:
        bench.turn(ACTIVE, 6)
        bench.fail(1)
        assert [pulse.generation for pulse in bench.pulses()] == [6]

    def test_a_failed_probe_does_not_move_the_begin_of_the_row(self, bench: Bench) -> None:
        bench.now += 50.0
        bench.fail(5)
        bench.later(31.0)
        bench.attempt(FAILURE, probe=True)
        (pulse,) = bench.pulses()
        assert (pulse.row, pulse.row_began_ms) == (6, 50_000)


class TestFigures:
    def stream(self, bench: Bench, ttft: float) -> None:
        attempt = bench.subject.begin(bench.now)
        attempt.sent(bench.now)
        attempt.content(bench.now + ttft)
        attempt.end(Outcome.SUCCESS, bench.now + ttft)

    def test_ttft_is_of_the_last_minutes_then_of_the_hour_then_unknown(self, bench: Bench) -> None:
        def average() -> int | None:
            return bench.subject.ttft_average_ms(bench.now)

        self.stream(bench, 4.0)
        self.stream(bench, 4.0)
        assert average() is None
        self.stream(bench, 1.0)
        assert average() == 3_000
        for _ in range(7):
            self.stream(bench, 1.0)
        bench.now += 400.0
        assert average() == 1_600
        self.stream(bench, 9.0)
        assert average() == 2_272

    def test_without_a_short_window_only_the_hour_speaks_as_in_the_seed(self, bench: Bench) -> None:
        bench.turn(policy=replace(DEFAULT_POLICY, short_window_seconds=0, min_requests=1))
        for _ in range(9):
            self.stream(bench, 1.0)
        bench.now += 400.0
        for _ in range(3):
            self.stream(bench, 5.0)
        assert bench.subject.ttft_average_ms(bench.now) == 2_000

    def test_ttft_runs_from_the_last_byte_sent(self, bench: Bench) -> None:
        attempt = bench.subject.begin(bench.now)
        attempt.sent(bench.now + 1.0)
        attempt.content(bench.now + 1.5)
        attempt.content(bench.now + 9.0)
        assert attempt.ttft == pytest.approx(0.5)

    @pytest.mark.parametrize(
        ("good", "bad", "weight"), [(0, 0, 1.0), (3, 1, 0.75), (0, 9, 0.05), (1, 0, 1.0)]
    )
    def test_the_weight_of_the_last_resort_is_the_recent_success_rate(
        self, bench: Bench, good: int, bad: int, weight: float
    ) -> None:
        for outcome, times in ((Outcome.SUCCESS, good), (FAILURE, bad)):
            for _ in range(times):
                bench.attempt(outcome)
        assert bench.subject.weight(bench.now) == pytest.approx(weight)

    def test_time_alone_changes_nothing_once_a_slow_start_is_over(self, bench: Bench) -> None:
        backend = bench.subject.backend
        bench.turn(SubjectState.EXCLUDED, 1)
        bench.turn(SubjectState.ACTIVE, 2, recovered=bench.now)
        assert bench.subject.standing is Standing.SLOW_START
        assert not backend.still
        bench.later(bench.subject.breaker.policy.slow_start_seconds + 1.0)
        assert bench.subject.standing is Standing.ADMITTED
        assert backend.still

    def test_a_forgotten_backend_is_a_new_one_afterwards(self, bench: Bench) -> None:
        bench.fail(5)
        bench.monitor.forget("uid-a")
        subject = bench.monitor.subject("uid-a", "tiny")
        assert subject is not bench.subject
        assert subject.standing is Standing.ADMITTED
