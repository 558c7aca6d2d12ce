"""The engine's edges: starting, accepting, answering, and what is said beside the state."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from nexus_api.backend import BackendState, Exclusion, LLMBackendStatus, Quality, SubjectState
from nexus_api.quantities import format_time
from nexus_quality.engine import BackendFacts, Engine, Transition
from nexus_quality.policy import DEFAULT_POLICY, Policy
from nexus_quality.published import verdicts_from_status
from nexus_quality.report import Cell, Pulse, Report

NOW = 1_700_000_000.0
FACTS = BackendFacts(uid="uid-a", namespace="shop", name="a", fingerprint="spec")
LONG_AGO = NOW - 3_600.0
S = SubjectState


class Bench:
    """An engine that hears of the last minute, from reporters as old as it likes."""

    def __init__(self, *, started: float = LONG_AGO, policy: Policy = DEFAULT_POLICY) -> None:
        self.now = NOW
        self.engine = Engine(epoch="one", started=started, random=lambda: 0.0)
        self.engine.upsert(FACTS, policy, self.now)

    def hear(
        self,
        number: int = 0,
        *,
        generation: int = 0,
        pulse: dict[str, Any] | None = None,
        full: bool = False,
        final: bool = False,
        **counts: Any,
    ) -> tuple[str, ...]:
        """A report of the current ten seconds, minute and hour; returns the suspects."""
        elapsed = self.now - NOW + 36_005.0
        cells = [
            Cell(
                family=family,
                bucket=int(elapsed // family),
                uid="uid-a",
                model="tiny",
                generation=generation,
                **counts,
            )
            for family in (10, 60, 3600)
            if counts
        ]
        pulses = [Pulse(uid="uid-a", generation=generation, **pulse)] if pulse else []
        report = Report(
            incarnation=f"{number:032x}",
            now_ms=int(elapsed * 1000),
            full=full,
            final=final,
            cells=cells,
            pulses=pulses,
        )
        merged = self.engine.merge(f"pod-{number}", report, self.now)
        assert merged.answer.refused == () and merged.answer.epoch == "one"
        return merged.answer.suspects

    def wanted(self) -> Transition | None:
        return self.engine.wanted("uid-a", self.now)

    def accept(self) -> str:
        """Accept what is wanted; the row."""
        transition = self.wanted()
        assert transition is not None
        self.engine.accept(transition, self.now)
        return transition.row

    def condition(self) -> tuple[str, str, str]:
        within = self.engine.assess("uid-a", self.now).within_policy
        return str(within.status), within.reason, within.message

    def exclude(self) -> None:
        for number in range(2):
            self.hear(number, requests=20, errors=20)
        assert self.accept() == "S1"


class TestAccepting:
    def test_a_transition_holds_only_once_its_write_was_accepted(self) -> None:
        bench = Bench()
        for number in range(2):
            bench.hear(number, requests=20, errors=20)
        wanted = bench.wanted()
        assert wanted is not None and wanted.row == "S1"
        assert bench.engine.verdict("uid-a").state is S.ACTIVE
        bench.now += 5.0
        again = bench.wanted()  # the write was refused: the latest wanted state is tried again
        assert again is not None and again.after.until == wanted.after.until + 5.0
        bench.engine.accept(again, bench.now)
        assert bench.engine.verdict("uid-a") == again.after
        assert (again.before.generation, again.after.generation) == (0, 1)

    def test_acceptance_for_a_backend_that_is_gone_is_ignored(self) -> None:
        bench = Bench()
        bench.exclude()
        bench.now += 31.0
        wanted = bench.wanted()
        assert wanted is not None
        bench.engine.remove("uid-a")
        bench.engine.accept(wanted, bench.now)
        assert bench.engine.backends() == []

    def test_edits_made_while_a_write_was_under_way_are_still_judged(self) -> None:
        bench = Bench()
        for number in range(2):
            bench.hear(number, requests=20, errors=12)
        wanted = bench.wanted()
        assert wanted is not None
        tolerant = replace(DEFAULT_POLICY, threshold_basis_points=9_000)
        bench.engine.upsert(FACTS, tolerant, bench.now)
        bench.engine.accept(wanted, bench.now)
        assert bench.accept() == "S16"

    def test_a_spec_changed_again_while_its_write_was_under_way_is_new_once_more(self) -> None:
        bench = Bench()
        bench.engine.upsert(replace(FACTS, fingerprint="second"), DEFAULT_POLICY, bench.now)
        wanted = bench.wanted()
        assert wanted is not None and wanted.row == "S15"
        bench.engine.upsert(replace(FACTS, fingerprint="third"), DEFAULT_POLICY, bench.now)
        bench.engine.accept(wanted, bench.now)
        assert bench.accept() == "S15"
        assert bench.wanted() is None

    def test_each_transition_names_its_event_and_says_why(self) -> None:
        bench = Bench()
        bench.hear(0, requests=20, errors=20)
        bench.hear(1, requests=20, errors=20)
        first = bench.wanted()
        assert first is not None
        assert (first.event, first.message) == ("Excluded", first.after.firing.reason)  # type: ignore[union-attr]
        bench.engine.accept(first, bench.now)
        bench.now += 30.0
        second = bench.wanted()
        assert second is not None
        assert second.event == "ProbationStarted" and second.message

    def test_the_deadline_is_the_earliest_end(self) -> None:
        bench = Bench()
        assert bench.engine.deadline() is None
        bench.exclude()
        assert bench.engine.deadline() == NOW + 30.0

    def test_an_end_goes_with_its_exclusion_or_with_its_backend(self) -> None:
        served, removed = Bench(), Bench()
        for bench in (served, removed):
            bench.exclude()
            assert bench.engine.ends() == {FACTS.uid: NOW + 30.0}
        served.now += 30.0
        assert served.accept() == "S7"
        assert served.engine.ends() == {}
        removed.engine.remove(FACTS.uid)
        assert removed.engine.ends() == {}


class TestDeciding:
    def test_outcomes_of_an_older_generation_decide_nothing(self) -> None:
        bench = Bench()
        bench.exclude()
        bench.now += 30.0
        assert bench.accept() == "S7"
        for number in range(2):
            bench.hear(number, generation=2, probe_successes=1, requests=1)
        assert bench.accept() == "S11"
        for number in range(2):
            bench.hear(number, generation=1, requests=90, errors=90)
        assert bench.wanted() is None
        for number in range(2):
            bench.hear(number, generation=3, requests=90, errors=90)
        assert bench.accept() == "S1"

    def test_pulses_of_an_older_generation_decide_nothing(self) -> None:
        bench = Bench(policy=replace(DEFAULT_POLICY, min_reporters=1))
        bench.exclude()
        bench.now += 30.0
        bench.accept()
        bench.hear(0, generation=1, requests=50, pulse={"open": True})
        bench.hear(1, generation=2, probe_successes=2, requests=2)
        assert bench.accept() == "S11"
        bench.hear(1, generation=3, requests=2, errors=1)
        assert bench.wanted() is None

    def test_silent_reporters_are_no_part_of_the_quorum(self) -> None:
        bench = Bench()
        bench.hear(0, requests=100)
        bench.hear(1, requests=100)
        bench.now += 91.0
        bench.hear(2, requests=20, errors=20)
        assert bench.accept() == "S1"

    def test_the_rule_that_fires_stays_the_evidence_until_the_next(self) -> None:
        bench = Bench()
        bench.exclude()
        firing = bench.engine.verdict("uid-a").firing
        bench.now += 30.0
        bench.accept()
        assert bench.engine.verdict("uid-a").firing == firing

    @pytest.mark.parametrize(
        ("claims", "share"),
        [((2.0, 2.0), 2_500), ((2.0, 4_000.0), 2_500), ((4.0,), 2_500), ((0.2,), 10_000)],
    )
    def test_one_claim_of_eligible_requests_is_cut_to_the_next(
        self, claims: tuple[float, ...], share: int
    ) -> None:
        bench = Bench()
        bench.exclude()
        bench.now += 25.0
        for number, rate in enumerate(claims):
            bench.hear(number, generation=1, eligible=int(rate * 20))
        bench.now += 5.0
        assert bench.accept() == "S7"
        assert bench.engine.verdict("uid-a").share_basis_points == share

    def test_one_reporter_ends_no_probation_that_others_could(self) -> None:
        bench = Bench()
        bench.exclude()
        bench.now += 30.0
        bench.accept()
        for number in range(3):
            bench.hear(number, generation=2, eligible=1)
        bench.hear(0, generation=2, eligible=1, probe_successes=1_000)
        assert bench.wanted() is None
        bench.hear(1, generation=2, eligible=1, probe_successes=1)
        assert bench.accept() == "S11"

    def test_a_reporter_whose_own_probes_fail_holds_up_no_other(self) -> None:
        bench = Bench()
        bench.exclude()
        bench.now += 30.0
        bench.accept()
        for number in range(2):
            bench.hear(number, generation=2, eligible=5)
        bench.hear(0, generation=2, eligible=5, probe_failures=1)
        assert bench.accept() == "S12"
        bench.now += 60.0
        assert bench.accept() == "S7"
        # The same one fails again, which decides nothing; it sends no more probes from here on.
        bench.hear(0, generation=4, eligible=5, probe_failures=1)
        bench.hear(1, generation=4, eligible=5, probe_successes=2)
        assert bench.accept() == "S11"

    def test_a_reporter_that_never_probes_holds_up_the_others_for_a_minute_at_most(self) -> None:
        bench = Bench()
        bench.exclude()
        bench.now += 30.0
        bench.accept()
        for number in range(2):
            bench.hear(number, generation=2, eligible=5, probe_neutrals=5 * (1 - number))
        bench.hear(1, generation=2, eligible=5, probe_successes=2)
        assert bench.wanted() is None
        bench.now += 61.0
        for number in range(2):
            bench.hear(number, generation=2, eligible=5)
        assert bench.accept() == "S11"

    def test_a_reporter_that_alone_has_requests_ends_a_probation_alone(self) -> None:
        bench = Bench()
        bench.exclude()
        bench.now += 30.0
        bench.accept()
        bench.hear(0, generation=2, eligible=1, probe_successes=2)
        assert bench.accept() == "S11"

    def test_five_probes_under_way_stop_the_drawing_until_one_ends(self) -> None:
        bench = Bench()
        bench.exclude()
        bench.now += 30.0
        bench.accept()
        for number in range(5):
            bench.hear(number, generation=2, eligible=1, pulse={"probing": True})
        assert bench.wanted() is None
        assert bench.engine.verdict("uid-a").share_basis_points == 0
        bench.now += 1.0
        bench.hear(0, generation=2, probe_neutrals=1, eligible=1)
        assert bench.wanted() is None
        assert bench.engine.verdict("uid-a").share_basis_points == 10_000

    def test_probes_that_died_with_their_proxies_stop_nothing(self) -> None:
        bench = Bench()
        bench.exclude()
        bench.now += 30.0
        bench.accept()
        for number in range(5):
            bench.hear(number, generation=2, probes=1, eligible=1, pulse={"probing": True})
        bench.wanted()
        for number in range(5):
            bench.now += 1.0
            bench.hear(number, generation=2, final=True)
        bench.wanted()
        assert bench.engine.verdict("uid-a").share_basis_points == 10_000


class TestAnEndWithoutAnAnswer:
    def failed_again(self, **others: int) -> Bench:
        """On its second probation, of which pod-0, that ended the first, says that it failed."""
        bench = Bench()
        bench.exclude()
        for seconds in (31.0, 61.0):
            bench.now += seconds
            for number in range(2):
                bench.hear(number, generation=bench.engine.verdict("uid-a").generation, eligible=20)
            assert bench.accept() == "S7"
            tag = bench.engine.verdict("uid-a").generation
            bench.hear(0, generation=tag, probes=1, probe_failures=1, requests=1, errors=1)
            if seconds == 31.0:
                assert bench.accept() == "S12"
        bench.hear(1, generation=tag, eligible=20, **others)
        return bench

    def test_the_reporter_that_ended_the_last_probation_does_not_end_this_one(self) -> None:
        assert self.failed_again(probes=4, probe_neutrals=4).wanted() is None

    def test_unless_the_probes_of_the_others_decide_nothing(self) -> None:
        bench = self.failed_again(probes=5, probe_neutrals=5)
        assert bench.accept() == "S12"
        assert bench.engine.verdict("uid-a").ended_by == "pod-0"

    def test_and_not_where_one_of_them_succeeds(self) -> None:
        bench = self.failed_again(probes=6, probe_neutrals=4, probe_successes=2, requests=2)
        assert bench.accept() == "S11"


class TestStarting:
    def status(
        self, state: BackendState, *, reporters: int = 3, **exclusion: Any
    ) -> LLMBackendStatus:
        usual = {"start_time": format_time(NOW - 50), "count": 2, "rule": "ErrorRate",
                 "errors": 30, "requests": 40, "reason": "too many"}  # fmt: skip
        return LLMBackendStatus(
            state=state,
            verdict_generation=8,
            exclusion=Exclusion(**{**usual, **exclusion}),
            quality=Quality(observed_time=format_time(NOW), reporters=reporters),
        )

    def restored(self, state: BackendState, **given: Any) -> Bench:
        bench = Bench(started=NOW)
        bench.engine.restore("uid-a", self.status(state, **given), bench.now)
        return bench

    def test_a_verdict_is_taken_over_from_its_status(self) -> None:
        until = format_time(NOW + 20)
        verdict = self.restored(BackendState.EXCLUDED, until_time=until).engine.verdict("uid-a")
        assert (verdict.state, verdict.generation, verdict.count) == (S.EXCLUDED, 8, 2)
        assert verdict.until == NOW + 20
        assert verdict.firing is not None
        assert (verdict.firing.errors, verdict.firing.requests) == (30, 40)

    def test_an_empty_status_is_a_clean_record(self) -> None:
        verdict = verdicts_from_status(LLMBackendStatus(), NOW).backend
        assert (verdict.state, verdict.generation, verdict.count) == (S.ACTIVE, 0, 0)

    def test_probation_goes_on_with_its_share_and_the_replayed_probes(self) -> None:
        bench = self.restored(
            BackendState.PROBATION, until_time=format_time(NOW - 5), probation_share="12.5%"
        )
        bench.hear(0, generation=8, requests=1, probe_successes=1, eligible=100)
        assert bench.wanted() is None
        verdict = bench.engine.verdict("uid-a")
        assert (verdict.state, verdict.successes) == (S.PROBATION, 1)

    def test_it_excludes_nothing_on_the_word_of_one_before_the_others_were_heard(self) -> None:
        bench = self.restored(BackendState.ACTIVE, recovered_time=format_time(NOW - 30))
        bench.hear(0, generation=8, full=True, requests=50, errors=50)
        assert bench.wanted() is None
        bench.now += 61.0
        bench.hear(0, generation=8, full=True, requests=51, errors=51)
        assert bench.accept() == "S1"

    def test_it_excludes_once_a_quorum_says_so(self) -> None:
        bench = self.restored(BackendState.ACTIVE, recovered_time=format_time(NOW - 30))
        for number in range(2):
            bench.hear(number, generation=8, requests=50, errors=50)
        assert bench.accept() == "S1"

    def test_it_waits_for_replays_before_it_ends_an_exclusion_that_ran_out(self) -> None:
        ended = format_time(NOW - 100)
        bench = self.restored(BackendState.EXCLUDED, reporters=2, until_time=ended)
        bench.hear(0, generation=8, requests=1)
        assert bench.wanted() is None
        bench.hear(0, generation=8, requests=9, full=True)
        bench.hear(1, generation=8, requests=9, full=True)
        assert bench.accept() == "S8"

    def test_one_reporter_does_not_end_an_exclusion_that_ran_out_where_others_could(self) -> None:
        bench = self.restored(BackendState.EXCLUDED, reporters=2, until_time=format_time(NOW - 100))
        bench.hear(0, generation=8, requests=1_000, full=True)
        bench.hear(1, generation=8, eligible=5, full=True)
        assert bench.accept() == "S7"

    def test_the_first_reporter_to_come_back_does_not_end_it_before_the_others_are_heard(
        self,
    ) -> None:
        bench = self.restored(BackendState.EXCLUDED, until_time=format_time(NOW - 100))
        bench.hear(0, generation=8, requests=1_000, full=True)
        assert bench.wanted() is None
        bench.hear(1, generation=8, requests=2, full=True)
        assert bench.accept() == "S8"

    def test_the_only_reporter_there_is_ends_an_exclusion_that_ran_out(self) -> None:
        bench = self.restored(BackendState.EXCLUDED, reporters=1, until_time=format_time(NOW - 100))
        bench.hear(0, generation=8, requests=2, full=True)
        bench.now += 61.0
        assert bench.accept() == "S8"

    def test_a_probation_that_begins_long_after_until_waits_for_others_all_the_same(self) -> None:
        bench = self.restored(BackendState.EXCLUDED, reporters=2, until_time=format_time(NOW - 100))
        for number in range(2):
            bench.hear(number, generation=8, eligible=20, full=True)
        assert bench.accept() == "S7"
        bench.hear(0, generation=9, requests=9, probes=9, probe_successes=9, eligible=20)
        assert bench.wanted() is None
        bench.hear(1, generation=9, requests=1, probes=1, probe_successes=1, eligible=20)
        assert bench.accept() == "S11"

    def test_a_probation_taken_over_waits_for_others_from_the_start_on(self) -> None:
        bench = self.restored(
            BackendState.PROBATION, until_time=format_time(NOW - 500), probation_share="100%"
        )
        bench.hear(1, generation=8, eligible=20)
        bench.hear(0, generation=8, requests=9, probes=9, probe_successes=9, eligible=20)
        assert bench.wanted() is None

    @pytest.mark.parametrize("known", [True, False])
    def test_it_says_that_it_collects_until_those_that_used_the_backend_were_heard(
        self, known: bool
    ) -> None:
        bench = self.restored(BackendState.ACTIVE, reporters=2) if known else Bench(started=NOW)
        collecting = (
            "The operator has just started or come back and collects what the proxies know; "
            "no rule fires so far"
        )
        assert bench.condition() == ("True", "WithinThresholds", collecting)
        tag = 8 if known else 0
        if known:
            bench.hear(0, generation=tag, requests=9, full=True)
            assert bench.condition()[2] == collecting
        bench.hear(1, generation=tag, requests=9, full=True)
        assert bench.condition() == ("True", "WithinThresholds", "No rule fires")

    def test_an_exclusion_that_ran_out_becomes_probation_when_nobody_comes(self) -> None:
        ended = format_time(NOW - 100)
        bench = self.restored(BackendState.EXCLUDED, until_time=ended)
        bench.now += 59.0
        assert bench.wanted() is None
        bench.now += 2.0
        assert bench.accept() == "S7"

    def test_it_caps_an_exclusion_under_a_policy_that_was_edited_meanwhile(self) -> None:
        bench = self.restored(BackendState.EXCLUDED, until_time=format_time(NOW + 900))
        assert bench.wanted() is None
        assert bench.engine.verdict("uid-a").until == NOW + 300.0

    def test_a_policy_edited_meanwhile_may_release(self) -> None:
        tolerant = replace(DEFAULT_POLICY, threshold_basis_points=9_000)
        bench = Bench(started=NOW, policy=tolerant)
        status = self.status(BackendState.EXCLUDED, until_time=format_time(NOW + 20))
        bench.engine.restore("uid-a", status, bench.now)
        assert bench.accept() == "S16"


class TestSuspects:
    @pytest.mark.parametrize(
        ("counts", "pulse", "suspect"),
        [
            ({"requests": 12, "errors": 3}, None, True),
            ({"requests": 13, "errors": 3}, None, False),
            ({"requests": 2, "errors": 2}, None, False),
            ({"requests": 100, "errors": 1}, {"row": 3}, True),
            ({"requests": 100, "errors": 1}, {"row": 2}, False),
        ],
    )
    def test_the_answer_names_them(
        self, counts: dict[str, int], pulse: dict[str, Any] | None, suspect: bool
    ) -> None:
        assert Bench().hear(0, pulse=pulse, **counts) == (("uid-a",) if suspect else ())


class TestSaying:
    def test_all_is_well(self) -> None:
        bench = Bench()
        bench.hear(0, requests=5)
        assert bench.condition() == ("True", "WithinThresholds", "No rule fires")

    def test_it_fails_for_some(self) -> None:
        bench = Bench()
        bench.hear(0, requests=50, errors=50)
        bench.hear(1, requests=5)
        assert bench.wanted() is None
        status, reason, message = bench.condition()
        assert (status, reason) == ("True", "FailingForSome")
        assert "pod-0" in message and "50 of 55" in message

    def test_it_would_be_excluded(self) -> None:
        bench = Bench(policy=replace(DEFAULT_POLICY, enforce=False))
        bench.hear(0, requests=50, errors=50)
        assert bench.wanted() is None
        status, reason, message = bench.condition()
        assert (status, reason) == ("False", "WouldBeExcluded")
        assert message.startswith("Would be excluded: Error rate 100%")

    def test_an_audit_excludes_no_more_than_it_would_if_it_enforced(self) -> None:
        bench = Bench(policy=replace(DEFAULT_POLICY, enforce=False))
        bench.hear(0, requests=50, errors=50)
        bench.hear(1, requests=5)
        status, reason, message = bench.condition()
        assert (status, reason) == ("True", "FailingForSome")
        assert "as seen by pod-0" in message and "breakers protect" not in message

    def test_why_and_until_when_it_is_excluded(self) -> None:
        bench = Bench()
        bench.exclude()
        status, reason, message = bench.condition()
        assert (status, reason) == ("False", "ShortWindow")
        assert "40 of 40" in message and format_time(NOW + 30) in message

    def test_how_far_a_probation_is(self) -> None:
        bench = Bench()
        bench.exclude()
        bench.now += 30.0
        bench.accept()
        assert bench.condition()[:2] == ("False", "AwaitingProbe")
        bench.hear(0, generation=2, probe_successes=1, requests=1)
        bench.wanted()
        status, reason, message = bench.condition()
        assert (status, reason) == ("False", "Probation")
        assert "1 of 2" in message

    def test_nobody_uses_it(self) -> None:
        bench = Bench()
        assert bench.condition()[:2] == ("Unknown", "NoTraffic")

    def test_its_reporters_fell_silent(self) -> None:
        bench = Bench()
        bench.hear(0, requests=5)
        bench.now += 91.0
        assert bench.condition()[:2] == ("Unknown", "ReportsStale")

    def test_reporters_that_said_goodbye_are_not_silent(self) -> None:
        bench = Bench()
        bench.hear(0, requests=5, final=True)
        bench.now += 91.0
        assert bench.condition()[:2] == ("Unknown", "NoTraffic")

    def test_a_starting_operator_calls_nothing_unknown(self) -> None:
        assert Bench(started=NOW).condition()[0] == "True"


def test_live_samples_are_handed_out_once() -> None:
    bench = Bench()
    bench.hear(0, requests=3, ttft_count=2, ttft_ms_sum=500, ttft_bins={55: 2})
    (seen,) = [s for s in bench.engine.drain_observations() if s.model == "tiny"][:1]
    assert seen.count == 2 and seen.milliseconds == pytest.approx(240, rel=0.1)
    assert bench.engine.drain_observations() == []
    bench.hear(0, requests=3, ttft_count=2, ttft_ms_sum=500, ttft_bins={55: 2})
    assert bench.engine.drain_observations() == []


def test_a_share_is_worked_out_anew_when_its_reporter_speaks_or_time_passes() -> None:
    bench = Bench()
    bench.hear(0, requests=10)
    assert bench.engine.assess("uid-a", bench.now).reporters == 1
    bench.hear(0, requests=30, errors=20)
    assert bench.accept() == "S1"
    bench.now += 30.0
    bench.accept()
    bench.now += 3_700.0
    bench.engine.expire(bench.now)
    bench.hear(0)
    assert bench.engine.assess("uid-a", bench.now).reporters == 0
