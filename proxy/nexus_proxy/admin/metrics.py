"""What `/metrics` shows of a proxy: plain counters, read when a scrape comes.

No metric object is touched by the hot path. Labels are bounded: endpoints, statuses, outcomes, and
backends as `namespace/name`; never a model that a client made up, never a user, nor a status that
a backend made up: what has no name counts as its class, such as `5xx`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from http import HTTPStatus
from itertools import accumulate

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from nexus_api.quantities import NANO
from nexus_proxy import metric_names as names
from nexus_proxy.counters import Counters
from nexus_proxy.routing.queue_counters import BOUNDS
from nexus_proxy.routing.reach import unverified
from nexus_proxy.routing.router import Router
from nexus_quality.subject import Standing

_PLAIN_COUNTERS = (
    (names.RETRIES, "Attempts after the first of a request", "retries"),
    (names.RETRIES_REFUSED, "Retries that the retry budget refused", "retries_refused"),
    (names.FALLBACKS, "Attempts on a fallback of the model asked for", "fallbacks"),
    (names.PROBES, "Requests sent as a probe to a backend on probation", "probes"),
    (names.LAST_RESORTS, "Attempts on an excluded or unhealthy backend", "last_resorts"),
    (names.CLIENT_GONE, "Requests whose client left before the answer", "client_gone"),
    (names.TURNED_AWAY, "Client connections over the limit, answered 503", "turned_away"),
    (names.UPSTREAM_CONNECTS, "Connections opened to backends", "upstream_connects"),
    (names.BYTES_RECEIVED, "Bytes received from clients", "bytes_received"),
    (names.BYTES_SENT, "Bytes sent to clients", "bytes_sent"),
    (
        names.WATCH_RESTARTS,
        "Watches of the API server that ended and were resumed",
        "watch_restarts",
    ),
)
_GAUGES = (
    (names.ACTIVE_DOWNSTREAMS, "Client connections open", "active_downstreams"),
    (names.ACTIVE_STREAMS, "Streams under way", "active_streams"),
)
_NAMED = frozenset({499, *(status.value for status in HTTPStatus if status >= 200)})
# Those with a name, of any version of Python, and the classes 2xx to 9xx of those without.
STATUS_LABELS = 70
_WORST_FIRST = (Standing.OUT, Standing.PROBING, Standing.SLOW_START, Standing.ADMITTED)

Extra = Callable[[], Iterable[Metric]]


class ProxyCollector(Collector):
    """Reads counters and the routing table; `extra` adds what a mode has of its own."""

    def __init__(
        self,
        counters: Counters,
        router: Router,
        extra: Extra = lambda: (),
        *,
        ready: Callable[[], bool] | None = None,
    ) -> None:
        """`ready`: whether the proxy can serve, else whether there is a table."""
        self._ready = ready or (lambda: router.ready)
        self._counters = counters
        self._router = router
        self._extra = extra

    def describe(self) -> Iterable[Metric]:
        """Nothing: the registry need not scrape at registration."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """All metrics as of now."""
        counters = self._counters
        for name, text, attribute in _PLAIN_COUNTERS:
            yield CounterMetricFamily(name, text, value=getattr(counters, attribute))
        for name, text, attribute in _GAUGES:
            yield GaugeMetricFamily(name, text, value=getattr(counters, attribute))
        yield GaugeMetricFamily(names.READY, "1 while the proxy can serve", self._ready())
        yield self._requests()
        yield _labelled(names.ATTEMPTS, "Attempts by outcome", "outcome", counters.attempts)
        yield _labelled(
            names.EXCLUSIONS, "Reasons given in rejections", "reconciler", counters.exclusions
        )
        reports = {"taken": counters.reports_sent, "undelivered": counters.reports_failed}
        yield _labelled(names.REPORTS, "Reports to the operator", "result", reports)
        yield _labelled(
            names.LOOKUPS, "Lookups of backends' names by result", "result", counters.lookups
        )
        costs = {basis: nano / NANO for basis, nano in counters.costs.items()}
        yield _labelled(names.COST, "Cost of attempts by how it is known", "basis", costs)
        yield from self._queue()
        yield from self._backends()
        yield from self._extra()

    def _requests(self) -> Metric:
        family = CounterMetricFamily(
            names.REQUESTS, "Requests by endpoint and status", labels=("endpoint", "status")
        )
        found: dict[tuple[str, str], int] = {}
        for (endpoint, status), count in self._counters.requests.items():
            key = endpoint, str(status) if status in _NAMED else f"{status // 100}xx"
            found[key] = found.get(key, 0) + count
        for labels, count in found.items():
            family.add_metric(labels, count)
        return family

    def _queue(self) -> Iterator[Metric]:
        queue = self._counters.queue
        depth = GaugeMetricFamily(
            names.QUEUE_DEPTH, "Requests that wait for a place", labels=("priority",)
        )
        depth.add_metric(("high",), queue.high)
        depth.add_metric(("normal",), queue.normal)
        yield depth
        text = "Waits that ended, or could not begin, by how"
        yield _labelled(names.QUEUE_WAITS, text, "outcome", queue.outcomes)
        bounds = (*map(str, BOUNDS), "+Inf")
        seconds = HistogramMetricFamily(names.QUEUE_WAIT_SECONDS, "Lengths of the waits that ended")
        counts = list(zip(bounds, map(float, accumulate(queue.buckets)), strict=True))
        seconds.add_metric((), counts, queue.seconds)
        yield seconds

    def _backends(self) -> Iterator[Metric]:
        label = ("agent_id",)
        in_flight = GaugeMetricFamily(names.BACKEND_IN_FLIGHT, "Requests in flight", labels=label)
        attempts = CounterMetricFamily(names.BACKEND_ATTEMPTS, "Attempts begun", labels=label)
        standing = GaugeMetricFamily(
            names.BACKEND_STANDING,
            "1 for how the worst model of a backend stands with this proxy",
            labels=("agent_id", "standing"),
        )
        insecure = GaugeMetricFamily(
            names.BACKEND_TLS_UNVERIFIED,
            "1 for a backend whose certificate is not verified (insecureSkipVerify)",
            labels=label,
        )
        for backend in self._router.table.backends.values():
            if unverified(backend.origin):
                insecure.add_metric((backend.id,), 1)
            in_flight.add_metric((backend.id,), backend.in_flight)
            attempts.add_metric((backend.id,), backend.requests)
        for backend_id, worst in self._standings().items():
            for each in Standing:
                standing.add_metric((backend_id, each.value.replace(" ", "_")), each is worst)
        yield from (in_flight, attempts, standing, insecure)

    def _standings(self) -> dict[str, Standing]:
        found: dict[str, Standing] = {}
        for members in self._router.table.candidates.values():
            for candidate in members:
                key = candidate.backend.id
                pair = (found.get(key, Standing.ADMITTED), candidate.subject.standing)
                found[key] = min(pair, key=_WORST_FIRST.index)
        return found


def _labelled(name: str, text: str, label: str, counts: Mapping[str, float]) -> Metric:
    family = CounterMetricFamily(name, text, labels=(label,))
    for value, count in counts.items():
        family.add_metric((value,), count)
    return family
