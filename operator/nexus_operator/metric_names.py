"""Every Prometheus name the operator exports, with its help text: nothing else spells one.

The first three are the seed's, with its label; the standalone proxy exports them too.
"""

from __future__ import annotations

from typing import Final

AGENT_ERROR_RATE: Final = "nexus_agent_error_rate"
AGENT_SUCCESS_RATE_24H: Final = "nexus_agent_success_rate_24h"
AGENT_TTFT_SECONDS: Final = "nexus_agent_ttft_seconds"

BACKEND_STATE: Final = "nexus_operator_backend_state"
BACKEND_MODELS_OUT: Final = "nexus_operator_backend_models_out"
BACKENDS: Final = "nexus_operator_backends"
REPORTS: Final = "nexus_operator_reports_total"
REPORT_REFUSALS: Final = "nexus_operator_report_refusals_total"
REPORT_SECONDS: Final = "nexus_operator_report_seconds"
IDENTITY_LOOKUPS: Final = "nexus_operator_identity_lookups_total"
CONNECTIONS_REFUSED: Final = "nexus_operator_connections_refused_total"
REPORTERS: Final = "nexus_operator_reporters"
TRANSITIONS: Final = "nexus_operator_transitions_total"
STATUS_WRITES: Final = "nexus_operator_status_writes_total"
STATUS_WRITE_SECONDS: Final = "nexus_operator_status_write_seconds"
STATUS_WRITES_PENDING: Final = "nexus_operator_status_writes_pending"
OLDEST_PENDING_WRITE: Final = "nexus_operator_oldest_pending_write_seconds"
RECOMPUTE_SECONDS: Final = "nexus_operator_recompute_seconds"
WATCH_AGE: Final = "nexus_operator_watch_age_seconds"
LOOP_LAG: Final = "nexus_operator_event_loop_lag_seconds"
STORE_OK: Final = "nexus_operator_store_ok"
STORE_BATCHES: Final = "nexus_operator_store_batches_total"
STORE_BYTES: Final = "nexus_operator_store_bytes"
PROBER_SUSPECT: Final = "nexus_operator_prober_suspect_backends"
PROBES: Final = "nexus_operator_probes_total"
EVENTS: Final = "nexus_operator_events_total"
LEADER: Final = "nexus_operator_leader"
BUDGET_SPENDING: Final = "nexus_budget_spending_usd"
BUDGET_LIMIT: Final = "nexus_budget_limit_usd"
UNPRICED_BACKENDS: Final = "nexus_operator_unpriced_backends"

LABEL_AGENT: Final = "agent_id"

HELP: Final = {
    AGENT_ERROR_RATE: "Error rate of the last hour, 0 to 1; absent without a request.",
    AGENT_SUCCESS_RATE_24H: "Success rate of the last 24 hours, 0 to 1; absent without a request.",
    AGENT_TTFT_SECONDS: "Time to first token of streams that ended well.",
    BACKEND_STATE: "1 for the state the backend is in.",
    BACKEND_MODELS_OUT: "Models of the backend that are Excluded or on Probation by themselves.",
    BACKENDS: "LLMBackends known to the operator.",
    REPORTS: "Outcome reports taken, by kind.",
    REPORT_REFUSALS: "Reports, or parts of them, that were refused, by reason.",
    REPORT_SECONDS: "Time from a report's arrival to its answer.",
    IDENTITY_LOOKUPS: "Looks at who reports, by review and result; outage: an older answer.",
    CONNECTIONS_REFUSED: "Connections closed because there were too many.",
    REPORTERS: "Reporters heard from in the last 90 s.",
    TRANSITIONS: "Transitions of the verdict whose write was accepted, by row, new state and rule.",
    STATUS_WRITES: "Status writes, by kind of object and result.",
    STATUS_WRITE_SECONDS: "Time from the wish to write a status to its acceptance.",
    STATUS_WRITES_PENDING: "Objects whose status is to be looked at, being sent or to be retried.",
    OLDEST_PENDING_WRITE: "Age of the oldest of them; 0 without any.",
    RECOMPUTE_SECONDS: "Time to look at the figures of one backend whose interval is over.",
    WATCH_AGE: "Time since a watch event or a complete list, by kind of object.",
    LOOP_LAG: "How much later than it should a timer of the event loop fired.",
    STORE_OK: "1 while what is counted is kept on the disk; 0 too without --data-dir.",
    STORE_BATCHES: "Batches written to the store, by result.",
    STORE_BYTES: "Size of the store of counters on disk; 0 while they are in memory alone.",
    PROBES: "Health probes, by result.",
    PROBER_SUSPECT: "Backends whose failing probes are not believed: too many failed together.",
    EVENTS: "Kubernetes Events, by result.",
    LEADER: "1 while this process leads and may write statuses, else 0.",
    BUDGET_SPENDING: "Spent in the UTC month by the proxies of the namespace, in USD.",
    BUDGET_LIMIT: "monthlyLimitUSD of the RoutingPolicy in force.",
    UNPRICED_BACKENDS: "Open LLMBackends without a price: their costs are not counted.",
}

LAG_BUCKETS: Final = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
RECOMPUTE_BUCKETS: Final = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05)
WRITE_BUCKETS: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0)

# The seed's buckets, in seconds, with finer steps where interactive use lives.
TTFT_BUCKETS: Final = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
