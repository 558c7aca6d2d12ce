"""The router as a whole: names, retries, rejections, memory, and privacy that never fails open."""

from __future__ import annotations

import random
from fnmatch import fnmatchcase
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nexus_api import RoutingPolicy
from nexus_proxy.pricing.limits import limits
from nexus_proxy.routing.candidate import Traits
from nexus_proxy.routing.choice import Choice
from nexus_proxy.routing.explain import explain
from nexus_proxy.routing.queue import Waiter
from nexus_proxy.routing.reason import Rejection
from nexus_proxy.routing.request import TOOLS, VISION
from nexus_proxy.routing.retry import RetryBudget
from nexus_proxy.routing.rules import Rules, compile_rules, in_force
from nexus_proxy.routing.table import Table
from nexus_proxy.routing.wait import Wait
from nexus_quality.spend import Spending
from nexus_quality.subject import Standing


def rules_of(**spec: Any) -> Rules:
    policy = msgspec.convert({"metadata": {"name": "r"}, "spec": spec}, RoutingPolicy)
    return compile_rules(policy)


def test_before_the_first_table_every_request_waits(world: Any, call: Any) -> None:
    refused = world.router.choose(call(), 1.0)
    assert (refused.status, refused.retry_after) == (503, 1)
    assert not world.router.ready


def test_an_empty_table_is_ready_and_knows_no_model(world: Any, call: Any) -> None:
    router = world.install()
    refused = router.choose(call("gpt"), 1.0)
    assert router.ready
    assert (refused.status, refused.code, refused.param) == (404, "model_not_found", "model")
    assert refused.message == "Model 'gpt' not found. No backend serves any model yet"


def test_an_unknown_model_is_answered_with_the_models_there_are(world: Any, call: Any) -> None:
    world.add("b", "llama", "qwen")
    router = world.install(rules_of(aliases=[{"name": "best", "model": "qwen"}]))
    message = router.choose(call("gpt"), 1.0).message
    assert message == "Model 'gpt' not found. Available: best, llama, qwen"


def test_a_404_names_the_backends_whose_models_are_not_known_yet(world: Any, call: Any) -> None:
    world.add("b", "llama")
    router = world.install()
    silent = {f"uid-{name}": world.backend(name) for name in ("z", "new")}
    known = router.table
    router.install(Table(known.candidates, {**known.backends, **silent}, known.rules))
    assert router.choose(call("gpt"), 1.0).message == (
        "Model 'gpt' not found. Available: llama."
        " The models of new, z are not known yet: see that they can be reached,"
        " or write spec.models"
    )
    router.install(Table({}, {"uid-z": silent["uid-z"]}, known.rules))
    assert router.choose(call("gpt"), 1.0).message == (
        "Model 'gpt' not found. No backend serves any model yet."
        " The models of z are not known yet: see that it can be reached, or write spec.models"
    )


def test_nobody_capable_is_a_400_that_says_what_is_missing(world: Any, call: Any) -> None:
    world.add("b", traits=Traits(capabilities=0))
    refused = world.install().choose(call(needs=VISION | TOOLS), 1.0)
    assert (refused.status, refused.code) == (400, "missing_capability")
    assert refused.message.endswith("missing vision, tools")
    assert refused.reasons[0].reconciler == "RequestAnalyzer"


def test_someone_capable_but_out_is_a_503(world: Any, call: Any) -> None:
    world.add("blind", traits=Traits(capabilities=0))
    world.add("off", traits=Traits(capabilities=VISION, suspended=True))
    refused = world.install().choose(call(needs=VISION), 1.0)
    assert refused.status == 503
    assert [reason.reconciler for reason in refused.reasons] == [
        "RequestAnalyzer",
        "SchedulerReconciler",
    ]


