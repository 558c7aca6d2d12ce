"""Packed counters are the counters that went in, in any order and of any size."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_quality.counts import NUMBERS, RARE, Counts, rare_pairs
from nexus_quality.rows import Rows
from nexus_quality.sketch import MAX_BIN, packed, unpacked

SIZES = (0, 1, 200, 255, 256, 65_535, 65_536, 2**31, 2**32, 10**15, 2**63, 2**70)
BINS = st.dictionaries(st.integers(0, MAX_BIN), st.sampled_from([1, 255, 256, 65_536, 10**15]))
VIEWS = st.lists(
    st.tuples(
        st.dictionaries(st.sampled_from(NUMBERS), st.sampled_from(SIZES), max_size=5),
        st.dictionaries(st.integers(0, 3), st.integers(1, 300)),
    ),
    max_size=6,
)


def counts(view: tuple[dict[str, int], dict[int, int]]) -> Counts:
    return Counts(**view[0], ttft_bins=dict(view[1]))


def row_of(rows: Rows, bucket: int) -> Counts:
    index = rows.find(bucket)
    assert index >= 0
    return rows.counts(index)


@given(BINS)
def test_bins_are_the_same_after_packing(bins: dict[int, int]) -> None:
    assert unpacked(packed(bins)) == bins


@given(VIEWS, st.randoms(use_true_random=False))
def test_growing_to_views_of_a_cell_is_a_join(
    views: list[tuple[dict[str, int], dict[int, int]]], chance: random.Random
) -> None:
    one, other = Rows(), Rows()
    one.row(7), other.row(7)
    for view in views:
        one.raise_to(0, counts(view))
    shuffled = views * 2
    chance.shuffle(shuffled)
    for view in shuffled:
        other.raise_to(0, counts(view))
    assert row_of(one, 7) == row_of(other, 7)
    plain = Counts()
    for view in views:
        plain.grow_to(counts(view))
    assert row_of(one, 7) == plain


@given(VIEWS)
def test_what_grew_adds_up_to_what_there_is(
    views: list[tuple[dict[str, int], dict[int, int]]],
) -> None:
    rows, summed, plain = Rows(), Counts(), Counts()
    rows.row(7)
    for view in views:
        grown, rare = rows.raise_to(0, counts(view))
        assert rare == rare_pairs(grown)
        assert grown == plain.grow_to(counts(view))
        summed.add(grown)
    assert rows.counts(0) == summed


@given(
    st.lists(st.tuples(st.integers(-3, 2**40), st.sampled_from(SIZES), st.sampled_from(NUMBERS)))
)
def test_rows_are_those_of_a_table_whatever_the_order_of_their_buckets(
    said: list[tuple[int, int, str]],
) -> None:
    rows, table = Rows(), dict[int, Counts]()
    for bucket, size, name in said:
        growth = Counts(**{name: size})
        rows.add(rows.row(bucket), growth, rare_pairs(growth))
        table.setdefault(bucket, Counts()).add(growth)
    assert list(rows.buckets) == sorted(table)
    for bucket, known in table.items():
        assert row_of(rows, bucket) == known
        assert rows.same(rows.find(bucket), known)
    half = len(rows) // 2
    kept = {bucket: table[bucket] for bucket in sorted(table)[half:]}
    rows.drop(half)
    assert {bucket: rows.counts(index) for index, bucket in enumerate(rows.buckets)} == kept


def test_there_is_no_row_of_a_bucket_that_was_not_made() -> None:
    rows = Rows()
    assert rows.find(3) == -1
    rows.row(5)
    assert [rows.find(bucket) for bucket in (4, 5, 6)] == [-1, 0, -1]


@pytest.mark.parametrize("name", ["requests", RARE[0], "ttft_bins"])
def test_another_number_is_not_the_same(name: str) -> None:
    rows, known = Rows(), Counts(requests=3, errors=2, ttft_bins={4: 1})
    rows.raise_to(rows.row(1), known)
    assert rows.same(0, known)
    other: Any = {4: 2} if name == "ttft_bins" else 9
    assert not rows.same(
        0, Counts(**{"requests": 3, "errors": 2, "ttft_bins": {4: 1}} | {name: other})
    )


@pytest.mark.parametrize(
    ("later", "backwards"),
    [
        ({"requests": 6, "errors": 1}, True),
        ({"requests": 4, "errors": 3}, True),
        ({"requests": 6, "errors": 2}, False),
        ({"requests": 4, "errors": 1}, False),
        ({"requests": 4, "throttled": 1, "errors": 2}, True),
    ],
)
def test_a_smaller_number_beside_a_greater_one_runs_backwards(
    later: dict[str, int], backwards: bool
) -> None:
    rows = Rows()
    rows.raise_to(rows.row(1), Counts(requests=5, errors=2))
    assert rows.runs_backwards(0, Counts(**later)) is backwards


def test_a_smaller_rate_alone_beside_more_requests_runs_backwards() -> None:
    rows = Rows()
    rows.raise_to(rows.row(1), Counts(requests=5, ttft_count=4))
    assert rows.runs_backwards(0, Counts(requests=6, ttft_count=3))
    assert not rows.runs_backwards(0, Counts(requests=6, ttft_count=4))


def test_the_bins_of_many_rows_are_kept_and_dropped_with_their_rows() -> None:
    rows, table = Rows(), dict[int, dict[int, int]]()
    for bucket in range(200):
        known = {bucket % 7: bucket + 1, 9: 1} if bucket % 3 else {}
        rows.raise_to(rows.row(bucket), Counts(ttft_bins=known))
        table[bucket] = known
        if bucket > 60:
            rows.drop(1)
            del table[bucket - 61]
        late = max(table) - 40
        if late in table:
            rows.add_bins(rows.find(late), {3: 2})
            table[late] = table[late] | {3: table[late].get(3, 0) + 2}
        assert {b: rows.counts(i).ttft_bins for i, b in enumerate(rows.buckets)} == table
