"""The rules that exclude, and the quorum they need."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_api.backend import ExclusionRule
from nexus_quality.evidence import Share
from nexus_quality.firing import Firing, would_fire
from nexus_quality.policy import DEFAULT_POLICY, Policy
from nexus_quality.rules import RULES, fire

R = ExclusionRule
NOW = 5_000.0
RATES_ONLY = replace(DEFAULT_POLICY, consecutive_failures=0)


def policy(**changes: Any) -> Policy:
    return replace(DEFAULT_POLICY, **changes)


def share(number: int = 0, **given: Any) -> Share:
    """A reporter's share; without a short window of its own, nothing happened in it."""
    length, began = given.pop("row", 0), given.pop("row_began", 0.0)
    rows = ((began, length),) if length else ()
    return Share(reporter=f"pod-{number}", rows=rows, **given)


def fired(shares: list[Share], one: Policy = RATES_ONLY) -> Firing | None:
    return fire(tuple(shares), one, NOW)


def rule_of(shares: list[Share], one: Policy = RATES_ONLY) -> tuple[ExclusionRule, bool] | None:
    firing = fired(shares, one)
    return None if firing is None else (firing.rule, firing.quorum)


@pytest.mark.parametrize(
    ("threshold", "errors", "requests", "fires"),
    [
        (5_000, 5, 10, True),
        (5_000, 4, 10, False),
        (5_000, 4, 8, False),  # below minRequests
        (5_000, 499, 1_000, False),
        (5_000, 500, 1_000, True),
        (0, 0, 1_000, False),  # "0%": one error suffices, but it takes one
        (0, 1, 1_000, True),
        (0, 1, 9, False),
        (10_000, 1_000, 1_000, False),  # "100%": off
        (476, 2, 42, True),
        (477, 2, 42, False),
    ],
)
def test_the_rate_of_the_hour(threshold: int, errors: int, requests: int, fires: bool) -> None:
    one = replace(RATES_ONLY, threshold_basis_points=threshold)
    found = rule_of([share(requests=requests, errors=errors)], one)
    assert found == ((R.ERROR_RATE, True) if fires else None)


@pytest.mark.parametrize(
    ("window", "errors", "requests", "fires"),
    [(60, 10, 20, True), (60, 9, 20, False), (60, 19, 19, False), (0, 20, 20, False)],
)
def test_the_short_window_believes_twice_as_many_requests(
    window: int, errors: int, requests: int, fires: bool
) -> None:
    one = replace(RATES_ONLY, short_window_seconds=window)
    good_hour = share(requests=1_000, errors=20, short_errors=errors, short_requests=requests)
    assert rule_of([good_hour], one) == ((R.SHORT_WINDOW, True) if fires else None)


def test_attempts_in_flight_count_as_successes_to_the_rates() -> None:
    burst = share(requests=20, errors=10, short_requests=20, short_errors=10)
    assert rule_of([burst]) == (R.SHORT_WINDOW, True)
    assert rule_of([replace(burst, in_flight=1)]) is None


