"""The seed's three metrics, from an engine in this process: rates as gauges, TTFT as a real
histogram.

Gauges without data are absent, never a misleading zero. The histogram counts live samples only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from prometheus_client.core import GaugeMetricFamily, HistogramMetricFamily, Metric

from nexus_proxy import metric_names as names
from nexus_proxy.admin.stats import fraction
from nexus_quality.engine import Engine

BUCKETS_MS = (50, 100, 250, 500, 1000, 2000, 3000, 5000, 10_000, 30_000, 60_000)
_INFINITE = len(BUCKETS_MS)


class AgentMetrics:
    """Collects from an engine whose clock is `now` (epoch seconds)."""

    def __init__(self, engine: Engine, now: Callable[[], float]) -> None:
        self._engine = engine
        self._now = now
        self._counts: dict[str, list[int]] = {}
        self._sums_ms: dict[str, float] = {}

    def collect(self, ids: Mapping[str, str]) -> Iterator[Metric]:
        """The metrics of these backends, UID to `namespace/name`."""
        self.drain()
        label = ("agent_id",)
        rate = GaugeMetricFamily(names.AGENT_ERROR_RATE, "Error rate of the hour", labels=label)
        success = GaugeMetricFamily(
            names.AGENT_SUCCESS_RATE_24H, "Success rate of 24 hours", labels=label
        )
        ttft = HistogramMetricFamily(names.AGENT_TTFT_SECONDS, "Time to first token", labels=label)
        for uid, agent_id in ids.items():
            quality = self._engine.figures(uid, self._now()).quality()
            if quality and quality.error_rate_1h is not None:
                rate.add_metric((agent_id,), fraction(quality.error_rate_1h))
            if quality and quality.success_rate_24h is not None:
                success.add_metric((agent_id,), fraction(quality.success_rate_24h))
            if uid in self._counts:
                ttft.add_metric((agent_id,), self._buckets(uid), self._sums_ms[uid] / 1000)
        yield from (rate, success, ttft)

    def drain(self) -> None:
        """Take the engine's new samples in; to be called now and then, so that they do not
        pile up.
        """
        for seen in self._engine.drain_observations():
            counts = self._counts.setdefault(seen.uid, [0] * (_INFINITE + 1))
            ms = seen.milliseconds
            place = next((n for n, edge in enumerate(BUCKETS_MS) if ms <= edge), _INFINITE)
            counts[place] += seen.count
            self._sums_ms[seen.uid] = self._sums_ms.get(seen.uid, 0.0) + ms * seen.count
        known = set(self._engine.backends())
        for gone in self._counts.keys() - known:
            del self._counts[gone], self._sums_ms[gone]

    def _buckets(self, uid: str) -> list[tuple[str, float]]:
        edges = [*(str(edge / 1000) for edge in BUCKETS_MS), "+Inf"]
        total, found = 0, []
        for edge, count in zip(edges, self._counts[uid], strict=True):
            total += count
            found.append((edge, float(total)))
        return found
