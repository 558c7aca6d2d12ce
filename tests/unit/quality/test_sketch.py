"""Quantiles within five percent, merging by addition, a bounded size."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_quality.sketch import MAX_BIN, Bins, bin_of, quantile, value_of

DURATIONS = st.floats(1.0, 20 * 60 * 1000.0)


def sketch(values: list[float]) -> Bins:
    bins: Bins = {}
    for value in values:
        bins[bin_of(value)] = bins.get(bin_of(value), 0) + 1
    return bins


@given(DURATIONS)
def test_a_bin_stands_for_all_it_holds_within_five_percent(value: float) -> None:
    assert abs(value_of(bin_of(value)) - value) <= 0.05 * value + 1e-9


@given(st.lists(DURATIONS, min_size=1, max_size=200), st.sampled_from([0.0, 0.5, 0.9, 0.95, 1.0]))
def test_quantiles_are_within_five_percent(values: list[float], q: float) -> None:
    exact = sorted(values)[max(1, math.ceil(q * len(values))) - 1]
    found = quantile(sketch(values), q)
    assert found is not None
    assert abs(found - exact) <= 0.05 * exact + 1e-9


@given(st.lists(DURATIONS, max_size=50), st.lists(DURATIONS, max_size=50))
def test_merging_is_addition(one: list[float], other: list[float]) -> None:
    merged = sketch(one)
    for index, n in sketch(other).items():
        merged[index] = merged.get(index, 0) + n
    assert merged == sketch(one + other)


@given(st.floats(0, 1e15))
def test_there_are_few_bins(value: float) -> None:
    assert 0 <= bin_of(value) <= MAX_BIN < 150


@given(DURATIONS, DURATIONS)
def test_longer_durations_never_fall_into_lower_bins(one: float, other: float) -> None:
    shorter, longer = sorted((one, other))
    assert bin_of(shorter) <= bin_of(longer)


def test_an_empty_sketch_has_no_quantile() -> None:
    assert quantile({}, 0.5) is None


@pytest.mark.parametrize("value", [0.0, 0.3, 1.0])
def test_below_a_millisecond_is_a_millisecond(value: float) -> None:
    assert quantile(sketch([value]), 0.5) == 1.0
