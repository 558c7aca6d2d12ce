"""The body of `/v1/stats`: the seed's shape, with `namespace/name` as id. What has no data is left
out.

Requests, latency and pending are this proxy's own; the quality figures are the fleet's, as last
published.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nexus_api import Quality
from nexus_api.quantities import BASIS_POINTS, parse_percent
from nexus_proxy.counters import Counters
from nexus_proxy.routing.candidate import Backend
from nexus_proxy.routing.table import Table

QualityOf = Callable[[str], Quality | None]


def stats(
    table: Table,
    counters: Counters,
    quality_of: QualityOf,
    *,
    uptime_seconds: float,
    budget: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """The statistics of this proxy; `quality_of` gives the published figures by backend UID."""
    total = sum(counters.requests.values())
    success = sum(n for (_, status), n in counters.requests.items() if status < 400)
    backends = sorted(table.backends.values(), key=lambda backend: backend.id)
    return {
        "uptime_seconds": int(uptime_seconds),
        "requests": {"total": total, "success": success, "errors": total - success},
        "backends": [_backend(backend, quality_of(backend.uid)) for backend in backends],
        **({"budget": budget} if budget is not None else {}),
    }


def _backend(backend: Backend, quality: Quality | None) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "id": backend.id,
        "name": backend.name,
        "requests": backend.requests,
    }
    if backend.latency_ms:
        entry["average_latency_ms"] = round(backend.latency_ms, 1)
    if backend.requests:
        entry["pending"] = backend.in_flight
    if quality is not None:
        entry |= _quality(quality)
    return entry


def _quality(quality: Quality) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if quality.error_rate_1h is not None:
        found["error_rate_1h"] = fraction(quality.error_rate_1h)
    if quality.avg_ttft_milliseconds is not None:
        found["avg_ttft_ms"] = quality.avg_ttft_milliseconds
    if quality.success_rate_24h is not None:
        found["success_rate_24h"] = fraction(quality.success_rate_24h)
    return found


def fraction(percent: str) -> float:
    """`"4.76%"` as 0.0476."""
    return parse_percent(percent) / BASIS_POINTS
