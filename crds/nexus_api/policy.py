"""QualityPolicy: when a backend counts as bad, and how it comes back.

Promises: the fields, defaults and bounds of `crds/qualitypolicies.yaml`, and label selection.
Not here: which policy is in force for a backend, and the rules themselves.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated

import msgspec
from msgspec import Meta

from nexus_api.meta import Conditions, ObjectMeta
from nexus_api.wire import Count, Milliseconds, Name, Percent, Seconds, Wire


class SelectorOperator(StrEnum):
    """How a label is compared."""

    IN = "In"
    NOT_IN = "NotIn"
    EXISTS = "Exists"
    DOES_NOT_EXIST = "DoesNotExist"


class WhenAllExcluded(StrEnum):
    """What the proxy does when the verdict has taken out every backend of a model."""

    LEAST_BAD = "LeastBad"
    REJECT = "Reject"


class Enforcement(StrEnum):
    """Whether a verdict acts or is only reported."""

    ENFORCE = "Enforce"
    AUDIT = "Audit"


LabelValue = Annotated[str, Meta(max_length=63)]


class LabelSelectorRequirement(Wire, frozen=True, kw_only=True):
    """One expression of a label selector."""

    key: Annotated[str, Meta(min_length=1, max_length=317)]
    operator: SelectorOperator
    values: Annotated[tuple[LabelValue, ...], Meta(max_length=64)] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether an object with these labels satisfies the expression."""
        present = self.key in labels
        if self.operator is SelectorOperator.EXISTS:
            return present
        if self.operator is SelectorOperator.DOES_NOT_EXIST:
            return not present
        listed = present and labels[self.key] in self.values
        return listed if self.operator is SelectorOperator.IN else not listed


class LabelSelector(Wire, frozen=True, kw_only=True):
    """A Kubernetes label selector; empty selects everything."""

    match_labels: Annotated[dict[str, LabelValue], Meta(max_length=64)] = msgspec.field(
        default_factory=dict
    )
    match_expressions: Annotated[tuple[LabelSelectorRequirement, ...], Meta(max_length=64)] = ()

    @property
    def selects_all(self) -> bool:
        """Whether the selector is empty."""
        return not self.match_labels and not self.match_expressions

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether an object with these labels is selected."""
        return all(labels.get(key) == value for key, value in self.match_labels.items()) and all(
            requirement.matches(labels) for requirement in self.match_expressions
        )


class Recovery(Wire, frozen=True, kw_only=True):
    """The way back of an excluded backend."""

    enabled: bool = True
    base_exclusion_seconds: Seconds = 30
    max_exclusion_seconds: Seconds = 300
    probation_successes: Annotated[int, Meta(ge=1, le=100)] = 2
    slow_start_seconds: Seconds = 30


class QualityPolicySpec(Wire, frozen=True, kw_only=True):
    """The thresholds of a verdict. The defaults are what holds without any policy."""

    target_selector: LabelSelector = msgspec.field(default_factory=LabelSelector)
    error_rate_threshold: Percent = "50%"
    min_requests: Annotated[int, Meta(ge=1, le=1_000_000)] = 10
    min_reporters: Annotated[int, Meta(ge=1, le=1000)] = 2
    short_window_seconds: Annotated[int, Meta(ge=0, le=600)] = 60
    consecutive_failures: Annotated[int, Meta(ge=0, le=1000)] = 5
    ttft_penalty_threshold_milliseconds: Milliseconds = 3000
    metrics_interval_seconds: Seconds = 30
    recovery: Recovery = msgspec.field(default_factory=Recovery)
    when_all_excluded: WhenAllExcluded = WhenAllExcluded.LEAST_BAD
    enforcement: Enforcement = Enforcement.ENFORCE


class QualityPolicyStatus(Wire, frozen=True, kw_only=True):
    """What the operator publishes about a policy."""

    observed_generation: Count | None = None
    conditions: Conditions = ()
    matched_backends: Count | None = None
    effective_backends: Count | None = None
    excluded_backends: Count | None = None
    would_exclude: Annotated[tuple[Name, ...], Meta(max_length=50)] = ()


class QualityPolicy(Wire, frozen=True, kw_only=True):
    """A quality policy object."""

    metadata: ObjectMeta
    spec: QualityPolicySpec = msgspec.field(default_factory=QualityPolicySpec)
    status: QualityPolicyStatus = msgspec.field(default_factory=QualityPolicyStatus)