def test_a_long_prompt_goes_only_where_it_fits(world: Any, call: Any) -> None:
    world.add("small", traits=Traits(context_length=100, priority=0))
    large = world.add("large", traits=Traits(context_length=1000, priority=50))
    router, short, long = world.install(), call(), call()
    body = {"model": "m", "messages": [{"content": "a" * 2000}]}
    long.body = msgspec.json.encode(body)
    assert router.choose(short, 1.0).candidate.backend.name == "small"
    assert router.choose(long, 1.0).candidate is large
    long.body = msgspec.json.encode(body | {"max_tokens": 5000})
    assert router.choose(long, 1.0).status == 400


ALIASES = [{"name": f"a{n}", "model": f"a{n + 1}"} for n in range(4)]


def test_aliases_are_followed_three_deep(world: Any, call: Any) -> None:
    world.add("b", "a3", "a4")
    router = world.install(rules_of(aliases=ALIASES))
    choice = router.choose(call("a0"), 1.0)
    assert (choice.candidate.model, choice.rewrite, choice.fallback_model) == ("a3", "a3", None)
    assert router.choose(call("a1"), 1.0).candidate.model == "a4"


def test_an_alias_circle_ends(world: Any, call: Any) -> None:
    world.add("b")
    circle = [{"name": "x", "model": "y"}, {"name": "y", "model": "x"}]
    assert world.install(rules_of(aliases=circle)).choose(call("x"), 1.0).status == 404


def test_an_upstream_name_is_what_is_sent(world: Any, call: Any) -> None:
    world.add("b", "m", upstream={"m": "org/m-7b"})
    world.add("same", "n", upstream={"n": "n"})
    router = world.install()
    assert router.choose(call(), 1.0).rewrite == "org/m-7b"
    assert router.choose(call("n"), 1.0).rewrite is None


FALLBACK = [{"model": "big", "to": ["gone", "small"]}]


def test_a_fallback_serves_after_every_candidate_failed(world: Any, call: Any) -> None:
    world.add("one", "big")
    world.add("two", "small")
    router, request = world.install(rules_of(fallbacks=FALLBACK)), call("big")
    first = router.choose(request, 1.0)
    assert (first.candidate.backend.name, first.fallback_model) == ("one", None)
    request.tried.append((first, "HTTP 500"))
    again = router.again(request, 1.0, first_retry_free=True)
    assert (again.candidate.backend.name, again.fallback_model) == ("two", "small")
    assert (again.rewrite, again.reason) == ("small", "failover")


def test_a_fallback_comes_before_the_last_resort(world: Any, call: Any, subject: Any) -> None:
    world.add("out", "big", subject=subject(standing=Standing.OUT))
    world.add("two", "small")
    router = world.install(rules_of(fallbacks=FALLBACK))
    assert router.choose(call("big"), 1.0).fallback_model == "small"


def test_a_model_nobody_has_may_have_a_fallback(world: Any, call: Any) -> None:
    world.add("two", "small")
    router = world.install(rules_of(fallbacks=FALLBACK))
    assert router.choose(call("big"), 1.0).candidate.model == "small"


def test_a_restriction_is_carried_along_aliases_and_fallbacks(world: Any, call: Any) -> None:
    world.add("cloud", "small", traits=Traits(zone="Open"))
    rules = rules_of(
        aliases=[{"name": "secret", "model": "big"}],
        fallbacks=FALLBACK,
        trafficPolicies=[
            {"modelPattern": "secret", "privacy": "Restricted"},
            {"modelPattern": "*", "privacy": "Unrestricted"},
        ],
    )
    router = world.install(rules)
    assert isinstance(router.choose(call("secret"), 1.0), Rejection)
    assert isinstance(router.choose(call("big"), 1.0), Choice)


def test_tier_is_strict_unless_the_request_is_flexible(world: Any, call: Any) -> None:
    world.add("low", traits=Traits(tier=2))
    router = world.install(rules_of(trafficPolicies=[{"modelPattern": "m*", "minTier": 3}]))
    assert router.choose(call(), 1.0).reasons[0].reconciler == "TierReconciler"
    assert isinstance(router.choose(call(flexible=True), 1.0), Choice)


