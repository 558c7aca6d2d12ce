"""The operator's Prometheus metrics, on a registry of its own.

Counters count what this process did; gauges are read from the current figures at scrape time; the
TTFT histogram is fed with live observations alone, never with what a proxy replays.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from nexus_operator import metric_names as names


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What is exported about one backend; a rate is None without data."""

    agent_id: str
    state: str
    error_rate: float | None
    success_rate_24h: float | None


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
    """Reads the current figures whenever somebody scrapes."""

    def __init__(self, read: Callable[[], Iterable[Reading]], ttft: TtftHistogram) -> None:
        self._read = read
        self._ttft = ttft

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
        readings = list(self._read())
        for reading in readings:
            state.add_metric([reading.agent_id, reading.state], 1.0)
            if reading.error_rate is not None:
                errors.add_metric([reading.agent_id], reading.error_rate)
            if reading.success_rate_24h is not None:
                success.add_metric([reading.agent_id], reading.success_rate_24h)
        yield from (errors, success, state, self._ttft.family())
        yield GaugeMetricFamily(names.BACKENDS, names.HELP[names.BACKENDS], value=len(readings))


class Metrics:
    """All counters, and the page."""

    def __init__(self, read: Callable[[], Iterable[Reading]]) -> None:
        self.registry = CollectorRegistry()
        self.ttft = TtftHistogram()
        self.registry.register(Gauges(read, self.ttft))
        self.reports = self._counter(names.REPORTS, "kind")
        self.report_refusals = self._counter(names.REPORT_REFUSALS, "reason")
        self.lookups = self._counter(names.IDENTITY_LOOKUPS, "review", "result")
        self.connections_refused = self._counter(names.CONNECTIONS_REFUSED)
        self.transitions = self._counter(names.TRANSITIONS, "row", "state")
        self.status_writes = self._counter(names.STATUS_WRITES, "kind", "result")
        self.probes = self._counter(names.PROBES, "result")
        self.events = self._counter(names.EVENTS, "result")
        self.prober_suspect = Gauge(
            names.PROBER_SUSPECT, names.HELP[names.PROBER_SUSPECT], registry=self.registry
        )
        self.leader = Gauge(names.LEADER, names.HELP[names.LEADER], registry=self.registry)
        self.report_seconds = Histogram(
            names.REPORT_SECONDS, names.HELP[names.REPORT_SECONDS], registry=self.registry
        )

    def looked_up(self, review: str, result: str) -> None:
        """Counts a look at who somebody is or what they may do."""
        self.lookups.labels(review, result).inc()

    def page(self) -> bytes:
        """The text format."""
        return generate_latest(self.registry)

    def _counter(self, name: str, *labels: str) -> Counter:
        return Counter(name, names.HELP[name], labels, registry=self.registry)
