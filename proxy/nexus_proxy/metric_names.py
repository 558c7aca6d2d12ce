"""Every metric name of the proxy, in one place. The first three are the seed's."""

from __future__ import annotations

from typing import Final

AGENT_ERROR_RATE: Final = "nexus_agent_error_rate"
AGENT_SUCCESS_RATE_24H: Final = "nexus_agent_success_rate_24h"
AGENT_TTFT_SECONDS: Final = "nexus_agent_ttft_seconds"

REQUESTS: Final = "nexus_proxy_requests"
ATTEMPTS: Final = "nexus_proxy_attempts"
RETRIES: Final = "nexus_proxy_retries"
RETRIES_REFUSED: Final = "nexus_proxy_retries_refused"
FALLBACKS: Final = "nexus_proxy_fallbacks"
PROBES: Final = "nexus_proxy_probes"
LAST_RESORTS: Final = "nexus_proxy_last_resorts"
CLIENT_GONE: Final = "nexus_proxy_client_gone"
EXCLUSIONS: Final = "nexus_reconciler_exclusions"
UPSTREAM_CONNECTS: Final = "nexus_proxy_upstream_connects"
BYTES_RECEIVED: Final = "nexus_proxy_received_bytes"
BYTES_SENT: Final = "nexus_proxy_sent_bytes"
ACTIVE_DOWNSTREAMS: Final = "nexus_proxy_active_connections"
ACTIVE_STREAMS: Final = "nexus_proxy_active_streams"
BACKEND_IN_FLIGHT: Final = "nexus_proxy_backend_in_flight"
BACKEND_ATTEMPTS: Final = "nexus_proxy_backend_attempts"
BACKEND_STANDING: Final = "nexus_proxy_backend_standing"
REPORTS: Final = "nexus_proxy_reports"
WATCH_RESTARTS: Final = "nexus_proxy_watch_restarts"
COST: Final = "nexus_proxy_cost_usd"
QUEUE_DEPTH: Final = "nexus_queue_depth"
QUEUE_WAITS: Final = "nexus_proxy_queue_waits"
QUEUE_WAIT_SECONDS: Final = "nexus_proxy_queue_wait_seconds"
READY: Final = "nexus_proxy_ready"
