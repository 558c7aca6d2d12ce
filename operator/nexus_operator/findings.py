"""What all probes of a backend have found so far, and what others see of it.

Promises values that nothing changes. What a single probe found is `probe`'s, when they are made
`prober`'s.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from nexus_api import ConditionStatus, DiscoveredModel, LLMBackendSpec, LLMBackendStatus, reasons
from nexus_quality import words_of_health
from nexus_quality.health import Health, Suspicion


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """What the probes of a backend found so far. `models` empty: none known.

    `suspect`: why failing probes are not believed, if they are not.
    """

    health: Health = field(default_factory=Health)
    models: tuple[DiscoveredModel, ...] = ()
    suspect: Suspicion | None = None


DISABLED = Health(reason=reasons.PROBING_DISABLED, message=words_of_health.PROBING_OFF)


def remembered(status: LLMBackendStatus) -> Findings:
    """What an earlier operator published, so that a restart unpublishes nothing."""
    condition = next((c for c in status.conditions if c.type == reasons.HEALTHY), None)
    latency = status.probe_latency_milliseconds
    if condition is None or condition.status is ConditionStatus.UNKNOWN:
        return Findings(health=Health(latency_ms=latency), models=status.models)
    health = Health(
        status=condition.status,
        reason=condition.reason,
        message=words_of_health.seen_in(condition.message),
        latency_ms=latency,
    )
    return Findings(health=health, models=status.models)


def shown(findings: Findings) -> tuple[object, ...]:
    """What others see of findings."""
    health = findings.health
    return health.status, health.reason, findings.models, findings.suspect is None


def place(spec: LLMBackendSpec) -> tuple[object, ...]:
    """What decides where a probe goes and what it may learn."""
    return (spec.url, spec.type, spec.tls, spec.auth, spec.models is None)
