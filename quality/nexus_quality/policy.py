"""The quality policy as the engine uses it, and which policy is in force for a backend.

Promises integers only (rates in basis points), and the same answer for the same objects in any
order. It does not watch anything: callers hand in the policies of the backend's namespace.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from nexus_api.policy import Enforcement, QualityPolicy, QualityPolicySpec, WhenAllExcluded
from nexus_api.quantities import BASIS_POINTS, parse_percent

ROW_FACTOR = 6  # how much longer a row must be for each whole of the usual error rate


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """The thresholds of a verdict, resolved. Units are in the names."""

    threshold_basis_points: int
    min_requests: int
    min_reporters: int
    short_window_seconds: int
    consecutive_failures: int
    ttft_penalty_threshold_ms: int
    metrics_interval_seconds: int
    recovery_enabled: bool
    base_exclusion_seconds: int
    max_exclusion_seconds: int
    probation_successes: int
    slow_start_seconds: int
    least_bad: bool
    enforce: bool

    def rate_reached(self, *, errors: int, requests: int) -> bool:
        """True if the error rate reaches the threshold; off at 100 %, never without an error."""
        if errors <= 0 or self.threshold_basis_points >= BASIS_POINTS:
            return False
        return errors * BASIS_POINTS >= self.threshold_basis_points * requests

    def row_needed(self, *, errors: int, requests: int) -> int:
        """Failures in a row that exclude, given the hour before the row.

        A backend that fails now and then anyway makes rows by chance: the length grows with its
        usual error rate, up to seven times at 100 %.
        """
        if requests <= 0:
            return self.consecutive_failures
        return self.consecutive_failures * (requests + ROW_FACTOR * errors) // requests


def policy_from_spec(spec: QualityPolicySpec) -> Policy:
    """Resolve a spec; ValueError if its percent string is none."""
    recovery = spec.recovery
    return Policy(
        threshold_basis_points=parse_percent(spec.error_rate_threshold),
        min_requests=spec.min_requests,
        min_reporters=spec.min_reporters,
        short_window_seconds=spec.short_window_seconds,
        consecutive_failures=spec.consecutive_failures,
        ttft_penalty_threshold_ms=spec.ttft_penalty_threshold_milliseconds,
        metrics_interval_seconds=spec.metrics_interval_seconds,
        recovery_enabled=recovery.enabled,
        base_exclusion_seconds=recovery.base_exclusion_seconds,
        max_exclusion_seconds=max(recovery.max_exclusion_seconds, recovery.base_exclusion_seconds),
        probation_successes=recovery.probation_successes,
        slow_start_seconds=recovery.slow_start_seconds,
        least_bad=spec.when_all_excluded is WhenAllExcluded.LEAST_BAD,
        enforce=spec.enforcement is Enforcement.ENFORCE,
    )


DEFAULT_POLICY = policy_from_spec(QualityPolicySpec())


def resolve(labels: Mapping[str, str], policies: Iterable[QualityPolicy]) -> QualityPolicy | None:
    """The one policy in force for a backend with these labels, None for the defaults.

    A non-empty selector beats one that selects all, then the older wins, then the name. An audit
    gives way to any that enforces; where none does it is in force, and so nothing is excluded.
    """
    matching = [p for p in policies if p.spec.target_selector.matches(labels)]
    enforcing = [p for p in matching if p.spec.enforcement is Enforcement.ENFORCE]
    return min(enforcing or matching, key=_precedence, default=None)


def _precedence(policy: QualityPolicy) -> tuple[bool, str, str]:
    return (
        policy.spec.target_selector.selects_all,
        policy.metadata.creation_timestamp or "",
        policy.metadata.name,
    )
