"""A mergeable sketch of durations: counts in logarithmic bins.

Promises quantiles within 5 % of the true value for durations of 1 ms and more, exact merging by
addition, and a size bounded by the range of durations (about 140 bins from 1 ms to 20 min). It
keeps no order and no sum. Where many are kept they are `packed`: two bytes for a bin of a few.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Mapping, Sequence

RELATIVE_ERROR = 0.05
_GAMMA = (1 + RELATIVE_ERROR) / (1 - RELATIVE_ERROR)
_LOG_GAMMA = math.log(_GAMMA)
MAX_BIN = math.ceil(math.log(20 * 60 * 1000) / _LOG_GAMMA)

Bins = dict[int, int]

_WIDTHS = {1: "B", 2: "H", 8: "q"}


def bin_of(milliseconds: float) -> int:
    """The bin of a duration; anything below 1 ms is bin 0, anything above 20 min the last."""
    if milliseconds <= 1.0:
        return 0
    return min(math.ceil(math.log(milliseconds) / _LOG_GAMMA), MAX_BIN)


def value_of(index: int) -> float:
    """The duration in milliseconds that stands for a bin: at most 5 % from all it holds."""
    if index <= 0:
        return 1.0
    return float(2 * _GAMMA**index / (_GAMMA + 1))


def quantile(bins: Mapping[int, int], q: float) -> float | None:
    """The `q` quantile (0 to 1) in milliseconds, None of an empty sketch."""
    return quantiles(bins, (q,))[0]


def quantiles(bins: Mapping[int, int], wanted: Sequence[float]) -> list[float | None]:
    """Some quantiles, in ascending order as they are `wanted`."""
    total = sum(bins.values())
    if total <= 0:
        return [None] * len(wanted)
    ranks = [max(1, math.ceil(q * total)) for q in wanted]
    found: list[float | None] = []
    seen = 0
    for index in sorted(bins):
        seen += bins[index]
        while seen >= ranks[len(found)]:
            found.append(value_of(index))
            if len(found) == len(ranks):
                return found
    return found + [value_of(max(bins))] * (len(ranks) - len(found))


def packed(bins: Bins) -> bytes:
    """The bins of a sketch: the width of a number, the indices, the numbers."""
    if not bins:
        return b""
    try:
        return b"".join((b"\1", bytes(bins), bytes(bins.values())))
    except ValueError:
        width = 2 if max(bins.values()) < 1 << 16 else 8
        return b"".join((bytes((width,)), bytes(bins), array(_WIDTHS[width], bins.values())))


def unpacked(data: bytes) -> Bins:
    """The bins again."""
    if not data:
        return {}
    width = data[0]
    end = 1 + (len(data) - 1) // (1 + width)
    if width == 1:
        return dict(zip(data[1:end], data[end:], strict=True))
    return dict(zip(data[1:end], array(_WIDTHS[width], data[end:]), strict=True))
