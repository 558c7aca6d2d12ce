"""An operator that could take no reports for a while, until all proxies are heard again."""

from __future__ import annotations

from typing import Any

from nexus_api.backend import SubjectState
from nexus_quality.engine import STARTING_SECONDS, BackendFacts, Engine
from nexus_quality.evidence import ALIVE_SECONDS
from nexus_quality.policy import DEFAULT_POLICY
from nexus_quality.report import Cell, Report

NOW = 1_700_000_000.0
UID = "uid-a"
FACTS = BackendFacts(uid=UID, namespace="shop", name="a", fingerprint="spec")
TEN_MINUTES = 600.0
FAMILIES = (10, 60, 3600)
HEALTHY = {"requests": 100}
FAILING = {"requests": 300, "errors": 200}
COLLECTING = "The operator has just started or come back and collects what the proxies know"


class Bench:
    """An engine that has worked for hours; each report tells its own ten seconds, and is full."""

    def __init__(self) -> None:
        self.now = NOW
        self.engine = Engine(epoch="one", started=NOW - 7_200.0, random=lambda: 0.0)
        self.engine.upsert(FACTS, DEFAULT_POLICY, self.now)

    def hear(
        self,
        number: int,
        *,
        generation: int = 0,
        final: bool = False,
        full: bool = True,
        **counts: Any,
    ) -> None:
        elapsed = self.now - NOW + 36_005.0
        cells = [
            Cell(
                family=family,
                bucket=int(elapsed // family),
                uid=UID,
                model="tiny",
                generation=generation,
                **counts,
            )
            for family in FAMILIES
            if counts
        ]
        report = Report(
            incarnation=f"{number:032x}",
            now_ms=int(elapsed * 1000),
            full=full,
            final=final,
            cells=cells,
        )
        assert self.engine.merge(f"pod-{number}", report, self.now).answer.refused == ()

    def row(self) -> str | None:
        """The row that is wanted."""
        transition = self.engine.wanted(UID, self.now)
        return None if transition is None else transition.row

    def accept(self) -> str:
        transition = self.engine.wanted(UID, self.now)
        assert transition is not None
        self.engine.accept(transition, self.now)
        return transition.row

    def exclude(self, *numbers: int) -> None:
        """Excluded by these, who fall silent with it."""
        for number in numbers:
            self.hear(number, **FAILING)
        assert self.accept() == "S1"

    def away(self, seconds: float) -> None:
        """Nothing is heard for so long, and from now on everything is."""
        since = self.now
        self.now += seconds
        self.engine.resume(since, self.now)

    def condition(self) -> tuple[str, str, str]:
        within = self.engine.assess(UID, self.now).within_policy
        return str(within.status), within.reason, within.message


def test_an_exclusion_that_ran_out_meanwhile_waits_for_what_those_known_before_have_to_say() -> (
    None
):
    bench = Bench()
    bench.exclude(0, 1)
    bench.away(TEN_MINUTES)
    assert bench.row() is None
    bench.hear(0, generation=1, **HEALTHY)
    assert bench.row() is None, "the other may have more to say"
    bench.hear(1, generation=1, **HEALTHY)
    assert bench.accept() == "S8"


def test_it_waits_for_all_that_a_reporter_has_to_say_not_for_the_first_word() -> None:
    bench = Bench()
    bench.exclude(0)
    bench.away(TEN_MINUTES)
    bench.hear(0, generation=1, full=False, requests=1)
    assert bench.row() is None
    bench.hear(0, generation=1, **HEALTHY)
    assert bench.accept() == "S8"


def test_who_does_not_come_back_is_waited_for_no_longer_than_at_a_start() -> None:
    bench = Bench()
    bench.exclude(0, 1)
    bench.away(TEN_MINUTES)
    bench.hear(0, generation=1, **HEALTHY)
    bench.now += STARTING_SECONDS - 1.0
    assert bench.row() is None
    bench.now += 2.0
    assert bench.accept() == "S8"


def test_who_said_goodbye_or_was_silent_before_is_not_waited_for() -> None:
    bench = Bench()
    bench.hear(2, **HEALTHY)
    bench.now += ALIVE_SECONDS + 1.0
    bench.exclude(0, 1)
    bench.hear(1, final=True)
    bench.away(TEN_MINUTES)
    bench.hear(0, generation=1, **HEALTHY)
    assert bench.row() is not None


def test_an_exclusion_that_ends_just_after_a_short_absence_is_followed_by_probation_at_once() -> (
    None
):
    bench = Bench()
    bench.exclude(0, 1)
    until = bench.engine.verdict(UID).until
    assert until is not None
    bench.away(until - bench.now + 5.0)
    assert bench.accept() == "S7", "no proxy follows its own evidence so soon"


def test_nothing_is_excluded_on_the_word_of_the_first_that_comes_back() -> None:
    bench = Bench()
    for number in range(3):
        bench.hear(number, **HEALTHY)
    bench.away(TEN_MINUTES)
    bench.hear(0, **FAILING)
    assert bench.row() is None
    bench.hear(1, **FAILING)
    assert bench.row() == "S1", "two of them are a quorum"


def test_an_absence_makes_no_condition_unknown_until_the_proxies_had_time_to_come_back() -> None:
    bench = Bench()
    for number in range(2):
        bench.hear(number, **HEALTHY)
    assert bench.condition() == ("True", "WithinThresholds", "No rule fires")
    bench.away(TEN_MINUTES)
    status, reason, message = bench.condition()
    assert (status, reason) == ("True", "WithinThresholds") and message.startswith(COLLECTING)
    bench.hear(0, **HEALTHY)
    assert bench.condition()[2].startswith(COLLECTING)
    bench.hear(1, **HEALTHY)
    assert bench.condition() == ("True", "WithinThresholds", "No rule fires")


def test_proxies_that_stay_away_are_called_silent_in_the_end() -> None:
    bench = Bench()
    bench.hear(0, **HEALTHY)
    bench.away(TEN_MINUTES)
    bench.now += STARTING_SECONDS + 1.0
    assert bench.condition()[:2] == ("Unknown", "ReportsStale")


def test_an_absence_changes_no_state_by_itself() -> None:
    bench = Bench()
    bench.exclude(0, 1)
    before = bench.engine.verdict(UID)
    bench.away(5.0)
    assert bench.engine.verdict(UID) == before and before.state is SubjectState.EXCLUDED
    assert bench.row() is None
