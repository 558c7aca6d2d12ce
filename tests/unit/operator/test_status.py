"""The status of a backend, from what is known of it; each is valid against the schema."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from nexus_api import (
    BackendState,
    Condition,
    ConditionStatus,
    DiscoveredModel,
    ExclusionRule,
    LLMBackend,
    LLMBackendStatus,
    ModelQuality,
    Quality,
    SubjectState,
    reasons,
)
from nexus_api.quantities import format_time, parse_time
from nexus_devtools.schemas import assert_valid_backend_status
from nexus_operator.findings import Findings
from nexus_operator.knowledge import Knowledge
from nexus_operator.status import build_status, keep_what_was_published, steady
from nexus_quality import words
from nexus_quality.assessment import WithinPolicy
from nexus_quality.firing import Firing
from nexus_quality.health import Health
from nexus_quality.published import exclusion_of, verdicts_from_status
from nexus_quality.verdict import Verdict
from nexus_quality.verdicts import Verdicts

NOW = parse_time("2026-11-24T12:00:00Z")
Build = Callable[..., LLMBackend]
TRUE, FALSE, UNKNOWN = ConditionStatus.TRUE, ConditionStatus.FALSE, ConditionStatus.UNKNOWN
FINE = WithinPolicy(TRUE, reasons.WITHIN_THRESHOLDS, "No rule fires")
OUT = WithinPolicy(FALSE, reasons.ERROR_RATE, "Error rate 80% reaches the threshold 50%")
HEALTHY = Findings(health=Health(status=TRUE, reason=reasons.PROBE_SUCCEEDED, message="200"))
SICK = Findings(health=Health(status=FALSE, reason=reasons.PROBE_FAILED, message="503"))
FIRING = Firing(
    rule=ExclusionRule.ERROR_RATE, errors=8, requests=10, reason="8 of 10", suggested_action="Look"
)
EXCLUDED = Verdict(
    state=SubjectState.EXCLUDED,
    generation=3,
    count=2,
    started=NOW - 5,
    until=NOW + 25,
    firing=FIRING,
)
PROBATION = Verdict(
    state=SubjectState.PROBATION,
    generation=4,
    count=2,
    started=NOW - 40,
    until=NOW - 10,
    firing=FIRING,
    share_basis_points=2500,
)
RECOVERED = Verdict(
    generation=5, count=2, started=NOW - 60, firing=FIRING, recovered=NOW - 3, calm_since=NOW - 3
)


def status(backend: LLMBackend, **known: Any) -> LLMBackendStatus:
    verdict = known.pop("verdict", Verdict())
    facts: dict[str, Any] = {
        "verdicts": Verdicts(generation=verdict.generation, backend=verdict),
        "within": FINE,
        "traffic": reasons.ACTIVE,
        "findings": HEALTHY,
    }
    built = build_status(Knowledge(backend=backend, **(facts | known)), now=NOW)
    assert_valid_backend_status(msgspec.json.decode(msgspec.json.encode(built)))
    return built


def condition(status: LLMBackendStatus, name: str) -> Condition:
    return next(one for one in status.conditions if one.type == name)


def test_at_first_sight_every_condition_is_there_and_nothing_is_made_up(backend: Build) -> None:
    found = status(backend(), findings=Findings(), traffic=reasons.NO_TRAFFIC)
    assert [(c.type, str(c.status), c.reason) for c in found.conditions] == [
        ("Ready", "True", "NoTraffic"),
        ("Healthy", "Unknown", "AwaitingFirstProbe"),
        ("WithinPolicy", "True", "WithinThresholds"),
        ("Stalled", "False", "NothingToMend"),
        ("Priced", "True", "NotCharged"),
    ]
    assert found.state is BackendState.ACTIVE
    assert (found.observed_generation, found.verdict_generation) == (1, 0)
    assert found.quality is None and found.exclusion is None and found.quality_policy is None


@pytest.mark.parametrize(
    ("suspend", "findings", "verdict", "state", "ready"),
    [
        (False, HEALTHY, Verdict(), "Active", "True"),
        (False, HEALTHY, PROBATION, "Probation", "True"),
        (False, HEALTHY, EXCLUDED, "Excluded", "False"),
        (False, SICK, EXCLUDED, "Unhealthy", "False"),
        (False, SICK, Verdict(), "Unhealthy", "False"),
        (True, SICK, EXCLUDED, "Suspended", "False"),
    ],
)
def test_the_state_is_the_first_that_holds_and_the_reason_of_ready(
    backend: Build,
    suspend: bool,
    findings: Findings,
    verdict: Verdict,
    state: str,
    ready: str,
) -> None:
    within = FINE if verdict.state is SubjectState.ACTIVE else OUT
    found = status(backend(suspend=suspend), findings=findings, verdict=verdict, within=within)
    assert found.state == state
    said = condition(found, "Ready")
    assert (str(said.status), said.reason) == (ready, state)


def test_that_nobody_verifies_who_answers_is_said_where_it_is_routed_to(backend: Build) -> None:
    skip, models = {"insecureSkipVerify": True}, [{"name": "m"}]
    for url, tls, told in (
        ("https://llm.example", skip, True),
        ("https://llm.example", None, False),
        ("http://llm.example", skip, False),
    ):
        spec = {"url": url, "models": models} | ({"tls": tls} if tls else {})
        ready = condition(status(backend(**spec)), "Ready")
        assert ready.status == "True"
        assert (words.UNVERIFIED.message in ready.message) is told
        assert ready.message.startswith(words.ROUTED)


def test_transition_times_move_only_with_the_status_of_their_condition(backend: Build) -> None:
    old = "2026-11-24T11:00:00Z"
    before = [
        {"type": "Ready", "status": "True", "reason": "NoTraffic", "message": "old"},
        {"type": "Healthy", "status": "Unknown", "reason": "AwaitingFirstProbe", "message": "old"},
    ]
    known = backend(status={"conditions": [c | {"lastTransitionTime": old} for c in before]})
    found = status(known)
    assert condition(found, "Ready").last_transition_time == old
    assert condition(found, "Ready").reason == "Active"
    assert condition(found, "Healthy").last_transition_time == format_time(NOW)


def test_an_exclusion_says_why_until_when_and_what_to_do(backend: Build) -> None:
    found = status(backend(), verdict=EXCLUDED, within=OUT).exclusion
    assert found is not None
    assert msgspec.to_builtins(found) == {
        "startTime": "2026-11-24T11:59:55Z",
        "untilTime": "2026-11-24T12:00:25Z",
        "rule": "ErrorRate",
        "errors": 8,
        "requests": 10,
        "reason": "8 of 10",
        "suggestedAction": "Look",
        "count": 2,
    }


def test_probation_says_its_share_and_a_recovered_backend_since_when(backend: Build) -> None:
    probing = status(backend(), verdict=PROBATION, within=OUT).exclusion
    recovered = status(backend(), verdict=RECOVERED).exclusion
    assert probing is not None and recovered is not None
    assert (probing.probation_share, probing.recovered_time) == ("25%", None)
    assert (recovered.probation_share, recovered.until_time) == (None, None)
    assert recovered.recovered_time == "2026-11-24T11:59:57Z"


def test_a_clean_record_has_no_exclusion_and_a_fading_one_only_its_count() -> None:
    assert exclusion_of(Verdict(generation=9)) is None
    fading = exclusion_of(Verdict(generation=9, count=1, started=NOW - 500, firing=FIRING))
    assert fading is not None and msgspec.to_builtins(fading) == {"count": 1}


@pytest.mark.parametrize("verdict", [Verdict(generation=2), EXCLUDED, PROBATION, RECOVERED])
@pytest.mark.parametrize("findings", [HEALTHY, SICK])
def test_a_restarted_operator_reads_its_own_verdict_back(
    backend: Build, verdict: Verdict, findings: Findings
) -> None:
    published = status(backend(), verdict=verdict, findings=findings, within=OUT)
    restored = verdicts_from_status(published, NOW).backend
    for name in ("state", "generation", "count", "until", "started", "recovered"):
        assert getattr(restored, name) == getattr(verdict, name), name
    assert restored.share_basis_points == verdict.share_basis_points
    assert restored.firing == verdict.firing


def test_long_texts_are_cut_to_what_the_schema_takes(backend: Build) -> None:
    firing = Firing(
        rule=ExclusionRule.ERROR_RATE,
        errors=1,
        requests=1,
        reason="r" * 5000,
        suggested_action="s" * 5000,
    )
    verdict = Verdict(state=SubjectState.EXCLUDED, generation=1, started=NOW, firing=firing)
    found = status(backend(), verdict=verdict, within=OUT).exclusion
    assert found is not None and found.reason is not None and len(found.reason) == 1024


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({"type": "vllm"}, ("True", "NotCharged")),
        ({"type": "openai"}, ("False", "NoPrice")),
        ({"type": "openai", "models": [{"name": "m"}]}, ("False", "NoPrice")),
        (
            {
                "type": "openai",
                "pricing": {
                    "inputUSDPerMillionTokens": "1",
                    "outputUSDPerMillionTokens": "2",
                },
            },
            ("True", "PriceKnown"),
        ),
        ({"type": "openai", "privacyZone": "Restricted"}, ("True", "NotCharged")),
    ],
)
def test_an_open_backend_without_a_price_says_so(
    backend: Build, spec: dict[str, Any], expected: tuple[str, str]
) -> None:
    said = condition(status(backend(**spec)), "Priced")
    assert (str(said.status), said.reason) == expected


def test_figures_and_discovered_models_are_published(backend: Build) -> None:
    quality = Quality(requests_1h=0, errors_1h=0, observed_time=format_time(NOW))
    models = tuple(DiscoveredModel(name=f"m{i}") for i in range(600))
    found = status(
        backend(),
        findings=replace_findings(models),
        quality=quality,
        model_quality=(ModelQuality(name="m", state=SubjectState.ACTIVE),),
        models_omitted=2,
        policy="default",
    )
    assert found.quality == quality
    assert (len(found.models), found.models_omitted, found.quality_policy) == (512, 2, "default")


def replace_findings(models: tuple[DiscoveredModel, ...]) -> Findings:
    return Findings(health=HEALTHY.health, models=models)


@pytest.mark.parametrize(
    ("before", "now", "published"),
    [
        (None, 40, 40),
        (40, None, 40),
        (40, 55, 40),
        (40, 60, 60),
        (4, 8, 4),
        (400, 500, 400),
        (400, 200, 200),
    ],
)
def test_probe_latency_is_published_only_when_it_changed_a_lot(
    before: int | None, now: int | None, published: int
) -> None:
    assert steady(before, now) == published


def starting(before: LLMBackendStatus, now: LLMBackendStatus) -> LLMBackendStatus:
    return keep_what_was_published(now, before, verdicts=Verdicts())


def test_a_starting_operator_lowers_no_count_and_makes_nothing_unknown(backend: Build) -> None:
    rich = Quality(requests_24h=900, errors_24h=9, reporters=3)
    before = status(backend(), quality=rich)
    silent = WithinPolicy(UNKNOWN, reasons.NO_TRAFFIC, "No request in the last hour")
    empty = status(backend(), traffic=reasons.NO_TRAFFIC, within=silent)
    kept = starting(before, empty)
    assert kept.quality == rich
    assert condition(kept, "Ready").reason == "Active"
    assert condition(kept, "WithinPolicy") == condition(before, "WithinPolicy")
    partly = status(backend(), quality=Quality(requests_24h=100, reporters=1))
    assert starting(before, partly).quality == rich


def test_a_starting_operator_publishes_higher_counts_and_every_false(backend: Build) -> None:
    before = status(backend(), quality=Quality(requests_24h=900))
    more = status(backend(), quality=Quality(requests_24h=901))
    assert starting(before, more).quality == more.quality
    excluded = status(backend(), verdict=EXCLUDED, within=OUT)
    kept = starting(before, excluded)
    assert [condition(kept, name) for name in ("Ready", "WithinPolicy")] == [
        condition(excluded, name) for name in ("Ready", "WithinPolicy")
    ]
    assert condition(starting(excluded, before), "Ready") == condition(before, "Ready")