class TestQuorum:
    """The rule must also hold without the m-1 reporters that speak loudest for it."""

    @pytest.mark.parametrize("reporters", [1, 2, 10])
    def test_a_backend_that_fails_for_all_is_excluded(self, reporters: int) -> None:
        shares = [share(n, requests=10, errors=6) for n in range(reporters)]
        assert rule_of(shares) == (R.ERROR_RATE, True)

    @pytest.mark.parametrize("reporters", [2, 10])
    def test_a_backend_that_fails_for_one_is_not(self, reporters: int) -> None:
        shares = [share(n, requests=5, errors=0) for n in range(reporters)]
        shares[0] = share(0, requests=500, errors=500)
        firing = fired(shares)
        assert firing is not None and not firing.quorum
        assert firing.blamed == ("pod-0",)

    def test_the_rest_must_have_three_errors(self) -> None:
        loud = share(0, requests=500, errors=500)
        assert rule_of([loud, share(1, requests=2, errors=2)]) == (R.ERROR_RATE, False)
        assert rule_of([loud, share(1, requests=3, errors=3)]) == (R.ERROR_RATE, True)

    def test_min_requests_counts_all_reporters(self) -> None:
        assert rule_of([share(0, requests=5, errors=5), share(1, requests=5, errors=5)]) == (
            R.ERROR_RATE,
            True,
        )

    @pytest.mark.parametrize(("minimum", "quorum"), [(1, True), (2, True), (3, False)])
    def test_min_reporters_says_how_many_are_left_out(self, minimum: int, quorum: bool) -> None:
        shares = [share(n, requests=20, errors=20) for n in range(2)]
        shares += [share(n, requests=20) for n in range(2, 4)]
        shares[2] = share(2, requests=4, errors=3)
        one = replace(RATES_ONLY, min_reporters=minimum, threshold_basis_points=4_000)
        assert rule_of(shares, one) == (R.ERROR_RATE, quorum)

    @given(
        st.integers(0, 10**6),
        st.integers(0, 10**6),
        st.integers(0, 10**6),
        st.integers(0, 10**6),
        st.floats(0, 1e6),
        st.integers(0, 10**6),
        st.floats(0, NOW),
        st.booleans(),
        st.integers(0, 9),
    )
    def test_one_poisoned_reporter_of_ten_excludes_nothing_whatever_it_claims(
        self,
        good: int,
        bad: int,
        short_good: int,
        short_bad: int,
        usual: float,
        row: int,
        began: float,
        tripped: bool,
        place: int,
    ) -> None:
        """The others see the few failures that any backend has."""
        shares = [
            share(
                n, requests=100, errors=n % 3, short_requests=5, short_errors=n % 2, usual=0.1,
                row=int(n == 4), row_began=NOW - 9,
            )
            for n in range(9)
        ]  # fmt: skip
        poisoned = share(
            99, requests=good + bad, errors=bad, short_requests=short_good + short_bad,
            short_errors=short_bad, usual=usual, row=row, row_began=began, open=tripped,
        )  # fmt: skip
        shares.insert(place, poisoned)
        firing = fired(shares, DEFAULT_POLICY)
        assert firing is None or not firing.quorum


class TestOpenBreakers:
    """Proxies that keep their clients away already make half of the traffic."""

    def fleet(self, *open_usual: float, closed: float) -> list[Share]:
        opened = [
            share(n, requests=50, errors=5, usual=usual, open=True)
            for n, usual in enumerate(open_usual)
        ]
        return [*opened, share(99, requests=500, errors=1, usual=closed)]

    @pytest.mark.parametrize(
        ("fleet", "found"),
        [
            (((10.0, 10.0), 5.0), (R.OPEN_BREAKERS, True)),
            (((10.0, 5.0), 5.0), (R.OPEN_BREAKERS, True)),
            (((10.0, 4.0), 5.0), (R.OPEN_BREAKERS, False)),  # without the largest: 4 of 9
            (((10.0,), 5.0), (R.OPEN_BREAKERS, False)),
            (((4.0,), 5.0), None),
        ],
    )
    def test_half_of_the_usual_attempts_also_without_the_largest(
        self, fleet: tuple[tuple[float, ...], float], found: tuple[ExclusionRule, bool] | None
    ) -> None:
        opened, closed = fleet
        assert rule_of(self.fleet(*opened, closed=closed), DEFAULT_POLICY) == found

    def test_it_is_off_with_the_row(self) -> None:
        assert rule_of(self.fleet(10.0, 10.0, closed=5.0), RATES_ONLY) is None


