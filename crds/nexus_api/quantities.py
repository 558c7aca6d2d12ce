"""Exact conversions of the API's strings: rates, money and times.

Promises: parsing and formatting are exact in both directions; rates, money and
`parse_time_microseconds` never go through a float.
Units: rates in basis points (1/100 of a percent), money in nano-USD, times in epoch seconds.
Not here: arithmetic on these values, and reading a clock.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache

from nexus_api.wire import MONEY_PATTERN, PERCENT_PATTERN

BASIS_POINTS = 10_000
NANO = 1_000_000_000

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SECOND = timedelta(seconds=1)
_PERCENT = re.compile(PERCENT_PATTERN)
_MONEY = re.compile(MONEY_PATTERN)
_TIME = re.compile(
    r"^(\d{4}-\d{2}-\d{2})[Tt](\d{2}:\d{2}:\d{2})(?:\.(\d{1,9}))?([Zz]|[+-]\d{2}:\d{2})$"
)


def parse_percent(text: str) -> int:
    """`"4.76%"` to 476 basis points; ValueError says what to write."""
    if not _PERCENT.fullmatch(text):
        raise ValueError(f'{text!r} is no percentage: write "0%" to "100%", such as "4.76%"')
    return _fixed_point(text.removesuffix("%"), digits=2)


def format_percent(basis_points: int) -> str:
    """476 basis points to `"4.76%"`, 5000 to `"50%"`, 450 to `"4.5%"`."""
    if not 0 <= basis_points <= BASIS_POINTS:
        raise ValueError(f"{basis_points} basis points: a rate is 0 to {BASIS_POINTS}")
    return f"{_decimal(basis_points, digits=2)}%"


def rate_percent(*, part: int, whole: int) -> str:
    """The rate part/whole as a percent string, rounded half up; whole must be positive."""
    return format_percent((part * BASIS_POINTS * 2 + whole) // (whole * 2))


def parse_usd(text: str) -> int:
    """`"2.50"` to 2_500_000_000 nano-USD; ValueError says what to write."""
    if not _MONEY.fullmatch(text):
        raise ValueError(f'{text!r} is no amount: write a decimal number of USD, such as "2.50"')
    return _fixed_point(text, digits=9)


def format_usd(nano_usd: int) -> str:
    """2_500_000_000 nano-USD to `"2.5"`, without trailing zeros."""
    if nano_usd < 0:
        raise ValueError(f"{nano_usd} nano-USD: an amount is not negative")
    return _decimal(nano_usd, digits=9)


def parse_time(text: str) -> float:
    """RFC 3339 to epoch seconds; the fraction is kept to the microsecond. ValueError if none."""
    return parse_time_microseconds(text) / 1_000_000


def parse_time_microseconds(text: str) -> int:
    """RFC 3339 to whole epoch microseconds; ValueError says what to write."""
    match = _TIME.fullmatch(text)
    if match is None:
        raise ValueError(f'{text!r} is no RFC 3339 time, such as "2026-01-31T12:00:00Z"')
    date, clock, fraction, zone = match.groups()
    zone = "+00:00" if zone in "Zz" else zone
    whole = datetime.fromisoformat(f"{date}T{clock}{zone}")
    seconds = (whole - _EPOCH) // _SECOND
    return seconds * 1_000_000 + int((fraction or "0").ljust(6, "0")[:6])


def format_time(epoch_seconds: float) -> str:
    """Epoch seconds to RFC 3339 in UTC, whole seconds (rounded down)."""
    return _format_second(int(epoch_seconds // 1))


@lru_cache(maxsize=256)  # whoever looks at many things says the same moment of all
def _format_second(epoch_seconds: int) -> str:
    return datetime.fromtimestamp(epoch_seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def format_time_micro(epoch_seconds: float) -> str:
    """Epoch seconds to RFC 3339 in UTC with six fractional digits, as a MicroTime."""
    microseconds = round(epoch_seconds * 1_000_000)
    whole, rest = divmod(microseconds, 1_000_000)
    return f"{format_time(whole)[:-1]}.{rest:06d}Z"


def _fixed_point(text: str, *, digits: int) -> int:
    whole, _, fraction = text.partition(".")
    return int(whole + fraction.ljust(digits, "0"))


def _decimal(value: int, *, digits: int) -> str:
    whole, rest = divmod(value, 10**digits)
    fraction = f"{rest:0{digits}d}".rstrip("0")
    return f"{whole}.{fraction}" if fraction else str(whole)
