"""A key that is refused, as the proxy that sends it sees it."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from nexus_api.backend import BackendState, SubjectState
from nexus_quality.attempt import Attempt
from nexus_quality.keys import REFUSALS, UNTRIED, KeyFacts, KeyWatch
from nexus_quality.monitor import Monitor
from nexus_quality.outcome import Outcome
from nexus_quality.policy import DEFAULT_POLICY
from nexus_quality.report import Pulse
from nexus_quality.shared import SharedVerdict
from nexus_quality.subject import Standing
from nexus_quality.words import Words

FACTS = KeyFacts(secret="s", key="k", content=1)
REFUSED, SUCCESS = Outcome.CREDENTIALS_REFUSED, Outcome.SUCCESS


@dataclass
class Bench:
    """A monitor with one backend of two models."""

    now: float = 100.0
    changes: int = 0
    urgent: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.monitor = Monitor(
            incarnation="ab" * 16,
            started=0.0,
            random=lambda: 0.5,
            on_change=self._changed,
            on_urgent=self.urgent.append,
        )
        self.configure()
        self.subject = self.monitor.subject("uid", "m")
        self.other = self.monitor.subject("uid", "other")
        self.monitor.key("uid", FACTS)

    def _changed(self) -> None:
        self.changes += 1

    def configure(self, *, fingerprint: str = "a", **shared: object) -> None:
        verdict = SharedVerdict(generation=1, **shared)  # type: ignore[arg-type]
        self.monitor.configure(
            "uid", policy=DEFAULT_POLICY, shared=verdict, fingerprint=fingerprint, now=self.now
        )

    def begin(self) -> Attempt:
        self.now += 1
        return self.subject.begin(self.now)

    def end(self, *outcomes: Outcome) -> None:
        for outcome in outcomes:
            attempt = self.begin()
            self.now += 0.1
            attempt.end(outcome, self.now)

    def pulse(self) -> Pulse | None:
        report = self.monitor.report(self.now, full=True)
        assert report is not None
        return next((pulse for pulse in report.pulses if not pulse.model), None)


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_the_third_refusal_in_a_row_takes_all_models_out_at_once_and_is_pushed(
    bench: Bench,
) -> None:
    bench.end(REFUSED, REFUSED)
    assert bench.subject.rejected() is None
    bench.pulse()
    changes = bench.changes
    bench.urgent.clear()
    bench.end(REFUSED)
    assert (
        bench.subject.rejected()
        == bench.other.rejected()
        == (
            "The backend answers 401 or 403 to the key in Secret s, key k: 3 refusals in a row, "
            "3 suffice",
            "put a valid key into Secret s, or change spec.auth",
        )
    )
    assert bench.changes == changes + 1
    assert bench.urgent == [0.0]
    pulse = bench.pulse()
    assert pulse is not None and (pulse.refused, pulse.key) == (3, "CredentialsRejected")


def test_a_refusal_is_no_failure_and_no_request(bench: Bench) -> None:
    bench.end(*[REFUSED] * 8)
    assert bench.subject.standing is Standing.ADMITTED
    assert bench.subject.weight(bench.now) == 1.0


def test_a_success_of_a_later_attempt_ends_the_row(bench: Bench) -> None:
    bench.end(REFUSED, REFUSED, SUCCESS, REFUSED, REFUSED)
    assert bench.subject.rejected() is None
    bench.end(REFUSED)
    assert bench.subject.rejected() is not None


@pytest.mark.parametrize("between", [Outcome.THROTTLED, Outcome.SERVER_ERROR, Outcome.CLIENT_GONE])
def test_answers_that_say_nothing_of_the_key_leave_the_row(bench: Bench, between: Outcome) -> None:
    bench.end(REFUSED, between, REFUSED, between, REFUSED)
    assert bench.subject.rejected() is not None


def test_a_success_of_an_attempt_begun_before_the_row_ends_nothing(bench: Bench) -> None:
    early = bench.begin()
    bench.end(REFUSED, REFUSED)
    early.end(SUCCESS, bench.now)
    bench.end(REFUSED)
    assert bench.subject.rejected() is not None


def test_another_key_begins_anew_and_answers_to_the_old_one_count_no_more(bench: Bench) -> None:
    late = [bench.begin() for _ in range(3)]
    bench.end(REFUSED, REFUSED, REFUSED)
    changes = bench.changes
    bench.monitor.key("uid", KeyFacts(secret="s", key="k", content=2))
    assert bench.subject.rejected() is None
    assert bench.changes == changes + 1
    for attempt in late:
        attempt.end(REFUSED, bench.now)
    assert bench.subject.rejected() is None
    pulse = bench.pulse()
    assert pulse is not None and (pulse.refused, pulse.key) == (0, UNTRIED)


def test_the_same_key_read_again_changes_nothing(bench: Bench) -> None:
    bench.end(REFUSED, REFUSED, REFUSED)
    bench.monitor.key("uid", FACTS)
    assert bench.subject.rejected() is not None


def test_another_spec_begins_anew(bench: Bench) -> None:
    bench.end(REFUSED, REFUSED, REFUSED)
    bench.configure(fingerprint="b")
    assert bench.subject.rejected() is None


def test_the_fleets_word_takes_it_out_as_well_and_its_end_begins_anew(bench: Bench) -> None:
    said = Words("refused", "mend it")
    bench.configure(rejected=said)
    assert bench.subject.rejected() == said
    bench.end(REFUSED, REFUSED, REFUSED)
    bench.configure()
    assert bench.subject.rejected() is None


def test_a_key_is_untried_until_it_is_used_and_while_the_fleet_forbids_it(bench: Bench) -> None:
    pulse = bench.pulse()
    assert pulse is not None and pulse.key == UNTRIED
    bench.end(SUCCESS)
    assert bench.pulse() is None
    bench.configure(rejected=Words("refused", "mend it"))
    pulse = bench.pulse()
    assert pulse is not None and pulse.key == UNTRIED


def test_what_is_missing_is_told_and_that_it_is_there_again(bench: Bench) -> None:
    bench.monitor.key("uid", KeyFacts(missing="SecretNotFound", ca=True))
    pulse = bench.pulse()
    assert pulse is not None and (pulse.key, pulse.ca) == ("SecretNotFound", True)
    bench.monitor.key("uid", KeyFacts())
    pulse = bench.pulse()
    assert pulse is not None and (pulse.key, pulse.ca) == (UNTRIED, False)


def test_a_change_is_told_within_a_tick_and_the_end_of_the_last_claim_is_told_too(
    bench: Bench,
) -> None:
    bench.end(SUCCESS)
    bench.monitor.tick(bench.now)
    bench.end(REFUSED, REFUSED, REFUSED)
    assert bench.monitor.report(bench.now, full=False) is not None
    bench.monitor.key("uid", KeyFacts())
    bench.urgent.clear()
    bench.monitor.tick(bench.now)
    assert bench.urgent == [0.0]
    report = bench.monitor.report(bench.now, full=False)
    assert report is not None and not report.pulses
    assert bench.monitor.report(bench.now, full=False) is None


def test_leaving_unhealthy_is_a_slow_start_and_leaving_a_suspension_is_none(bench: Bench) -> None:
    bench.configure(overlay=BackendState.UNHEALTHY)
    bench.configure()
    assert bench.subject.standing is Standing.SLOW_START
    assert bench.subject.admission(bench.now + 15.0) == pytest.approx(0.5)
    rested = Bench()
    rested.configure(overlay=BackendState.SUSPENDED)
    rested.configure()
    assert rested.subject.standing is Standing.ADMITTED


def test_a_verdict_under_an_overlay_of_the_key_is_not_followed(bench: Bench) -> None:
    bench.configure(rejected=Words("refused", "mend it"), state=SubjectState.ACTIVE)
    assert bench.subject.standing is Standing.ADMITTED  # the pipeline leaves it out, no breaker


def test_refusals_are_counted_to_the_threshold_and_beyond() -> None:
    key = KeyWatch()
    for number in range(1, REFUSALS + 2):
        key.refuse(key.serial, float(number))
        assert (key.refused, key.rejected) == (number, number >= REFUSALS)
