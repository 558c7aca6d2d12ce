"""The board finds the best few without looking at all, and never loses a number."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_proxy.routing.board import OFF, Board

PUTS = st.lists(st.tuples(st.integers(0, 9), st.integers(-1, 100)), max_size=60)


@given(puts=PUTS, width=st.integers(0, 20))
def test_near_is_what_a_full_look_would_find(puts: list[tuple[int, int]], width: int) -> None:
    board, scores = Board(10), {}
    for number, score in puts:
        board.put(number, score)
        scores[number] = score
    best = max((score for score in scores.values() if score >= 0), default=OFF)
    assert board.best() == best
    expected = {n for n, score in scores.items() if score >= 0 and score >= best - width}
    assert set(board.near(width)) == expected


@given(puts=PUTS, seed=st.integers(0, 1000))
def test_two_are_drawn_from_those_near_and_differ_if_they_can(
    puts: list[tuple[int, int]], seed: int
) -> None:
    board = Board(10)
    for number, score in puts:
        board.put(number, score)
    near = set(board.near(5))
    first, second = board.two(5, random.Random(seed).random)
    assert {first, second} <= (near or {OFF})
    assert first != second or len(near) <= 1


def test_each_pair_is_as_likely_as_any_other() -> None:
    board, chance = Board(4), random.Random(3).random
    for number in range(4):
        board.put(number, 50 + number % 2)
    drawn: dict[frozenset[int], int] = {}
    for _ in range(12_000):
        pair = frozenset(board.two(5, chance))
        drawn[pair] = drawn.get(pair, 0) + 1
    assert len(drawn) == 6
    assert all(count == pytest.approx(2000, rel=0.1) for count in drawn.values())
