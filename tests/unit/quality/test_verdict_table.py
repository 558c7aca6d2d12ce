"""Every row of the shared verdict's table, that there are no others, and what no order of facts
may break.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from nexus_api.backend import ExclusionRule, SubjectState
from nexus_quality.firing import Firing
from nexus_quality.policy import DEFAULT_POLICY
from nexus_quality.probing import probation_share
from nexus_quality.verdict import Facts, Probes, Verdict
from nexus_quality.verdict_table import TRANSITIONS, step

S = SubjectState
NOW = 10_000.0
FIRING = Firing(
    rule=ExclusionRule.ERROR_RATE,
    errors=8,
    requests=12,
    reason="too many errors",
    suggested_action="look",
)
AUDIT = replace(DEFAULT_POLICY, enforce=False)
NO_RECOVERY = replace(DEFAULT_POLICY, recovery_enabled=False)
TOLERANT = replace(DEFAULT_POLICY, threshold_basis_points=9_000)
SHORT = replace(DEFAULT_POLICY, base_exclusion_seconds=5, max_exclusion_seconds=10)


def active(**given: Any) -> Verdict:
    return Verdict(**{"generation": 4, "calm_since": NOW - 10, **given})


def excluded(**given: Any) -> Verdict:
    usual = {
        "state": S.EXCLUDED,
        "generation": 5,
        "count": 1,
        "started": NOW - 10,
        "until": NOW + 20,
        "firing": FIRING,
    }
    return Verdict(**{**usual, **given})


def probation(**given: Any) -> Verdict:
    return excluded(
        **{
            "state": S.PROBATION,
            "generation": 6,
            "until": NOW - 5,
            "share_basis_points": 10_000,
            **given,
        }
    )


def facts(**given: Any) -> Facts:
    return Facts(**{"now": NOW, "policy": DEFAULT_POLICY, "next_generation": 99, **given})


@dataclass(frozen=True)
class Case:
    """A row driven: a verdict, the facts, and what the verdict is after it."""

    row: str
    before: Verdict
    facts: Facts
    state: SubjectState
    then: dict[str, Any]


def case(row: str, before: Verdict, facts: Facts, state: SubjectState, **then: Any) -> Case:
    return Case(row, before, facts, state, then)


FAILED = Probes(failures=1, failed_by=("pod-1",))
CASES = (
    case("S1", active(), facts(firing=FIRING), S.EXCLUDED, count=1, until=NOW + 30, started=NOW,
         firing=FIRING, generation=99),
    case("S1", active(count=2), facts(firing=FIRING, random=lambda: 1.0), S.EXCLUDED, count=3,
         until=NOW + 108),
    case("S1", active(count=9), facts(firing=FIRING), S.EXCLUDED, count=10, until=NOW + 300),
    case("S1", active(), facts(firing=FIRING, policy=NO_RECOVERY), S.EXCLUDED, until=None),
    case("S4", active(count=2, calm_since=NOW - 301, recovered=NOW - 301), facts(), S.ACTIVE,
         count=1, calm_since=NOW - 1, generation=4),
    case("S4", active(count=1, calm_since=NOW - 301, firing=FIRING), facts(), S.ACTIVE, count=0,
         firing=None, generation=4),
    case("S7", excluded(until=NOW), facts(eligible_rate=20.0), S.PROBATION, generation=99,
         share_basis_points=500, successes=0, count=1, until=NOW),
    case("S8", excluded(until=NOW - 200), facts(late=True, recent_successes=2), S.ACTIVE,
         recovered=NOW, count=1, generation=99),
    case("S9", excluded(until=None), facts(policy=NO_RECOVERY), S.ACTIVE, recovered=None),
    case("S10", probation(), facts(probes=Probes(successes=1)), S.PROBATION, successes=1,
         generation=6),
    case("S11", probation(successes=1), facts(probes=Probes(successes=2)), S.ACTIVE,
         recovered=NOW, count=1, generation=99, calm_since=NOW),
    case("S12", probation(successes=1), facts(probes=FAILED), S.EXCLUDED, count=2,
         until=NOW + 60, ended_by="pod-1", generation=99),
    case("S12", probation(ended_by="pod-1"),
         facts(probes=FAILED, eligible_reporters=("pod-1",)), S.EXCLUDED, count=2),
    case("S12", probation(ended_by="pod-1"),
         facts(probes=replace(FAILED, undecided=5), eligible_reporters=("pod-1", "pod-2")),
         S.EXCLUDED, count=2, ended_by="pod-1"),
    case("S14", probation(eligible_rate=4.0, share_basis_points=2_500), facts(eligible_rate=8.0),
         S.PROBATION, share_basis_points=1_250, generation=6),
    case("S14", probation(), facts(probes=Probes(unanswered=5)), S.PROBATION,
         share_basis_points=0),
    case("S14", probation(share_basis_points=0), facts(probes=Probes(unanswered=4)), S.PROBATION,
         share_basis_points=10_000),
    *(case("S15", before, facts(respecified=True, firing=FIRING), S.ACTIVE, count=0, until=None,
           recovered=None, firing=None, generation=99)
      for before in (active(count=3), excluded(), probation())),
    *(case("S16", before, facts(policy=TOLERANT, policy_edited=True), S.ACTIVE, recovered=NOW,
           count=1, generation=99)
      for before in (excluded(), probation())),
    *(case("S17", before, facts(model="tiny", thawed=True), S.ACTIVE, recovered=None, until=None,
           count=1, generation=99)
      for before in (excluded(), probation())),
    case("S16", excluded(), facts(policy=AUDIT), S.ACTIVE, recovered=NOW),
    case("S16", excluded(until=NOW + 200), facts(policy=SHORT, policy_edited=True), S.EXCLUDED,
         until=NOW + 10, generation=5),
    case("S16", excluded(), facts(policy=NO_RECOVERY, policy_edited=True), S.EXCLUDED, until=None),
)  # fmt: skip


@pytest.mark.parametrize("one", CASES, ids=lambda c: f"{c.row}-{c.before.state}")
def test_a_row_does_what_the_table_says(one: Case) -> None:
    taken = step(one.before, one.facts)
    assert taken is not None and taken.row == one.row
    assert taken.verdict.state is one.state
    assert {name: getattr(taken.verdict, name) for name in one.then} == one.then
    assert taken.moves == (taken.verdict.generation != one.before.generation)


def test_every_row_of_the_table_is_driven_and_there_are_no_others() -> None:
    driven = {(c.row, c.before.state, step(c.before, c.facts).moves) for c in CASES}  # type: ignore[union-attr]
    table = {(t.row, state, t.moves) for t in TRANSITIONS for state in t.states}
    assert driven == table


@pytest.mark.parametrize(
    ("verdict", "given"),
    [
        (active(), {}),
        (active(), {"firing": replace(FIRING, quorum=False)}),  # S2
        (active(), {"firing": FIRING, "policy": AUDIT}),  # S3
        (active(), {"firing": FIRING, "starting": True}),
        (active(), {"probes": FAILED}),
        (active(count=1, calm_since=NOW - 299), {}),
        (active(), {"policy": TOLERANT, "policy_edited": True}),
        (excluded(), {"firing": FIRING}),  # S6
        (excluded(), {"probes": Probes(successes=5)}),
        (excluded(), {"probes": FAILED}),
        (excluded(until=NOW - 200), {"late": True, "unheard": True}),
        (excluded(until=None), {"policy": NO_RECOVERY, "firing": FIRING}),
        (excluded(until=None), {"policy": NO_RECOVERY, "young": True}),
        (excluded(), {"policy_edited": True}),
        (probation(), {}),  # S13
        (probation(), {"firing": FIRING}),
        (probation(ended_by="pod-1"), {"probes": FAILED, "eligible_reporters": ("pod-1", "p")}),
        (probation(successes=1), {"probes": Probes(successes=1)}),
        (probation(eligible_rate=4.0, share_basis_points=2_500), {"eligible_rate": 7.9}),
        (probation(eligible_rate=4.0, share_basis_points=2_500), {"eligible_rate": 2.1}),
    ],
)
def test_facts_that_no_row_speaks_of_do_nothing(verdict: Verdict, given: dict[str, Any]) -> None:
    assert step(verdict, facts(**given)) is None


def test_a_failure_and_a_success_that_arrive_together_end_no_probation_well() -> None:
    taken = step(probation(), facts(probes=replace(FAILED, successes=2)))
    assert taken is not None and taken.row == "S12"


def test_an_exclusion_counts_on_what_time_has_left_of_the_count() -> None:
    verdict, long_calm = active(count=3, calm_since=NOW - 650), facts(firing=FIRING)
    rows = []
    for _ in range(2):
        taken = step(verdict, long_calm)
        assert taken is not None
        rows.append(taken.row)
        verdict = taken.verdict
    assert (rows, verdict.count) == (["S4", "S1"], 2)


@pytest.mark.parametrize(
    ("rate", "basis_points"),
    [(0.0, 10_000), (0.5, 10_000), (1.0, 10_000), (2.0, 5_000), (50.0, 200), (1e9, 1)],
)
def test_the_share_makes_about_one_probe_a_second(rate: float, basis_points: int) -> None:
    assert probation_share(rate) == basis_points


@given(st.integers(1, 60), st.floats(0, 1))
def test_an_exclusion_lasts_between_nine_tenths_of_its_length_and_the_maximum(
    count: int, random: float
) -> None:
    taken = step(active(count=count - 1), facts(firing=FIRING, random=lambda: random))
    assert taken is not None and taken.verdict.until is not None
    length = min(30 * 2 ** min(count - 1, 10), 300)
    assert 0.9 * length <= taken.verdict.until - NOW <= length


POLICIES = (DEFAULT_POLICY, TOLERANT, SHORT, AUDIT)


class VerdictLife(RuleBasedStateMachine):
    """Any facts in any order, as an operator may meet them."""

    def __init__(self) -> None:
        super().__init__()
        self.now, self.policy, self.edited = NOW, DEFAULT_POLICY, False
        self.verdict = Verdict(calm_since=NOW)
        self.probes = Probes()

    def take(self, **given: Any) -> None:
        for _ in range(6):
            before = self.verdict
            one = Facts(
                now=self.now,
                policy=self.policy,
                next_generation=before.generation + 1,
                policy_edited=self.edited,
                **given,
            )
            taken = step(before, one)
            if taken is None:
                self.edited = False
                return
            self.check(before, one, taken.row, taken.verdict)
            self.verdict = taken.verdict
            if taken.moves:
                self.probes = Probes()
                return
        raise AssertionError("it never comes to rest")

    def check(self, before: Verdict, one: Facts, row: str, after: Verdict) -> None:
        assert after.generation in (before.generation, before.generation + 1)
        if after.state is S.EXCLUDED and before.state is not S.EXCLUDED:
            assert row in ("S1", "S12") and after.count == before.count + 1
            assert after.until is not None and after.until >= one.now + 0.9
        if row == "S1":
            assert one.firing is not None and one.firing.quorum and not one.starting
            assert one.policy.enforce
        if before.state is after.state is S.EXCLUDED and after.until != before.until:
            assert row == "S16" and one.policy_edited
            assert before.until is not None and after.until is not None
            assert after.until <= before.until
        if after.count < before.count:
            assert row in ("S4", "S15")
        if before.state is S.EXCLUDED and after.state is S.ACTIVE:
            assert row in ("S8", "S15", "S16", "S17")
        if row == "S17":
            assert (after.count, after.recovered) == (before.count, None)

    @rule(seconds=st.sampled_from([0.5, 10.0, 31.0, 100.0, 301.0]), late=st.booleans())
    def time_passes(self, seconds: float, late: bool) -> None:
        self.now += seconds
        self.take(late=late, recent_successes=int(late))

    @rule(quorum=st.booleans(), starting=st.booleans(), random=st.floats(0, 1))
    def a_rule_fires(self, quorum: bool, starting: bool, random: float) -> None:
        self.take(firing=replace(FIRING, quorum=quorum), starting=starting, random=lambda: random)

    @rule(by=st.sampled_from(["pod-1", "pod-2"]), good=st.booleans())
    def a_probe_ends(self, by: str, good: bool) -> None:
        if self.verdict.state is not S.PROBATION:
            return
        probes = self.probes
        if good:
            self.probes = replace(probes, successes=probes.successes + 1)
        else:
            failed_by = (*probes.failed_by, by)
            self.probes = replace(probes, failures=probes.failures + 1, failed_by=failed_by)
        self.take(probes=self.probes, eligible_reporters=("pod-1", "pod-2"))

    @rule(rate=st.floats(0, 1000), unanswered=st.integers(0, 8))
    def the_traffic_changes(self, rate: float, unanswered: int) -> None:
        probes = replace(self.probes, unanswered=unanswered)
        self.take(eligible_rate=rate, probes=probes, eligible_reporters=("pod-1", "pod-2"))

    @rule(policy=st.sampled_from(POLICIES))
    def the_policy_is_edited(self, policy: Any) -> None:
        self.policy, self.edited = policy, True
        self.take()

    @rule()
    def its_backend_was_out_and_is_back(self) -> None:
        self.take(model="tiny", thawed=True)

    @rule()
    def the_spec_changes(self) -> None:
        self.take(respecified=True)

    def teardown(self) -> None:
        """However it stands: a backend that is well and has traffic becomes Active."""
        for _ in range(4):
            if self.verdict.state is S.EXCLUDED:
                self.now += 301.0
                self.take()
            else:
                both = Probes(successes=self.policy.probation_successes)
                self.take(probes=both, eligible_rate=1.0)
        assert self.verdict.state is S.ACTIVE


TestVerdictLife = VerdictLife.TestCase
TestVerdictLife.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)
