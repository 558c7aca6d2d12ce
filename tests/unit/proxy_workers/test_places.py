"""How workers share the places of a backend."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_proxy.workers.places import beside, fair

NUMBERS = st.lists(st.integers(0, 20), min_size=1, max_size=6)


@given(st.integers(0, 40), NUMBERS, st.integers(0, 50))
def test_parts_take_what_there_is_and_no_more_than_is_wanted(
    limit: int, wanted: list[int], turn: int
) -> None:
    parts = fair(limit, wanted, turn)
    assert sum(parts) == min(limit, sum(wanted))
    assert all(0 <= part <= want for part, want in zip(parts, wanted, strict=True))
    hungry = [part for part, want in zip(parts, wanted, strict=True) if part < want]
    # Nobody who wants more has over one less than anybody else.
    assert not hungry or max(parts) <= min(hungry) + 1


def test_without_a_limit_or_a_queue_the_others_count_as_they_are() -> None:
    assert beside(None, [3, 1, 0], [5, 5, 5], 0) == [1, 3, 4]
    assert beside(4, [3, 1, 0], [0, 0, 0], 0) == [1, 3, 4]
    assert beside(9, [3, 1, 0], [1, 0, 0], 0) == [1, 3, 4]  # there is room for all


def test_a_worker_that_holds_all_places_does_not_keep_them() -> None:
    # It has four of four and two wait; the other has none and two wait: two for each.
    assert beside(4, [4, 0], [2, 2], 0) == [2, 4]
    assert beside(4, [3, 0], [2, 2], 0) == [2, 3]  # one ended: the other may take that place


def test_one_place_goes_around() -> None:
    first, then = beside(1, [0, 0], [1, 1], 0), beside(1, [0, 0], [1, 1], 1)
    assert sorted(first) == [0, 1]
    assert then == first[::-1]


@pytest.mark.parametrize("limit", [1, 3, 4, 7])
@pytest.mark.parametrize("workers", [2, 3, 5])
def test_under_pressure_the_limit_holds_and_everybody_is_served(limit: int, workers: int) -> None:
    chance = random.Random(limit * workers)
    in_flight, waiting, served = [0] * workers, [50] * workers, [0] * workers
    for second in range(400):
        for _ in range(3):
            others = beside(limit, in_flight, waiting, second)
            for worker in range(workers):
                while waiting[worker] and in_flight[worker] + others[worker] < limit:
                    in_flight[worker] += 1
                    waiting[worker] -= 1
            assert sum(in_flight) <= limit
        done = chance.choice([w for w in range(workers) if in_flight[w]])
        in_flight[done] -= 1
        served[done] += 1
        waiting[done] += 1
    assert min(served) * 2 > max(served)