def test_a_flexible_request_still_prefers_the_tier(world: Any, call: Any, chosen: Any) -> None:
    world.add("low", traits=Traits(tier=2, priority=0))
    world.add("high", traits=Traits(tier=3, priority=90))
    router = world.install(rules_of(trafficPolicies=[{"modelPattern": "m*", "minTier": 3}]))
    assert chosen(router, (call(flexible=True) for _ in range(50))) == {"high": 50}


def test_retries_end_at_max_retries(world: Any, call: Any) -> None:
    for number in range(9):
        world.add(f"b{number}")
    router, request = world.install(rules_of(maxRetries=3)), call()
    choice = router.choose(request, 1.0)
    attempts = 0
    while isinstance(choice, Choice):
        attempts += 1
        request.tried.append((choice, "HTTP 500"))
        choice = router.again(request, 1.0, first_retry_free=False)
    assert attempts == 4
    assert len({choice.candidate for choice, _ in request.tried}) == 4
    assert "maxRetries" in choice.message
    assert len(choice.reasons) == 4


def test_the_retry_budget_is_a_fifth_of_the_attempts_and_ten_a_second() -> None:
    budget = RetryBudget()
    for _ in range(1000):
        budget.attempt(100.0)
    assert sum(budget.allows(100.5) for _ in range(300)) == 200
    assert sum(budget.allows(101.0) for _ in range(300)) == 10
    assert sum(budget.allows(102.0) for _ in range(300)) == 10


def test_the_retry_budget_forgets_what_is_older_than_ten_seconds() -> None:
    budget = RetryBudget()
    for _ in range(1000):
        budget.attempt(100.0)
    assert sum(budget.allows(109.9) for _ in range(300)) == 200
    for _ in range(1000):
        budget.attempt(119.9)
    assert sum(budget.allows(119.9) for _ in range(300)) == 200
    assert sum(budget.allows(200.0) for _ in range(300)) == 10


def test_a_free_first_retry_does_not_draw_on_the_budget(world: Any, call: Any) -> None:
    for number in range(3):
        world.add(f"b{number}")
    router = world.install()

    def retries(free: bool) -> int:
        served = 0
        for _ in range(50):
            request = call()
            request.tried.append((router.choose(request, 5.0), "connect: refused"))
            served += isinstance(router.again(request, 5.0, first_retry_free=free), Choice)
        return served

    assert retries(True) == 50
    assert retries(False) < 50
    assert router.counters.retries_refused > 0


def test_the_second_retry_draws_on_the_budget_whatever_the_first_was(world: Any, call: Any) -> None:
    for number in range(4):
        world.add(f"b{number}")
    router, refused = world.install(), 0
    for _ in range(40):
        request = call()
        request.tried.append((router.choose(request, 5.0), "connect: refused"))
        request.tried.append((router.again(request, 5.0, first_retry_free=True), "again"))
        refused += isinstance(router.again(request, 5.0, first_retry_free=True), Rejection)
    assert refused > 0


def test_the_pipeline_runs_once_per_change_not_once_per_request(
    world: Any, call: Any, subject: Any
) -> None:
    standing = subject()
    world.add("b", subject=standing)
    world.add("c")
    router = world.install()
    plan = router.plan(call())
    router.choose(call(), 1.0)
    assert router.plan(call()) is plan
    assert router.plan(call(needs=TOOLS)) is not plan
    standing.standing = Standing.OUT
    router.invalidate()
    assert router.plan(call()) is not plan
    assert router.choose(call(), 1.0).candidate.backend.name == "c"


def test_unknown_models_leave_nothing_in_memory(world: Any, call: Any) -> None:
    world.add("b")
    router = world.install()
    for number in range(100):
        router.choose(call(f"made-up-{number}"), 1.0)
    assert not router._routes


