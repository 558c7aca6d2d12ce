"""What policies are told about themselves; each status is valid against the schema."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from nexus_api import (
    LLMBackend,
    QualityPolicy,
    QualityPolicyStatus,
    RoutingPolicy,
    RoutingPolicyStatus,
)
from nexus_devtools.schemas import (
    assert_valid_quality_policy_status,
    assert_valid_routing_policy_status,
)
from nexus_operator.policies import quality_status, routing_status

NOW = 1_795_500_000.0
Backends = Callable[..., LLMBackend]
Quality = Callable[..., QualityPolicy]
Routing = Callable[..., RoutingPolicy]
LATER = "2026-11-24T01:00:00Z"
GPU = {"targetSelector": {"matchLabels": {"tier": "gpu"}}}


def judge(
    policy: QualityPolicy,
    backends: list[LLMBackend],
    *rivals: QualityPolicy,
    excluded: tuple[str, ...] = (),
    would: tuple[str, ...] = (),
) -> QualityPolicyStatus:
    found = quality_status(
        policy,
        backends=backends,
        policies=[policy, *rivals],
        excluded=lambda uid: uid in excluded,
        would_exclude=lambda backend: backend.metadata.uid in would,
        now=NOW,
    )
    assert_valid_quality_policy_status(msgspec.json.decode(msgspec.json.encode(found)))
    return found


def effective(status: QualityPolicyStatus) -> tuple[str, str, str]:
    said = next(c for c in status.conditions if c.type == "Effective")
    return str(said.status), said.reason, said.message


def counts(status: QualityPolicyStatus) -> tuple[int | None, int | None, int | None]:
    return status.matched_backends, status.effective_backends, status.excluded_backends


def test_a_policy_alone_is_in_force_for_all_it_matches(
    backend: Backends, quality_policy: Quality
) -> None:
    found = judge(quality_policy(), [backend("a"), backend("b")], excluded=("uid-b",))
    assert counts(found) == (2, 2, 1)
    assert effective(found)[:2] == ("True", "InForce")
    assert next((c.type, c.reason) for c in found.conditions) == ("Accepted", "Valid")


def test_an_overridden_policy_names_the_winner(backend: Backends, quality_policy: Quality) -> None:
    older, younger = quality_policy("older"), quality_policy("younger", created=LATER)
    found = judge(younger, [backend("a")], older, excluded=("uid-a",))
    assert counts(found) == (1, 0, 0)
    assert effective(found) == (
        "False",
        "Overridden",
        "older is in force for every backend that this policy matches",
    )


def test_a_selector_beats_a_policy_for_all_and_both_say_so(
    backend: Backends, quality_policy: Quality
) -> None:
    everything = quality_policy("everything")
    gpus = quality_policy("gpus", created=LATER, **GPU)
    backends = [backend("a", labels={"tier": "gpu"}), backend("b")]
    assert counts(judge(gpus, backends, everything)) == (1, 1, 0)
    found = judge(everything, backends, gpus)
    assert counts(found) == (2, 1, 0)
    assert effective(found) == (
        "True",
        "InForce",
        "In force for 1 of 2 backends it matches; gpus for the rest",
    )


def test_a_selector_that_matches_nothing_says_so(
    backend: Backends, quality_policy: Quality
) -> None:
    found = judge(quality_policy(**GPU), [backend("a")])
    assert counts(found) == (0, 0, 0)
    assert effective(found)[:2] == ("False", "NoMatch")


def test_an_audit_watches_without_competing(backend: Backends, quality_policy: Quality) -> None:
    audit = quality_policy("trial", enforcement="Audit")
    enforcing = quality_policy("default", created=LATER)
    backends = [backend(name) for name in "abc"]
    found = judge(audit, backends, enforcing, excluded=("uid-a",), would=("uid-c", "uid-b"))
    assert counts(found) == (3, 0, 0)
    assert found.would_exclude == ("b", "c")
    assert effective(found)[:2] == ("False", "AuditOnly")
    assert counts(judge(enforcing, backends, audit)) == (3, 3, 0)
    assert judge(enforcing, backends, audit, would=("uid-a",)).would_exclude == ()


def test_at_most_fifty_names_are_shown(backend: Backends, quality_policy: Quality) -> None:
    backends = [backend(f"b{i:03}") for i in range(80)]
    would = tuple(b.metadata.uid for b in backends)
    found = judge(quality_policy(enforcement="Audit"), backends, would=would)
    assert found.would_exclude == tuple(f"b{i:03}" for i in range(50))


def test_a_status_that_says_nothing_new_is_equal_to_the_one_before(
    backend: Backends, quality_policy: Quality
) -> None:
    first = judge(quality_policy(), [backend("a")])
    again = quality_policy(status=msgspec.to_builtins(first))
    later = quality_status(
        again,
        backends=[backend("a")],
        policies=[again],
        excluded=lambda uid: False,
        would_exclude=lambda backend: False,
        now=NOW + 1000,
    )
    assert later == first


def route(policy: RoutingPolicy, *rivals: RoutingPolicy) -> tuple[RoutingPolicyStatus, Any]:
    found = routing_status(policy, policies=[policy, *rivals], now=NOW)
    assert_valid_routing_policy_status(msgspec.json.decode(msgspec.json.encode(found)))
    (said,) = found.conditions
    return found, (str(said.status), said.reason, said.message)


def test_the_oldest_routing_policy_is_accepted_and_the_others_are_told(
    routing_policy: Routing,
) -> None:
    older, younger = routing_policy("z-older"), routing_policy("a-younger", created=LATER)
    assert route(older, younger)[1] == ("True", "Valid", "The policy is valid")
    assert route(younger, older)[1] == (
        "False",
        "Superseded",
        "z-older is in force in this namespace: it is older",
    )


@pytest.mark.parametrize(("name", "accepted"), [("a", "True"), ("b", "False")])
def test_of_equal_age_the_name_decides(routing_policy: Routing, name: str, accepted: str) -> None:
    policies = {letter: routing_policy(letter) for letter in "ab"}
    mine = policies.pop(name)
    assert route(mine, *policies.values())[1][0] == accepted


def test_the_budget_of_a_routing_policy_is_kept(routing_policy: Routing) -> None:
    budget = {"month": "2026-11", "spentUSD": "1.5", "state": "Normal", "asOf": LATER}
    found, _ = route(routing_policy(status={"budget": budget}))
    assert msgspec.to_builtins(found.budget) == budget
