"""Every Prometheus name the operator exports, with its help text: nothing else spells one.

The first three are the seed's, with its label; the standalone proxy exports them too.
"""

from __future__ import annotations

from typing import Final

AGENT_ERROR_RATE: Final = "nexus_agent_error_rate"
AGENT_SUCCESS_RATE_24H: Final = "nexus_agent_success_rate_24h"
AGENT_TTFT_SECONDS: Final = "nexus_agent_ttft_seconds"

BACKEND_STATE: Final = "nexus_operator_backend_state"
BACKENDS: Final = "nexus_operator_backends"
REPORTS: Final = "nexus_operator_reports_total"
REPORT_REFUSALS: Final = "nexus_operator_report_refusals_total"
REPORT_SECONDS: Final = "nexus_operator_report_seconds"
IDENTITY_LOOKUPS: Final = "nexus_operator_identity_lookups_total"
CONNECTIONS_REFUSED: Final = "nexus_operator_connections_refused_total"
TRANSITIONS: Final = "nexus_operator_transitions_total"
STATUS_WRITES: Final = "nexus_operator_status_writes_total"
PROBER_SUSPECT: Final = "nexus_operator_prober_suspect_backends"
PROBES: Final = "nexus_operator_probes_total"
EVENTS: Final = "nexus_operator_events_total"
LEADER: Final = "nexus_operator_leader"

LABEL_AGENT: Final = "agent_id"

HELP: Final = {
    AGENT_ERROR_RATE: "Error rate of the last hour, 0 to 1; absent without a request.",
    AGENT_SUCCESS_RATE_24H: "Success rate of the last 24 hours, 0 to 1; absent without a request.",
    AGENT_TTFT_SECONDS: "Time to first token of streams that ended well.",
    BACKEND_STATE: "1 for the state the backend is in.",
    BACKENDS: "LLMBackends known to the operator.",
    REPORTS: "Outcome reports taken, by kind.",
    REPORT_REFUSALS: "Reports, or parts of them, that were refused, by reason.",
    REPORT_SECONDS: "Time from a report's arrival to its answer.",
    IDENTITY_LOOKUPS: "Looks at who reports, by review and result; outage: an older answer.",
    CONNECTIONS_REFUSED: "Connections closed because there were too many.",
    TRANSITIONS: "Transitions of the verdict whose status write was accepted.",
    STATUS_WRITES: "Status writes, by kind of object and result.",
    PROBES: "Health probes, by result.",
    PROBER_SUSPECT: "Backends whose failing probes are not believed: too many failed together.",
    EVENTS: "Kubernetes Events, by result.",
    LEADER: "1 while this process leads and may write statuses, else 0.",
}

# The seed's buckets, in seconds, with finer steps where interactive use lives.
TTFT_BUCKETS: Final = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
