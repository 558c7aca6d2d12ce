"""How many time series each metric may have: so many, or so many for each backend, namespace or
worker there is.

Promises a bound for every name that operator and proxy export, made of the tables that their
labels come from. It counts series of one process, and reads nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from typing import Final

from nexus_api import ExclusionRule
from nexus_api.reasons import RECONCILERS
from nexus_operator import metric_names as operator
from nexus_operator.registry import KIND_OF
from nexus_proxy import metric_names as proxy
from nexus_proxy.admin.agents import BUCKETS_MS
from nexus_proxy.admin.metrics import STATUS_LABELS
from nexus_proxy.routing.endpoint import Endpoint
from nexus_proxy.routing.queue_counters import BOUNDS
from nexus_quality.outcome import Outcome
from nexus_quality.refusals import REASONS
from nexus_quality.subject import Standing
from nexus_quality.verdict_table import TRANSITIONS

REPORT_KINDS: Final = 4  # full, change, replay, final
REFUSED_WHOLE: Final = 10  # what `body` and `intake` refuse a report for
LOOKUPS: Final = 2 * 5  # token and access; yes, no, remembered, outage, unavailable
WRITE_RESULTS: Final = 5  # written, conflict, invalid, refused, unreachable
PROBE_REASONS: Final = 3
EVENT_RESULTS: Final = 3
QUEUE_OUTCOMES: Final = 6
_DEFAULT_BUCKETS: Final = 14
_MOVES = {row.row for row in TRANSITIONS if row.moves}


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much of everything there is: what the operator watches, or what a proxy routes to."""

    backends: int
    namespaces: int
    workers: int = 1


@dataclass(frozen=True, slots=True)
class Bound:
    """The most series of a name: the sum of its parts."""

    fixed: int = 0
    per_backend: int = 0
    per_namespace: int = 0
    per_worker: int = 0

    def most(self, size: Size) -> int:
        """The number, where there is so much."""
        return (
            self.fixed
            + self.per_backend * size.backends
            + self.per_namespace * size.namespaces
            + self.per_worker * size.workers
        )

    def __add__(self, other: Bound) -> Bound:
        return Bound(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))

    def __str__(self) -> str:
        parts = {each.name.replace("_", " "): getattr(self, each.name) for each in fields(self)}
        fixed = [str(self.fixed)] if self.fixed else []
        return " + ".join(fixed + [f"{n} {what}" for what, n in parts.items() if n and " " in what])


def _histogram(buckets: Sequence[float] | int) -> int:
    """The buckets, that of +Inf, the sum and the count."""
    return (buckets if isinstance(buckets, int) else len(buckets)) + 3


_ONE: Final = Bound(1)

OPERATOR: Final[Mapping[str, Bound]] = {
    operator.AGENT_ERROR_RATE: Bound(per_backend=1),
    operator.AGENT_SUCCESS_RATE_24H: Bound(per_backend=1),
    operator.AGENT_TTFT_SECONDS: Bound(per_backend=_histogram(operator.TTFT_BUCKETS)),
    operator.BACKEND_STATE: Bound(per_backend=1),
    operator.BACKEND_MODELS_OUT: Bound(per_backend=1),
    operator.BACKENDS: _ONE,
    operator.REPORTS: Bound(REPORT_KINDS),
    operator.REPORT_REFUSALS: Bound(REFUSED_WHOLE + len(REASONS) + 1),
    operator.REPORT_SECONDS: Bound(_histogram(_DEFAULT_BUCKETS)),
    operator.IDENTITY_LOOKUPS: Bound(LOOKUPS),
    operator.CONNECTIONS_REFUSED: _ONE,
    operator.REPORTERS: _ONE,
    operator.TRANSITIONS: Bound(len(_MOVES) * (len(ExclusionRule) + 1)),  # a row has one new state
    operator.STATUS_WRITES: Bound(len(KIND_OF) * WRITE_RESULTS),
    operator.STATUS_WRITE_SECONDS: Bound(_histogram(operator.WRITE_BUCKETS)),
    operator.STATUS_WRITES_PENDING: _ONE,
    operator.OLDEST_PENDING_WRITE: _ONE,
    operator.RECOMPUTE_SECONDS: Bound(_histogram(operator.RECOMPUTE_BUCKETS)),
    operator.WATCH_AGE: Bound(len(KIND_OF)),
    operator.LOOP_LAG: Bound(_histogram(operator.LAG_BUCKETS)),
    operator.STORE_OK: _ONE,
    operator.STORE_BATCHES: Bound(2),
    operator.STORE_BYTES: _ONE,
    operator.PROBES: Bound(PROBE_REASONS),
    operator.PROBER_SUSPECT: _ONE,
    operator.EVENTS: Bound(EVENT_RESULTS),
    operator.LEADER: _ONE,
    operator.BUDGET_SPENDING: Bound(per_namespace=1),
    operator.BUDGET_LIMIT: Bound(per_namespace=1),
    operator.UNPRICED_BACKENDS: Bound(per_namespace=1),
}

PROXY: Final[Mapping[str, Bound]] = {
    proxy.REQUESTS: Bound((len(Endpoint) + 1) * STATUS_LABELS),
    proxy.ATTEMPTS: Bound(len(Outcome)),
    proxy.RETRIES: _ONE,
    proxy.RETRIES_REFUSED: _ONE,
    proxy.FALLBACKS: _ONE,
    proxy.PROBES: _ONE,
    proxy.LAST_RESORTS: _ONE,
    proxy.CLIENT_GONE: _ONE,
    proxy.TURNED_AWAY: _ONE,
    proxy.EXCLUSIONS: Bound(len(RECONCILERS)),
    proxy.UPSTREAM_CONNECTS: _ONE,
    proxy.LOOKUPS: Bound(2),
    proxy.BYTES_RECEIVED: _ONE,
    proxy.BYTES_SENT: _ONE,
    proxy.ACTIVE_DOWNSTREAMS: _ONE,
    proxy.ACTIVE_STREAMS: _ONE,
    proxy.BACKEND_IN_FLIGHT: Bound(per_backend=1),
    proxy.BACKEND_ATTEMPTS: Bound(per_backend=1),
    proxy.BACKEND_STANDING: Bound(per_backend=len(Standing)),
    proxy.BACKEND_TLS_UNVERIFIED: Bound(per_backend=1),
    proxy.REPORTS: Bound(2),
    proxy.WATCH_RESTARTS: _ONE,
    proxy.COST: Bound(2),
    proxy.QUEUE_DEPTH: Bound(2),
    proxy.QUEUE_WAITS: Bound(QUEUE_OUTCOMES),
    proxy.QUEUE_WAIT_SECONDS: Bound(_histogram(BOUNDS)),
    proxy.READY: _ONE,
    proxy.WORKERS: _ONE,
    proxy.WORKER_RESTARTS: _ONE,
    proxy.WORKER_REQUESTS: Bound(per_worker=1),
    proxy.AGENT_ERROR_RATE: Bound(per_backend=1),
    proxy.AGENT_SUCCESS_RATE_24H: Bound(per_backend=1),
    proxy.AGENT_TTFT_SECONDS: Bound(per_backend=_histogram(BUCKETS_MS)),
}
