"""Running totals are what a rescan of every outcome would give."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nexus_quality.counts import Counts
from nexus_quality.window import Family, Window

OUTCOMES = st.lists(
    st.tuples(
        st.integers(0, 200),  # bucket
        st.integers(0, 3),  # generation
        st.integers(1, 5),  # requests
        st.booleans(),  # failed
        st.integers(0, 140),  # TTFT bin
    ),
    max_size=60,
)


def fill(window: Window, outcomes: list[tuple[int, int, int, bool, int]]) -> None:
    for bucket, generation, requests, failed, index in outcomes:
        growth = Counts(requests=requests, errors=int(failed), ttft_bins={index: 1})
        window.add(bucket, generation, growth)


def rescan(
    outcomes: list[tuple[int, int, int, bool, int]], *, since: int, until: int, generation: int
) -> Counts:
    result = Counts()
    for bucket, tag, requests, failed, index in outcomes:
        if since <= bucket <= until and tag >= generation:
            result.add(Counts(requests=requests, errors=int(failed), ttft_bins={index: 1}))
    return result


@settings(deadline=None)
@given(OUTCOMES, st.integers(0, 300), st.integers(0, 4), st.sampled_from(list(Family)))
def test_totals_equal_a_rescan(
    outcomes: list[tuple[int, int, int, bool, int]], at: int, generation: int, family: Family
) -> None:
    window, now = Window(family), at * float(family)
    fill(window, outcomes)
    window.expire(now)
    expected = rescan(outcomes, since=at - family.span + 1, until=10**9, generation=generation)
    assert window.totals(generation) == expected


@given(OUTCOMES, st.integers(0, 210), st.integers(0, 4), st.integers(1, 60))
def test_the_last_seconds_equal_a_rescan(
    outcomes: list[tuple[int, int, int, bool, int]], at: int, generation: int, buckets: int
) -> None:
    window, now = Window(Family.TEN_SECONDS), at * 10.0
    fill(window, outcomes)
    expected = rescan(outcomes, since=at - buckets + 1, until=at + 1, generation=generation)
    assert window.last(buckets * 10.0, now, generation) == expected


@given(OUTCOMES)
def test_memory_is_bounded_by_the_buckets_that_count(
    outcomes: list[tuple[int, int, int, bool, int]],
) -> None:
    window = Window(Family.TEN_SECONDS)
    fill(window, outcomes)
    window.expire(1e9)
    assert window.empty
    assert list(window.parts()) == []


@pytest.mark.parametrize(
    ("family", "span"), [(Family.TEN_SECONDS, 600), (Family.MINUTE, 3600), (Family.HOUR, 86400)]
)
def test_the_families_reach_ten_minutes_an_hour_and_a_day(family: Family, span: int) -> None:
    assert family.span * family == span
    assert family.oldest(1_000_000.0) == 1_000_000 // family - family.span + 1


def test_a_bucket_numbered_one_ahead_of_our_clock_is_among_the_last() -> None:
    window = Window(Family.TEN_SECONDS)
    window.add(11, 0, Counts(requests=1))
    assert window.last(60.0, 109.0).requests == 1


def test_history_covers_from_its_first_bucket_to_now() -> None:
    window = Window(Family.TEN_SECONDS)
    assert window.covered(500.0) == 10.0
    window.add(10, 0, Counts(requests=1))
    assert window.covered(105.0) == 10.0
    assert window.covered(150.0) == 50.0
    assert window.covered(1e6) == 600.0
