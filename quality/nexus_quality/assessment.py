"""What is said of a backend beside its state: the WithinPolicy condition, in words.

Promises one reason and one sentence for every combination of verdict and evidence (the contract's
rows S2, S3, S5, S6 and S13, which change no state). It moves nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

from nexus_api import reasons
from nexus_api.backend import SubjectState
from nexus_api.meta import ConditionStatus
from nexus_api.quantities import format_time
from nexus_quality import words
from nexus_quality.firing import Firing
from nexus_quality.policy import Policy
from nexus_quality.verdict import Verdict
from nexus_quality.verdicts import Verdicts


@dataclass(frozen=True, slots=True)
class WithinPolicy:
    """The condition WithinPolicy without its bookkeeping."""

    status: ConditionStatus
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Assessment:
    """The verdicts and what to say of them. `traffic`: Active, NoTraffic or ReportsStale."""

    verdicts: Verdicts
    within_policy: WithinPolicy
    traffic: str
    reporters: int

    @property
    def verdict(self) -> Verdict:
        """The verdict on the backend."""
        return self.verdicts.backend


def within_policy(
    verdicts: Verdicts, firing: Firing | None, policy: Policy, *, traffic: str, starting: bool
) -> WithinPolicy:
    """The condition for a backend's verdicts and the rule that fires now, if one does.

    `starting`: this process has just begun, and has not heard those that used the backend.
    """
    verdict = verdicts.backend
    if verdict.state is SubjectState.EXCLUDED:
        return _excluded(verdict)
    if verdict.state is SubjectState.PROBATION:
        needed = policy.probation_successes
        message = words.on_probation(successes=verdict.successes, needed=needed)
        reason = reasons.PROBATION if verdict.successes else reasons.AWAITING_PROBE
        return WithinPolicy(ConditionStatus.FALSE, reason, message)
    if firing is not None and not firing.quorum:
        message = words.failing_for_some(firing.reason, firing.blamed, protected=policy.enforce)
        return WithinPolicy(ConditionStatus.TRUE, reasons.FAILING_FOR_SOME, message)
    if firing is not None and not policy.enforce:
        message = words.would_be_excluded(firing.reason)
        return WithinPolicy(ConditionStatus.FALSE, reasons.WOULD_BE_EXCLUDED, message)
    if traffic != reasons.ACTIVE and not starting:
        return WithinPolicy(ConditionStatus.UNKNOWN, traffic, _SILENCE[traffic])
    message = words.COLLECTING if starting else _calm(verdicts)
    return WithinPolicy(ConditionStatus.TRUE, reasons.WITHIN_THRESHOLDS, message)


def _calm(verdicts: Verdicts) -> str:
    out = sorted(verdicts.out)
    return words.models_out(out) if out else words.NO_RULE


def why_out(verdict: Verdict) -> str:
    """Why a subject is Excluded, until when, and what to do, in one line."""
    until = "" if verdict.until is None else format_time(verdict.until)
    return words.excluded(reason=verdict.firing.reason if verdict.firing else "", until=until)


def _excluded(verdict: Verdict) -> WithinPolicy:
    reason = verdict.firing.rule.value if verdict.firing else reasons.EXCLUDED
    return WithinPolicy(ConditionStatus.FALSE, reason, why_out(verdict))


_SILENCE = {
    reasons.NO_TRAFFIC: words.NO_REQUEST,
    reasons.REPORTS_STALE: words.SILENT,
}