def test_the_oldest_routing_policy_is_in_force_then_the_first_by_name() -> None:
    def policy(name: str, created: str) -> RoutingPolicy:
        meta = {"name": name, "creationTimestamp": created}
        return msgspec.convert({"metadata": meta}, RoutingPolicy)

    old, new = policy("z", "2026-01-01T00:00:00Z"), policy("a", "2026-02-01T00:00:00Z")
    twin = policy("b", "2026-01-01T00:00:00Z")
    assert in_force([new, old]) is old
    assert in_force([old, twin, new]) is twin
    assert in_force([]) is None


BUDGETS = [
    ("Normal", "BlockAll", "2026-01", (False, "")),
    ("SoftLimit", "BlockAll", "2026-01", (True, "")),
    ("HardLimit", "Warn", "2026-01", (True, "")),
    ("HardLimit", "BlockCloud", "2026-01", (True, "BlockCloud")),
    ("HardLimit", "BlockAll", "2026-01", (True, "BlockAll")),
    ("HardLimit", "BlockAll", "2025-12", (False, "")),
]


@pytest.mark.parametrize(("state", "action", "month", "expected"), BUDGETS)
def test_the_budget_acts_as_configured_in_its_own_month(
    state: str, action: str, month: str, expected: tuple[bool, str]
) -> None:
    budget = {"month": month, "spentUSD": "5", "state": state, "asOf": "2026-01-02T00:00:00Z"}
    policy = msgspec.convert(
        {
            "metadata": {"name": "r"},
            "spec": {"budget": {"hardLimitAction": action}},
            "status": {"budget": budget},
        },
        RoutingPolicy,
    )
    found = limits(policy, Spending(lambda now: now), "2026-01")
    rules = compile_rules(policy, budget=found.state)
    assert (rules.soft_limit, rules.block) == expected


def test_models_lists_what_can_serve_with_owners_and_capabilities(world: Any, subject: Any) -> None:
    world.add("a", "m", "n", traits=Traits(capabilities=TOOLS, context_length=4096, created=7))
    world.add("b", "m", traits=Traits(created=5))
    world.add("c", "off", traits=Traits(suspended=True))
    world.add("d", "m", "locked", subject=subject(refused=("key refused", "put a valid one")))
    router = world.install(rules_of(aliases=[{"name": "best", "model": "m"}]))
    listed = msgspec.json.decode(router.models())
    assert listed["object"] == "list"
    by_id = {model["id"]: model for model in listed["data"]}
    assert list(by_id) == ["best", "m", "n"]
    assert by_id["m"]["owned_by"] == "a,b"
    assert by_id["m"]["created"] == 5
    assert by_id["n"]["capabilities"]["tools"] is True
    assert by_id["n"]["context_length"] == 4096


def test_explain_shows_scores_reasons_and_the_drawn_set_and_changes_nothing(
    world: Any, call: Any, subject: Any
) -> None:
    out = subject(standing=Standing.OUT)
    world.add("a")
    world.add("b", traits=Traits(priority=90))
    world.add("c", subject=out)
    world.add("d", traits=Traits(suspended=True))
    router = world.install()
    told = explain(router, call(), 1.0)
    entries = {entry["backend"]: entry for entry in told["legs"][0]["candidates"]}
    assert told["decision"] == "Route"
    assert told["legs"][0]["drawn_from"] == ["default/a"]
    assert (entries["a"]["score"], entries["b"]["score"]) == (75, 55)
    assert entries["c"]["tier"] == "Excluded"
    assert entries["c"]["reconciler"] == "QualityReconciler"
    assert entries["d"]["tier"] == "Out"
    assert entries["d"]["suggested_action"] == "set spec.suspend to false to route to it"
    assert out.eligible == 0
    assert router.counters.exclusions == {}


def test_explain_of_a_model_that_nobody_can_serve_is_what_the_client_would_get(
    world: Any, call: Any
) -> None:
    world.add("off", traits=Traits(suspended=True))
    told = explain(world.install(), call(), 1.0)
    assert (told["decision"], told["status"]) == ("Reject", 503)
    assert told["rejection_reasons"][0]["reason"] == "Suspended: spec.suspend is true"


