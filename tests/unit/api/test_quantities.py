"""Rates, money and times are converted exactly, both ways."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_api.quantities import (
    format_percent,
    format_time,
    format_time_micro,
    format_usd,
    parse_percent,
    parse_time,
    parse_time_microseconds,
    parse_usd,
    rate_percent,
)


def test_all_percentages_round_trip() -> None:
    for basis_points in range(10_001):
        text = format_percent(basis_points)
        assert parse_percent(text) == basis_points
        assert Decimal(text.removesuffix("%")) == Decimal(basis_points) / 100


@pytest.mark.parametrize(
    ("text", "basis_points"),
    [("0%", 0), ("50%", 5000), ("4.76%", 476), ("4.5%", 450), ("0.01%", 1), ("100%", 10_000)],
)
def test_a_percentage_in_its_shortest_form(text: str, basis_points: int) -> None:
    assert parse_percent(text) == basis_points
    assert format_percent(basis_points) == text


@pytest.mark.parametrize(
    ("text", "basis_points"), [("4.50%", 450), ("100.00%", 10_000), ("100.0%", 10_000)]
)
def test_a_percentage_may_have_zeros_at_its_end(text: str, basis_points: int) -> None:
    assert parse_percent(text) == basis_points


@pytest.mark.parametrize(
    "text",
    [
        "",
        "%",
        "50",
        "50 %",
        " 50%",
        "50%\n",
        "101%",
        "100.01%",
        "1.234%",
        "-1%",
        "+1%",
        "05%",
        ".5%",
        "5.%",
        "1e1%",
        "٣%",
        "50%%",
        "NaN%",
    ],
)
def test_what_is_no_percentage_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match=r'such as "4\.76%"'):
        parse_percent(text)


@pytest.mark.parametrize("basis_points", [-1, 10_001])
def test_a_rate_out_of_range_is_not_formatted(basis_points: int) -> None:
    with pytest.raises(ValueError, match="a rate is 0 to 10000"):
        format_percent(basis_points)


@pytest.mark.parametrize(
    ("part", "whole", "text"),
    [
        (1, 21, "4.76%"),
        (2, 3, "66.67%"),
        (1, 3, "33.33%"),
        (0, 5, "0%"),
        (5, 5, "100%"),
        (1, 20_000, "0.01%"),
        (1, 20_001, "0%"),
    ],
)
def test_a_rate_is_rounded_half_up(part: int, whole: int, text: str) -> None:
    assert rate_percent(part=part, whole=whole) == text


@pytest.mark.parametrize(
    ("text", "nano_usd"),
    [
        ("0", 0),
        ("10", 10 * 10**9),
        ("2.5", 2_500_000_000),
        ("0.000000001", 1),
        ("0.15", 15 * 10**7),
        ("999999999999.999999999", 10**21 - 1),
    ],
)
def test_an_amount_in_its_shortest_form(text: str, nano_usd: int) -> None:
    assert parse_usd(text) == nano_usd
    assert format_usd(nano_usd) == text


@given(st.integers(min_value=0, max_value=10**21 - 1))
def test_amounts_round_trip(nano_usd: int) -> None:
    text = format_usd(nano_usd)
    assert parse_usd(text) == nano_usd
    assert Decimal(text) * 10**9 == nano_usd


@pytest.mark.parametrize(
    "text", ["", "-1", "+1", "1e3", "$1", "1,5", "01", ".5", "1.", "0.0000000001", "1\n", "1" * 13]
)
def test_what_is_no_amount_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match=r'such as "2\.50"'):
        parse_usd(text)


def test_a_negative_amount_is_not_formatted() -> None:
    with pytest.raises(ValueError, match="not negative"):
        format_usd(-1)


@pytest.mark.parametrize(
    ("text", "microseconds"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("1970-01-01T00:00:01.5Z", 1_500_000),
        ("1970-01-01T01:00:00+01:00", 0),
        ("1969-12-31T23:59:59.999999Z", -1),
        ("2026-01-31T12:00:00.123456789Z", 1_769_860_800_123_456),
        ("2026-01-31t12:00:00z", 1_769_860_800_000_000),
        ("2026-01-31T06:30:00-05:30", 1_769_860_800_000_000),
    ],
)
def test_a_time_is_read_exactly(text: str, microseconds: int) -> None:
    assert parse_time_microseconds(text) == microseconds
    assert parse_time(text) == microseconds / 1_000_000


@pytest.mark.parametrize(
    "text",
    [
        "",
        "yesterday",
        "2026-01-31",
        "2026-01-31T12:00:00",
        "2026-01-31 12:00:00Z",
        "2026-13-01T00:00:00Z",
        "2026-02-30T00:00:00Z",
        "2026-01-31T25:00:00Z",
    ],
)
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_time(text)


@given(st.integers(min_value=0, max_value=253_402_300_799))
def test_whole_seconds_round_trip(seconds: int) -> None:
    assert parse_time(format_time(seconds)) == seconds


@given(st.integers(min_value=0, max_value=4_102_444_800_000_000))
def test_microseconds_round_trip(microseconds: int) -> None:
    text = format_time_micro(microseconds / 1_000_000)
    assert parse_time_microseconds(text) == microseconds
    expected = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=microseconds)
    assert datetime.fromisoformat(text) == expected


def test_seconds_are_rounded_down() -> None:
    assert format_time(1.999) == "1970-01-01T00:00:01Z"
    assert format_time(-0.5) == "1969-12-31T23:59:59Z"
