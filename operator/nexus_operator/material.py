"""What about a status is worth a write.

Promises the publishing rule: at once when a state or a condition changes; otherwise at most once
per interval and only if a figure moved noticeably; small movements, and those of single models,
after ten intervals. A clock alone never causes a write. Pure; what to do about it is the writer's.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import TypeVar

from msgspec.structs import replace

from nexus_api import Exclusion, LLMBackendStatus, ModelQuality, Quality
from nexus_api.quantities import parse_percent

_T = TypeVar("_T")
LONG = 10
RATE_BASIS_POINTS = 50
PART = 10  # one tenth
RATES = ("error_rate_1h", "success_rate_24h")
AMOUNTS = (
    "requests_1h",
    "errors_1h",
    "requests_24h",
    "errors_24h",
    "throttled_1h",
    "avg_ttft_milliseconds",
    "p50_ttft_milliseconds",
    "p95_ttft_milliseconds",
    "ttft_samples_1h",
    "reporters",
)


class Worth(enum.Enum):
    """When to write, in order of urgency."""

    AT_ONCE = "at once"
    ROUTINE = "routine"
    NOTHING = "nothing"


def worth(
    known: LLMBackendStatus, wanted: LLMBackendStatus, *, since_write: float, interval: float
) -> Worth:
    """How much a status that differs from the known one matters.

    `since_write`: seconds since the last write of this object; `interval`: seconds.
    """
    known = without_foreign_conditions(known, wanted)
    if decisive(known) != decisive(wanted):
        return Worth.AT_ONCE
    if since_write < interval:
        return Worth.NOTHING
    if moved(known.quality, wanted.quality):
        return Worth.ROUTINE
    if since_write >= LONG * interval and timeless(known) != timeless(wanted):
        return Worth.ROUTINE
    return Worth.NOTHING


def without_foreign_conditions(
    known: LLMBackendStatus, wanted: LLMBackendStatus
) -> LLMBackendStatus:
    """The known status with the conditions we write: what others add is theirs."""
    ours = {condition.type for condition in wanted.conditions}
    return replace(known, conditions=tuple(c for c in known.conditions if c.type in ours))


def decisive(status: LLMBackendStatus) -> tuple[object, ...]:
    """All that proxies, GitOps tools and `kubectl wait` act upon."""
    return (
        status.observed_generation,
        status.state,
        status.verdict_generation,
        status.quality_policy,
        _without_count(status.exclusion),
        tuple(sorted((c.type, str(c.status), c.reason) for c in status.conditions)),
        tuple((m.name, m.state, _without_count(m.exclusion)) for m in _unsettled(status)),
        frozenset(model.name for model in status.models),
    )


def moved(before: Quality | None, after: Quality | None) -> bool:
    """Whether a figure moved by half a point, or by a tenth."""
    if before is None or after is None:
        return before is not after
    return any(_rate_moved(getattr(before, name), getattr(after, name)) for name in RATES) or any(
        _amount_moved(getattr(before, name), getattr(after, name)) for name in AMOUNTS
    )


def timeless(status: LLMBackendStatus) -> LLMBackendStatus:
    """The status without the times of observation."""
    return replace(
        status,
        quality=None if status.quality is None else replace(status.quality, observed_time=None),
        model_quality=tuple(replace(m, observed_time=None) for m in status.model_quality),
    )


def _unsettled(status: LLMBackendStatus) -> list[ModelQuality]:
    """The models whose verdict a proxy must know, in an order that traffic does not change."""
    found = [m for m in status.model_quality if m.state != "Active" or m.exclusion is not None]
    return sorted(found, key=lambda model: model.name)


def _without_count(exclusion: Exclusion | None) -> Exclusion | None:
    """An exclusion whose fading memory causes no write of its own."""
    if exclusion is None:
        return None
    bare = replace(exclusion, count=None)
    return None if bare == Exclusion() else bare


def _rate_moved(before: str | None, after: str | None) -> bool:
    return _compare(
        before, after, lambda a, b: abs(parse_percent(a) - parse_percent(b)) >= RATE_BASIS_POINTS
    )


def _amount_moved(before: int | None, after: int | None) -> bool:
    return _compare(before, after, lambda a, b: a != b and abs(a - b) * PART >= a)


def _compare(before: _T | None, after: _T | None, far: Callable[[_T, _T], bool]) -> bool:
    if before is None or after is None:
        return before is not after
    return far(before, after)
