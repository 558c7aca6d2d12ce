"""The collector is kept from the counters, and not too often."""

from __future__ import annotations

import gc

import pytest

from nexus_operator.aside import FIRST_REPORTERS, Aside, set_aside


def test_a_fleet_is_set_aside_as_it_grows_and_never_for_coming_and_going() -> None:
    times: list[int] = []
    aside = Aside(lambda: times.append(size))
    for size in [*range(2_000), *range(2_000, 0, -1), *range(2_000)]:
        aside.grown(size)
    assert times[0] == FIRST_REPORTERS
    assert len(times) <= 20
    assert times == sorted(set(times))
    assert times[-1] * 1.25 >= 1_999


@pytest.fixture
def thawed() -> object:
    yield
    gc.unfreeze()


def test_what_is_set_aside_is_not_looked_at_again(thawed: object) -> None:
    kept: list[list[int]] = [[] for _ in range(100)]
    set_aside()
    looked_at = {id(one) for one in gc.get_objects()}
    assert not looked_at & {id(one) for one in kept}
    assert gc.get_freeze_count() >= 100
