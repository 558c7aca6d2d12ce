"""All that a backend's status is built from, and which state follows from it.

Promises values that nothing changes; where they come from is `dossier`'s.
"""

from __future__ import annotations

from dataclasses import dataclass

from nexus_api import BackendState, ConditionStatus, LLMBackend, ModelQuality, Quality
from nexus_operator.findings import Findings
from nexus_operator.mending import Mending
from nexus_quality.assessment import WithinPolicy
from nexus_quality.stall import Stall
from nexus_quality.verdict import Verdict
from nexus_quality.verdicts import Verdicts


@dataclass(frozen=True, slots=True, kw_only=True)
class Knowledge:
    """All that a status is built from. `traffic`: the reason of Ready while Active.

    `findings` as they are to be judged, not as probes alone would have them. `partly`: what only
    a part of the fleet says is to be mended.
    """

    backend: LLMBackend
    verdicts: Verdicts
    within: WithinPolicy
    traffic: str
    findings: Findings
    mending: Mending | None = None
    partly: Stall | None = None
    policy: str | None = None
    quality: Quality | None = None
    model_quality: tuple[ModelQuality, ...] = ()
    models_omitted: int = 0

    @property
    def verdict(self) -> Verdict:
        """The verdict on the backend itself."""
        return self.verdicts.backend


def state_of(known: Knowledge) -> BackendState:
    """The first of the states that holds."""
    if known.backend.spec.suspend:
        return BackendState.SUSPENDED
    if known.findings.health.status is ConditionStatus.FALSE:
        return BackendState.UNHEALTHY
    if known.mending is not None:
        return BackendState.EXCLUDED
    return BackendState(known.verdict.state.value)