def test_explain_of_an_unknown_model_is_the_rejection(world: Any, call: Any) -> None:
    told = explain(world.install(), call("gpt"), 1.0)
    assert (told["decision"], told["status"], told["code"]) == ("Reject", 404, "model_not_found")


NAMES = ("m0", "m1", "m2", "m3")
name = st.sampled_from(NAMES)
patterns = st.sampled_from(("m0", "m1", "m2", "m?", "m[12]", "*", "x*"))
traffic = st.lists(
    st.fixed_dictionaries(
        {"modelPattern": patterns, "privacy": st.sampled_from(("Restricted", "Unrestricted"))}
    ),
    max_size=4,
)
aliases = st.lists(
    st.fixed_dictionaries({"name": name, "model": name}), max_size=3, unique_by=lambda a: a["name"]
)
fallbacks = st.lists(
    st.fixed_dictionaries({"model": name, "to": st.lists(name, min_size=1, max_size=3)}),
    max_size=3,
    unique_by=lambda f: f["model"],
)
backends = st.lists(
    st.tuples(
        st.lists(name, min_size=1, max_size=4, unique=True),
        st.sampled_from(("Open", "Restricted")),
        st.sampled_from(tuple(Standing)),
        st.booleans(),
    ),
    min_size=1,
    max_size=6,
)


def first_match(traffic: list[dict[str, str]], model: str) -> str | None:
    return next((t["privacy"] for t in traffic if fnmatchcase(model, t["modelPattern"])), None)


@settings(
    max_examples=300,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    traffic=traffic,
    aliases=aliases,
    fallbacks=fallbacks,
    backends=backends,
    seed=st.integers(0, 2**32),
)
def test_privacy_never_fails_open(
    world_of: Any,
    call: Any,
    subject: Any,
    traffic: list[dict[str, str]],
    aliases: list[dict[str, str]],
    fallbacks: list[dict[str, Any]],
    backends: list[Any],
    seed: int,
) -> None:
    """No restricted request reaches an Open backend, by whatever retry, alias, fallback or tier."""
    chance = random.Random(seed)
    world = world_of(chance.random)
    for number, (models, zone, standing, sick) in enumerate(backends):
        traits = Traits(zone=zone, unhealthy=("Unhealthy", "look") if sick else None)
        probed = subject(standing=standing, share=0.5, probe=chance.random() < 0.5)
        world.add(f"b{number}", *models, traits=traits, subject=probed)
    rules = rules_of(trafficPolicies=traffic, aliases=aliases, fallbacks=fallbacks, maxRetries=10)
    router = world.install(rules)

    def restricted_only(waited_for: frozenset[Any], asked: set[str]) -> bool:
        if not any(first_match(traffic, each) == "Restricted" for each in asked):
            return True
        zones = {c.traits.zone for c in world.members.values() if c.backend in waited_for}
        return zones == {"Restricted"}

    for model in NAMES:
        asked = {model, *rules.chain(model)}
        request, now = call(model), 1.0
        choice = router.choose(request, now)
        for _ in range(12):
            if isinstance(choice, Rejection):
                break
            if isinstance(choice, Wait):
                assert restricted_only(choice.backends, asked)
                request.waiter = request.waiter or Waiter(SimpleNamespace(call=request))
                request.waiter.ticket, request.waiter.deadline = 1, now + 30.0
                request.waiter.forgiven |= choice.forgiven
                now += chance.random() * 6
                choice = router.resume(request, now)
                request.waiter.ticket = 0
                continue
            candidate = choice.candidate
            names = asked | {candidate.model}
            if any(first_match(traffic, each) == "Restricted" for each in names):
                assert candidate.traits.zone == "Restricted"
            if chance.random() < 0.3:
                candidate.rest(now, 5.0, random=chance.random)
            request.tried.append((choice, "HTTP 500"))
            now += chance.random()
            choice = router.again(request, now, first_retry_free=chance.random() < 0.5)
