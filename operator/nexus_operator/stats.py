"""GET /v1/stats: the seed's JSON, from the operator's figures.

Promises the seed's field names and that figures without data are left out. Rates are numbers from 0
to 1 here, as there. It reads, and decides nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import msgspec

from nexus_api import LLMBackend
from nexus_operator.engine import FleetEngine
from nexus_operator.metrics import Reading
from nexus_operator.registry import Registry, full_name
from nexus_operator.slices import gathered
from nexus_quality.counts import Counts
from nexus_quality.figures import Figures, Tally


class Stats:
    """Reads engine and registry on demand."""

    def __init__(
        self,
        *,
        registry: Registry,
        engine: FleetEngine,
        clock: Callable[[], float],
        latency: Callable[[str], int | None],
    ) -> None:
        self._registry = registry
        self._engine = engine
        self._clock = clock
        self._latency = latency
        self._started = clock()

    async def page(self) -> bytes:
        """The whole document, as JSON."""
        now = self._clock()
        every = await gathered(self._figures(now))
        document = await gathered(self._backend(backend, figures) for backend, figures in every)
        return msgspec.json.encode(self._summary(now, every) | {"backends": document})

    def _summary(self, now: float, every: Iterable[tuple[LLMBackend, Figures]]) -> dict[str, Any]:
        day = Counts()
        for _, figures in every:
            day.add(figures.whole.day)
        return {
            "uptime_seconds": int(now - self._started),
            "requests": {
                "total": day.requests,
                "success": day.requests - day.errors,
                "errors": day.errors,
            },
        }

    def readings(self) -> Iterator[Reading]:
        """What the Prometheus gauges show."""
        for backend, figures in self._figures(self._clock()):
            state = backend.status.state
            yield Reading(
                agent_id=full_name(backend.metadata),
                state=str(state or "Unknown"),
                error_rate=error_rate(figures.whole.hour),
                success_rate_24h=success_rate(figures.whole.day),
                models_out=len(self._engine.verdicts(backend.metadata.uid).out),
            )

    def _figures(self, now: float) -> Iterator[tuple[LLMBackend, Figures]]:
        for backend in self._registry.backends:
            yield backend, self._engine.figures(backend.metadata.uid, now)

    def _backend(self, backend: LLMBackend, figures: Figures) -> dict[str, Any]:
        latency = self._latency(backend.metadata.uid)
        status = backend.status
        entry: dict[str, Any] = {
            "id": full_name(backend.metadata),
            "name": backend.metadata.name,
            "state": status.state,
            "requests": figures.whole.day.requests,
        }
        if latency is not None:
            entry["average_latency_ms"] = float(latency)
        entry |= quality(figures.whole)
        verdicts = self._engine.verdicts(backend.metadata.uid)
        known = {name for name, tally in figures.models.items() if tally.known} | verdicts.out
        models = [
            {"name": name, "state": verdicts.of(name).state}
            | quality(figures.models.get(name, Tally()))
            for name in sorted(known)
        ]
        if models:
            entry["models"] = models
        return entry


def quality(tally: Tally) -> dict[str, Any]:
    """The quality fields that have data."""
    hour, day = tally.hour, tally.day
    found: dict[str, Any] = {}
    if (rate := error_rate(hour)) is not None:
        found["error_rate_1h"] = rate
        found["request_count_1h"] = hour.requests
    if hour.ttft_count:
        found["avg_ttft_ms"] = hour.ttft_ms_sum // hour.ttft_count
    if (rate := success_rate(day)) is not None:
        found["success_rate_24h"] = rate
    return found


def error_rate(counts: Counts) -> float | None:
    """0 to 1, None without a request."""
    return counts.errors / counts.requests if counts.requests else None


def success_rate(counts: Counts) -> float | None:
    """0 to 1, None without a request."""
    return 1 - counts.errors / counts.requests if counts.requests else None
