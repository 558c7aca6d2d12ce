"""What a proxy counts, and which of it has not been answered yet."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_quality.recorder import Recorder, Series
from nexus_quality.window import Family

START = 5_000.0


@pytest.fixture
def recorder() -> Recorder:
    return Recorder(START)


@pytest.fixture
def series(recorder: Recorder) -> Series:
    return recorder.of("uid-a", "tiny")


@given(st.lists(st.tuples(st.floats(0, 86_000), st.integers(0, 2), st.booleans()), max_size=50))
def test_each_outcome_is_in_one_bucket_of_each_family(
    outcomes: list[tuple[float, int, bool]],
) -> None:
    series = Recorder(START).of("uid-a", "tiny")
    for elapsed, generation, failed in sorted(outcomes):
        slot = series.slot(START + elapsed, generation)
        if failed:
            slot.failure(0, connect=False)
        else:
            slot.success(0)
    for family in Family:
        expected: dict[tuple[int, int], list[int]] = {}
        for elapsed, generation, failed in outcomes:
            counted = expected.setdefault((int(elapsed // family), generation), [0, 0])
            counted[0] += 1
            counted[1] += failed
        cells = [cell for cell in series.cells() if cell.family == family]
        assert {
            (cell.bucket, cell.generation): [cell.requests, cell.errors] for cell in cells
        } == expected
        assert len({cell.key for cell in cells}) == len(cells)


def test_only_the_minutes_keep_the_sketch(series: Series) -> None:
    series.slot(START, 0).ttft(250.4)
    by_family = {cell.family: cell for cell in series.cells()}
    assert all(c.ttft_count == 1 and c.ttft_ms_sum == 250 for c in by_family.values())
    assert [f for f, c in by_family.items() if c.ttft_bins] == [Family.MINUTE]


def test_a_slot_is_listed_as_changed_once_until_it_was_taken(
    recorder: Recorder, series: Series
) -> None:
    for _ in range(3):
        series.slot(START, 0).success(0)
    (slot,) = recorder.take_changed()
    assert recorder.take_changed() == []
    series.slot(START, 0).success(0)
    assert recorder.take_changed() == [slot]


def test_what_was_put_back_is_listed_again_and_not_twice(
    recorder: Recorder, series: Series
) -> None:
    series.slot(START, 0).success(0)
    taken = recorder.take_changed()
    series.slot(START, 0).success(0)
    recorder.put_back(taken)
    assert recorder.take_changed() == taken


def test_a_forgotten_backend_still_reports_what_it_owes(recorder: Recorder, series: Series) -> None:
    series.slot(START, 0).success(0)
    recorder.forget("uid-a")
    assert recorder.series == {}
    assert [cell.requests for slot in recorder.take_changed() for cell in slot] == [1, 1, 1]


def test_memory_is_bounded_whatever_the_traffic(recorder: Recorder, series: Series) -> None:
    for minute in range(40 * 60):
        now = START + minute * 60.0
        series.slot(now, 0).success(0)
        recorder.expire(now)
    count = dict.fromkeys(Family, 0)
    for cell in series.cells():
        count[Family(cell.family)] += 1
    assert count == {Family.TEN_SECONDS: 11, Family.MINUTE: 61, Family.HOUR: 25}


def test_the_last_seconds_are_those_of_the_buckets_begun_in_them(series: Series) -> None:
    for elapsed in range(0, 600, 10):
        series.slot(START + elapsed, 0).success(0)
    assert series.last(60.0, 599.0, Family.TEN_SECONDS).requests == 6
    assert series.last(3600.0, 599.0, Family.MINUTE).requests == 60


def test_costs_add_up(series: Series) -> None:
    series.slot(START, 0).success(30)
    series.slot(START, 0).failure(12, connect=True)
    assert [cell.cost_nano_usd for cell in series.cells()] == [42, 42, 42]
