"""A spec becomes integers; which policy is in force does not depend on any order."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from nexus_api.meta import ObjectMeta
from nexus_api.policy import (
    Enforcement,
    LabelSelector,
    QualityPolicy,
    QualityPolicySpec,
    Recovery,
    WhenAllExcluded,
)
from nexus_quality.backoff import exclusion_seconds, faded
from nexus_quality.policy import (
    DEFAULT_POLICY,
    Policy,
    policy_from_spec,
    resolve,
)


def policy(
    name: str,
    *,
    labels: dict[str, str] | None = None,
    created: str = "2026-01-01T00:00:00Z",
    audit: bool = False,
) -> QualityPolicy:
    return QualityPolicy(
        metadata=ObjectMeta(name=name, creation_timestamp=created),
        spec=QualityPolicySpec(
            target_selector=LabelSelector(match_labels=labels or {}),
            enforcement=Enforcement.AUDIT if audit else Enforcement.ENFORCE,
        ),
    )


def test_the_defaults_are_the_contracts() -> None:
    assert (
        Policy(
            threshold_basis_points=5_000,
            min_requests=10,
            min_reporters=2,
            short_window_seconds=60,
            consecutive_failures=5,
            ttft_penalty_threshold_ms=3_000,
            metrics_interval_seconds=30,
            recovery_enabled=True,
            base_exclusion_seconds=30,
            max_exclusion_seconds=300,
            probation_successes=2,
            slow_start_seconds=30,
            least_bad=True,
            enforce=True,
        )
        == DEFAULT_POLICY
    )


def test_a_spec_is_resolved_to_integers() -> None:
    spec = QualityPolicySpec(
        error_rate_threshold="4.76%",
        min_requests=1,
        recovery=Recovery(enabled=False, base_exclusion_seconds=60, max_exclusion_seconds=60),
        when_all_excluded=WhenAllExcluded.REJECT,
        enforcement=Enforcement.AUDIT,
    )
    found = policy_from_spec(spec)
    assert found.threshold_basis_points == 476
    assert (found.recovery_enabled, found.least_bad, found.enforce) == (False, False, False)


def test_a_maximum_below_the_base_is_the_base() -> None:
    spec = QualityPolicySpec(
        recovery=Recovery(base_exclusion_seconds=100, max_exclusion_seconds=10)
    )
    assert policy_from_spec(spec).max_exclusion_seconds == 100


def test_a_threshold_that_is_no_percentage_is_an_error_that_says_what_to_write() -> None:
    with pytest.raises(ValueError, match=r"4\.76%"):
        policy_from_spec(QualityPolicySpec(error_rate_threshold="half"))


def test_which_policy_is_in_force_does_not_depend_on_their_order() -> None:
    labels = {"tier": "gold"}
    ranked = [
        policy("z-old", labels=labels),
        policy("a-new", labels=labels, created="2026-02-01T00:00:00Z"),
        policy("b-new", labels=labels, created="2026-02-01T00:00:00Z"),
        policy("oldest-of-all", created="2020-01-01T00:00:00Z"),
    ]
    others = [policy("elsewhere", labels={"tier": "silver"}), policy("audit", audit=True)]
    for first in range(len(ranked)):
        for order in itertools.permutations([*ranked[first:], *others]):
            assert resolve(labels, order) is ranked[first]
    assert resolve(labels, others[:1]) is None


def test_an_audit_is_in_force_where_no_policy_enforces() -> None:
    audits = [policy("z", labels={"a": "b"}, audit=True), policy("a", audit=True)]
    assert resolve({"a": "b"}, audits) is audits[0]
    assert resolve({}, audits) is audits[1]
    enforcing = policy("enforcing", created="2030-01-01T00:00:00Z")
    assert resolve({"a": "b"}, [*audits, enforcing]) is enforcing


@pytest.mark.parametrize(
    ("count", "random", "seconds"),
    [(1, 0.0, 30), (2, 0.0, 60), (4, 0.0, 240), (5, 0.0, 300), (99, 0.0, 300), (1, 1.0, 27)],
)
def test_an_exclusion_doubles_up_to_the_maximum_and_is_jittered_downwards(
    count: int, random: float, seconds: float
) -> None:
    assert exclusion_seconds(count, DEFAULT_POLICY, lambda: random) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("count", "calm", "left", "since"),
    [(3, 299.0, 3, 0.0), (3, 300.0, 2, 300.0), (3, 650.0, 1, 600.0), (3, 9e9, 0, 900.0)],
)
def test_the_count_falls_by_one_for_each_maximum_spent_calm(
    count: int, calm: float, left: int, since: float
) -> None:
    assert faded(count, 0.0, calm, DEFAULT_POLICY) == (left, since)


@pytest.mark.parametrize(("errors", "reached"), [(0, False), (1, True)])
def test_a_threshold_of_zero_takes_one_error(errors: int, reached: bool) -> None:
    one = replace(DEFAULT_POLICY, threshold_basis_points=0)
    assert one.rate_reached(errors=errors, requests=1_000_000) is reached
