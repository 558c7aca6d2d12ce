"""The operator's Prometheus metrics, on a registry of its own.

Counters count what this process did; gauges are read from the current figures at scrape time; the
TTFT histogram is fed with live observations alone, never with what a proxy replays. A page is read
in short pieces on the event loop and rendered beside it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from nexus_operator import metric_names as names
from nexus_operator.slices import gathered


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What is exported about one backend; a rate is None without data."""

    agent_id: str
    state: str
    error_rate: float | None
    success_rate_24h: float | None
    models_out: int = 0


class TtftHistogram:
    """Cumulative buckets per agent, fed with counts of (milliseconds, how many)."""

    def __init__(self) -> None:
        self._counts: dict[str, list[int]] = {}
        self._sums: dict[str, float] = {}

    def observe(self, agent_id: str, milliseconds: float, count: int) -> None:
        """Adds `count` observations of one duration."""
        seconds = milliseconds / 1000
        bounds = names.TTFT_BUCKETS
        place = next((i for i, bound in enumerate(bounds) if seconds <= bound), len(bounds))
        self._counts.setdefault(agent_id, [0] * (len(bounds) + 1))[place] += count
        self._sums[agent_id] = self._sums.get(agent_id, 0.0) + seconds * count

    def forget(self, agent_id: str) -> None:
        """Drops the series of a deleted backend."""
        self._counts.pop(agent_id, None)
        self._sums.pop(agent_id, None)

    def copy(self) -> TtftHistogram:
        """The state of this moment."""
        copied = TtftHistogram()
        copied._counts = {agent_id: list(counts) for agent_id, counts in self._counts.items()}
        copied._sums = dict(self._sums)
        return copied

    def family(self) -> HistogramMetricFamily:
        """All of it in Prometheus' terms."""
        name = names.AGENT_TTFT_SECONDS
        family = HistogramMetricFamily(name, names.HELP[name], labels=[names.LABEL_AGENT])
        bounds = [str(bound) for bound in names.TTFT_BUCKETS] + ["+Inf"]
        for agent_id, counts in self._counts.items():
            seen, buckets = 0, []
            for bound, count in zip(bounds, counts, strict=True):
                seen += count
                buckets.append((bound, float(seen)))
            family.add_metric([agent_id], buckets, self._sums[agent_id])
        return family


class Gauges(Collector):
    """Reads the current figures whenever somebody scrapes; `held`: read already, for one page."""

    def __init__(self, read: Callable[[], Iterable[Reading]], ttft: TtftHistogram) -> None:
        self._read = read
        self._ttft = ttft
        self.held: tuple[Sequence[Reading], TtftHistogram] | None = None

    def describe(self) -> Iterable[Metric]:
        """Nothing: registering must not read."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """The gauges of this moment."""
        label = [names.LABEL_AGENT]
        errors = GaugeMetricFamily(
            names.AGENT_ERROR_RATE, names.HELP[names.AGENT_ERROR_RATE], labels=label
        )
        success = GaugeMetricFamily(
            names.AGENT_SUCCESS_RATE_24H, names.HELP[names.AGENT_SUCCESS_RATE_24H], labels=label
        )
        state = GaugeMetricFamily(
            names.BACKEND_STATE, names.HELP[names.BACKEND_STATE], labels=[*label, "state"]
        )
        models = GaugeMetricFamily(
            names.BACKEND_MODELS_OUT, names.HELP[names.BACKEND_MODELS_OUT], labels=label
        )
        readings, ttft = self.held or (list(self._read()), self._ttft)
        for reading in readings:
            state.add_metric([reading.agent_id, reading.state], 1.0)
            models.add_metric([reading.agent_id], float(reading.models_out))
            if reading.error_rate is not None:
                errors.add_metric([reading.agent_id], reading.error_rate)
            if reading.success_rate_24h is not None:
                success.add_metric([reading.agent_id], reading.success_rate_24h)
        yield from (errors, success, state, models, ttft.family())
        yield GaugeMetricFamily(names.BACKENDS, names.HELP[names.BACKENDS], value=len(readings))


class Metrics:
    """All counters, and the page. What `before_page` holds is called on the loop before each."""

    def __init__(self, read: Callable[[], Iterable[Reading]]) -> None:
        # A second series for each counter, which nobody asks for.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        self.ttft = TtftHistogram()
        self.before_page: list[Callable[[], None]] = []
        self._read = read
        self._gauges = Gauges(read, self.ttft)
        self._one_page = asyncio.Lock()
        self.registry.register(self._gauges)
        self.reports = self._counter(names.REPORTS, "kind")
        self.report_refusals = self._counter(names.REPORT_REFUSALS, "reason")
        self.lookups = self._counter(names.IDENTITY_LOOKUPS, "review", "result")
        self.connections_refused = self._counter(names.CONNECTIONS_REFUSED)
        self.transitions = self._counter(names.TRANSITIONS, "row", "state", "rule")
        self.status_writes = self._counter(names.STATUS_WRITES, "kind", "result")
        self.probes = self._counter(names.PROBES, "result")
        self.events = self._counter(names.EVENTS, "result")
        self._add_vitals()

    def _add_vitals(self) -> None:
        self.prober_suspect = self._gauge(names.PROBER_SUSPECT)
        self.leader = self._gauge(names.LEADER)
        self.reporters = self._gauge(names.REPORTERS)
        self.pending = self._gauge(names.STATUS_WRITES_PENDING)
        self.oldest_pending = self._gauge(names.OLDEST_PENDING_WRITE)
        self.watch_age = self._gauge(names.WATCH_AGE, "kind")
        self.store_ok = self._gauge(names.STORE_OK)
        self.store_batches = self._counter(names.STORE_BATCHES, "result")
        self.store_bytes = self._gauge(names.STORE_BYTES)
        self.budget_spending = self._gauge(names.BUDGET_SPENDING, "namespace")
        self.budget_limit = self._gauge(names.BUDGET_LIMIT, "namespace")
        self.unpriced = self._gauge(names.UNPRICED_BACKENDS, "namespace")
        self.report_seconds = self._histogram(names.REPORT_SECONDS, Histogram.DEFAULT_BUCKETS)
        self.write_seconds = self._histogram(names.STATUS_WRITE_SECONDS, names.WRITE_BUCKETS)
        self.recompute_seconds = self._histogram(names.RECOMPUTE_SECONDS, names.RECOMPUTE_BUCKETS)
        self.loop_lag = self._histogram(names.LOOP_LAG, names.LAG_BUCKETS)

    def looked_up(self, review: str, result: str) -> None:
        """Counts a look at who somebody is or what they may do."""
        self.lookups.labels(review, result).inc()

    async def page(self) -> bytes:
        """The text format."""
        async with self._one_page:
            for refresh in self.before_page:
                refresh()
            self._gauges.held = (await gathered(self._read()), self.ttft.copy())
            try:
                return await asyncio.to_thread(generate_latest, self.registry)
            finally:
                self._gauges.held = None

    def _counter(self, name: str, *labels: str) -> Counter:
        return Counter(name, names.HELP[name], labels, registry=self.registry)

    def _gauge(self, name: str, *labels: str) -> Gauge:
        return Gauge(name, names.HELP[name], labels, registry=self.registry)

    def _histogram(self, name: str, buckets: Sequence[float]) -> Histogram:
        return Histogram(name, names.HELP[name], buckets=buckets, registry=self.registry)