class TestFleetRow:
    """Failures in a row, summed over proxies too quiet to make one alone."""

    def quiet(self, *rows: tuple[int, float], others: int = 0, **given: Any) -> list[Share]:
        failing = [
            share(
                n,
                requests=5 + length,
                errors=length,
                usual=0.05,
                row=length,
                row_began=NOW - ago,
                **given,
            )
            for n, (length, ago) in enumerate(rows)
        ]
        return failing + [share(100 + n, requests=10, usual=0.05) for n in range(others)]

    def test_five_and_one_for_the_quorum(self) -> None:
        five = [(1, 2.0)] * 5
        assert rule_of(self.quiet(*five), DEFAULT_POLICY) == (R.FLEET_ROW, False)
        assert rule_of(self.quiet(*five, (1, 2.0)), DEFAULT_POLICY) == (R.FLEET_ROW, True)

    def test_a_fleet_that_tries_more_in_a_second_needs_more(self) -> None:
        rows = [(1, 0.5)] * 7
        assert rule_of(self.quiet(*rows, others=53), DEFAULT_POLICY) == (R.FLEET_ROW, True)
        assert rule_of(self.quiet(*rows, others=153), DEFAULT_POLICY) is None

    def test_half_of_the_attempts_expected_since_the_first_must_have_failed(self) -> None:
        rows = [(1, 10.0)] * 8
        assert rule_of(self.quiet(*rows, others=20), DEFAULT_POLICY) == (R.FLEET_ROW, True)
        assert rule_of(self.quiet(*rows, others=40), DEFAULT_POLICY) is None

    def test_a_failure_long_ago_does_not_stretch_the_span(self) -> None:
        rows = [(1, 10.0)] * 8
        assert rule_of(self.quiet(*rows, (1, 3_000.0), others=18), DEFAULT_POLICY) == (
            R.FLEET_ROW,
            True,
        )

    def test_attempts_in_flight_are_attempts(self) -> None:
        rows = [(1, 2.0)] * 8
        assert rule_of(self.quiet(*rows, in_flight=2), DEFAULT_POLICY) is None

    def test_a_backend_that_fails_often_anyway_needs_a_longer_row(self) -> None:
        shares = self.quiet(*[(1, 2.0)] * 8)
        usual_failures = [replace(one, requests=20, errors=8) for one in shares]
        assert rule_of(usual_failures, DEFAULT_POLICY) is None

    def test_it_is_off_with_the_row(self) -> None:
        assert rule_of(self.quiet(*[(3, 2.0)] * 8), policy(consecutive_failures=0)) is None


def test_no_rule_fires_without_an_error() -> None:
    lies = [share(n, requests=100, row=50, row_began=NOW, usual=9.0, open=True) for n in range(3)]
    assert rule_of(lies, DEFAULT_POLICY) is None
    assert fired([]) is None


def test_the_reason_names_number_threshold_window_and_counts() -> None:
    firing = fired([share(requests=42, errors=26, short_requests=20, short_errors=13)])
    assert firing is not None
    assert firing.reason == "Error rate 65% of the last 60 s (13 of 20) reaches the threshold 50%"
    hourly = fired([share(requests=42, errors=26)])
    assert hourly is not None
    assert hourly.reason == "Error rate 61.9% of the hour (26 of 42) reaches the threshold 50%"
    assert hourly.suggested_action


@pytest.mark.parametrize(
    ("rule", "errors", "requests", "changes", "fires"),
    [
        (R.ERROR_RATE, 6, 10, {}, True),
        (R.ERROR_RATE, 6, 10, {"threshold_basis_points": 6_001}, False),
        (R.ERROR_RATE, 6, 10, {"min_requests": 11}, False),
        (R.SHORT_WINDOW, 12, 20, {}, True),
        (R.SHORT_WINDOW, 12, 20, {"short_window_seconds": 0}, False),
        (R.SHORT_WINDOW, 12, 20, {"min_requests": 11}, False),
        (R.FLEET_ROW, 6, 6, {}, True),
        (R.FLEET_ROW, 6, 6, {"consecutive_failures": 7}, False),
        (R.OPEN_BREAKERS, 6, 60, {"consecutive_failures": 0}, False),
        (R.FAILED_PROBATION, 1, 1, {"threshold_basis_points": 10_000}, True),
    ],
)
def test_recorded_evidence_is_judged_again_under_another_policy(
    rule: ExclusionRule, errors: int, requests: int, changes: dict[str, Any], fires: bool
) -> None:
    assert would_fire(rule, errors=errors, requests=requests, policy=policy(**changes)) is fires


def test_each_rule_has_its_own_name() -> None:
    assert len({one.name for one in RULES}) == len(RULES)
