"""Plain integers that the hot path increments and the Prometheus collector reads at scrape time.

No locks and no metric objects: everything runs on one event loop, and a scrape only reads.
"""

from __future__ import annotations

from nexus_proxy.routing.queue_counters import QueueCounters


class Counters:
    """Counts since the start of the process; `active_*` are gauges.

    `requests` is keyed by (endpoint path, status sent to the client); 499 means that the client
    left first. `exclusions` is keyed by reconciler name, `attempts` by outcome name, `costs`
    (nano-USD) by their basis, usage or estimate, `lookups` of names by result, ok or failed.
    """

    __slots__ = (
        "active_downstreams",
        "active_streams",
        "attempts",
        "bytes_received",
        "bytes_sent",
        "client_gone",
        "costs",
        "exclusions",
        "fallbacks",
        "last_resorts",
        "lookups",
        "probes",
        "queue",
        "reports_failed",
        "reports_sent",
        "requests",
        "retries",
        "retries_refused",
        "turned_away",
        "upstream_connects",
        "watch_restarts",
    )

    def __init__(self) -> None:
        self.requests: dict[tuple[str, int], int] = {}
        self.attempts: dict[str, int] = {}
        self.queue = QueueCounters()
        self.exclusions: dict[str, int] = {}
        self.costs: dict[str, int] = {}
        self.lookups: dict[str, int] = {}
        self.retries = 0
        self.retries_refused = 0
        self.fallbacks = 0
        self.probes = 0
        self.last_resorts = 0
        self.client_gone = 0
        self.turned_away = 0
        self.upstream_connects = 0
        self.active_downstreams = 0
        self.active_streams = 0
        self.bytes_received = 0
        self.bytes_sent = 0
        self.reports_sent = 0
        self.reports_failed = 0
        self.watch_restarts = 0

    def request(self, endpoint: str, status: int) -> None:
        """Count one finished request."""
        key = (endpoint, status)
        self.requests[key] = self.requests.get(key, 0) + 1

    def looked_up(self, result: str) -> None:
        """Count one lookup of a name."""
        self.lookups[result] = self.lookups.get(result, 0) + 1
