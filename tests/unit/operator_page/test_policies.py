"""Policies on the page: their terms, what they match, and what a budget has come to."""

from __future__ import annotations

from nexus_api import decode_quality_policy, decode_routing_policy
from nexus_devtools.page_stand import AUDIT, NAMESPACES, QUALITY, ROUTING, Stand, name
from nexus_operator.page import policies
from nexus_operator.page.policies import matches, quality_row, routing_row, selector_text


def test_a_policy_is_told_in_the_names_of_its_spec() -> None:
    line = quality_row(decode_quality_policy(QUALITY))
    assert (line.selector, line.enforcement, line.reason) == ("tier=gold", "Enforce", "InForce")
    assert (line.matched, line.effective, line.excluded) == (34, 34, 1)
    assert line.rules["errorRateThreshold"] == "20%" and line.rules["minRequests"] == 20
    audit = quality_row(decode_quality_policy(AUDIT))
    assert (audit.selector, audit.reason) == ("", "AuditOnly")
    assert audit.would_exclude == ("vllm-000", "vllm-015")


def test_a_budget_is_told_with_its_limit_and_its_state() -> None:
    line = routing_row(decode_routing_policy(ROUTING))
    assert (line.limit, line.spent, line.month, line.budget) == (
        "500",
        "391.27",
        "2026-11",
        "SoftLimit",
    )
    assert (line.soft_limit, line.action) == ("75%", "BlockCloud")
    bare = routing_row(decode_routing_policy({"metadata": {"name": "r"}, "spec": {}}))
    assert (bare.limit, bare.spent, bare.action, bare.reason) == (None, None, None, "")


def test_a_selector_reads_as_kubectl_takes_it() -> None:
    spec = {
        "targetSelector": {
            "matchLabels": {"tier": "gold", "app": "x"},
            "matchExpressions": [
                {"key": "zone", "operator": "In", "values": ["a", "b"]},
                {"key": "zone", "operator": "NotIn", "values": ["c"]},
                {"key": "gpu", "operator": "Exists"},
                {"key": "spot", "operator": "DoesNotExist"},
            ],
        }
    }
    policy = decode_quality_policy({"metadata": {"name": "p"}, "spec": spec})
    assert (
        selector_text(policy.spec.target_selector)
        == "app=x,tier=gold,zone in (a,b),zone notin (c),gpu,!spot"
    )


async def test_whom_a_policy_matches_is_told_with_who_is_in_force(stand: Stand) -> None:
    stand.policies()
    found = await stand.board.matches(NAMESPACES[0], "gold")
    assert found is not None
    assert [(each.name, each.winner) for each in found.matches] == [(name(0), "gold")]
    watched = await stand.board.matches(NAMESPACES[0], "stricter-trial")
    assert watched is not None
    assert [(each.name, each.winner) for each in watched.matches] == [(name(0), "gold")]
    assert await stand.board.matches(NAMESPACES[1], "gold") is None


async def test_a_long_list_is_cut_and_says_so(stand: Stand) -> None:
    policy = decode_quality_policy(AUDIT)
    one = stand.desk.registry.backends.of(NAMESPACES[0])
    found = await matches(policy, backends=one * (policies.MOST_NAMES + 3), policies=[policy])
    assert (len(found.matches), found.omitted) == (policies.MOST_NAMES, 3)
