"""What a proxy spent, by namespace and slot: complete slots never grow, nothing untold is lost."""

from __future__ import annotations

import calendar
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_api import Budget, BudgetState
from nexus_quality.budget import headroom, state_of
from nexus_quality.monitor import Monitor
from nexus_quality.report import Answer
from nexus_quality.spend import KEPT_SLOTS, Spend, Spending, month_at, month_slot, slot_time

START = 1_767_225_600.0  # 2026-01-01T00:00:00Z


@pytest.fixture
def spending() -> Spending:
    """On a clock that begins with the year."""
    return Spending(lambda now: START + now)


def of(slot: int, nano_usd: int, namespace: str = "a") -> Spend:
    return Spend(namespace=namespace, slot=int(START) // 30 + slot, nano_usd=nano_usd)


def test_costs_add_up_by_namespace_and_slot(spending: Spending) -> None:
    for namespace, cost, now in (("a", 3, 0.0), ("a", 4, 29.9), ("a", 5, 30.0), ("b", 6, 30.0)):
        spending.charge(namespace, cost, now)
    told, complete = spending.report(31.0, everything=False)
    assert told == [of(0, 7), of(1, 5), of(1, 6, "b")]
    assert complete == int(START) // 30 + 1


def test_only_what_changed_is_told_again_and_then_as_a_whole(spending: Spending) -> None:
    spending.charge("a", 3, 0.0)
    spending.charge("a", 4, 31.0)
    spending.report(32.0, everything=False)
    spending.acknowledged()
    assert spending.report(33.0, everything=False)[0] == []
    spending.charge("a", 5, 34.0)
    assert spending.report(35.0, everything=False)[0] == [of(1, 9)]
    spending.unanswered()
    assert spending.report(36.0, everything=False)[0] == [of(1, 9)]
    assert spending.report(37.0, everything=True)[0] == [of(0, 3), of(1, 9)]


def test_a_slot_called_complete_never_grows_even_if_the_clock_runs_backwards() -> None:
    offset = 0.0
    spending = Spending(lambda now: START + now + offset)
    spending.charge("a", 3, 10.0)
    _, complete = spending.report(60.0, everything=False)
    spending.acknowledged()
    offset = -55.0
    spending.charge("a", 4, 61.0)
    told, again = spending.report(62.0, everything=False)
    assert (told, again) == ([of(2, 4)], complete)


def test_what_is_settled_and_told_goes_and_what_is_untold_stays(spending: Spending) -> None:
    spending.charge("a", 3, 0.0)
    spending.report(1.0, everything=False)
    spending.acknowledged()
    spending.charge("a", 4, 31.0)
    spending.settle("a", int(START) // 30 + 5)
    assert spending.report(40.0, everything=True)[0] == [of(1, 4)]


def test_a_day_is_kept_and_no_more(spending: Spending) -> None:
    for slot in range(KEPT_SLOTS * 2):
        spending.charge("a", 1, slot * 30.0)
    told, _ = spending.report(KEPT_SLOTS * 60.0, everything=False)
    assert len(told) == KEPT_SLOTS
    assert spending.since("a", 0, "2026-01") == KEPT_SLOTS * 2


def test_the_alarm_rings_once(spending: Spending) -> None:
    rings: list[int] = []
    spending.alarmed = lambda: rings.append(spending.total)
    spending.alarm_at = 10
    for _ in range(5):
        spending.charge("a", 4, 1.0)
    assert rings == [12]


def test_months_begin_where_the_calendar_says() -> None:
    for year in range(1970, 2101):
        for month in range(1, 13):
            begin = calendar.timegm((year, month, 1, 0, 0, 0))
            name = f"{year}-{month:02}"
            assert slot_time(month_slot(name)) == begin
            assert month_at(begin) == name and month_at(begin - 1) < name


def test_the_month_of_a_cost_is_the_one_it_fell_in(spending: Spending) -> None:
    spending.charge("a", 3, -0.1)
    spending.charge("a", 4, 0.1)
    assert spending.since("a", 0, "2025-12") == 3
    assert spending.since("a", 0, "2026-01") == 4


def test_a_report_carries_the_spend_until_it_is_answered(manual: Monitor) -> None:
    manual.spending.charge("a", 3, 5.0)
    report = manual.report(6.0, full=False)
    assert report is not None and report.spend == [Spend(namespace="a", slot=0, nano_usd=3)]
    manual.unanswered(6.0)
    report = manual.report(7.0, full=False)
    assert report is not None and len(report.spend) == 1 and report.spend_slot == 0
    manual.acknowledged(report, Answer(epoch="one"), 7.0)
    assert manual.report(8.0, full=False) is None
    full = manual.report(9.0, full=True)
    assert full is not None and full.spend == []  # the operator has it
    manual.acknowledged(full, Answer(epoch="two"), 9.0)
    replay = manual.report(10.0, full=True)
    assert replay is not None and replay.replay and len(replay.spend) == 1


@pytest.fixture
def manual() -> Monitor:
    """A monitor whose clock is UTC."""
    nothing: Callable[..., None] = lambda *_: None  # noqa: E731
    return Monitor(
        incarnation="ab" * 16,
        started=0.0,
        random=lambda: 0.5,
        on_change=nothing,
        on_urgent=nothing,
    )


BUDGET = Budget(monthly_limit_usd="0.000001", soft_limit="33.33%")  # 1000 nano-USD


@given(spent=st.integers(0, 2000))
def test_the_headroom_is_exactly_what_is_left_before_the_next_state(spent: int) -> None:
    state, left = state_of(BUDGET, spent), headroom(BUDGET, spent)
    assert (left is None) is (state is BudgetState.HARD_LIMIT)
    if left is not None:
        assert left > 0
        assert state_of(BUDGET, spent + left - 1) is state
        assert state_of(BUDGET, spent + left) is not state


def test_the_limits_are_reached_and_not_only_passed() -> None:
    states = [state_of(BUDGET, spent) for spent in (333, 334, 999, 1000)]
    assert states == ["Normal", "SoftLimit", "SoftLimit", "HardLimit"]
