"""From objects to tables: what is resolved, what survives, what keeps a backend out."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import pytest

from nexus_proxy.routing.candidate import Backend, Candidate
from nexus_proxy.routing.endpoint import Endpoint
from nexus_proxy.routing.request import TOOLS, Call
from nexus_quality import words, words_of_health
from nexus_quality.outcome import Outcome
from nexus_quality.subject import Standing

MODELS = [{"name": "m"}]


def only(wired: Any, model: str = "m") -> Candidate:
    (candidate,) = wired.router.table.candidates[model]
    return candidate


def backend(wired: Any) -> Backend:
    (found,) = wired.router.table.backends.values()
    return found


def test_no_objects_at_all_make_a_ready_proxy(wired: Any) -> None:
    wired.apply()
    assert wired.router.ready


def test_a_backend_is_resolved_for_the_byte_path(wired: Any) -> None:
    wired.put(
        "LLMBackend",
        "b",
        spec={
            "url": "https://gpu.example:8443/llm/v1/",
            "type": "vllm",
            "models": [{"name": "m", "upstreamName": "org/m", "capabilities": ["tools"]}],
            "timeouts": {"connectSeconds": 1, "idleSeconds": 7},
            "maxConcurrency": 3,
            "pricing": {"inputUSDPerMillionTokens": "2.5", "outputUSDPerMillionTokens": "10"},
        },
        status={"probeLatencyMilliseconds": 30},
    )
    wired.apply()
    live, candidate = backend(wired), only(wired)
    assert (live.origin.host, live.origin.port) == ("gpu.example", 8443)
    assert live.origin.authority == b"gpu.example:8443"
    assert live.origin.paths[Endpoint.CHAT] == b"/llm/v1/chat/completions"
    assert isinstance(live.origin.tls, ssl.SSLContext)
    assert live.origin.tls.verify_mode is ssl.CERT_REQUIRED
    assert live.origin.server_name == "gpu.example"
    assert (live.timeouts.connect, live.timeouts.idle) == (1.0, 7.0)
    assert (live.max_concurrency, live.latency_ms) == (3, 30.0)
    assert live.answer_headers == (
        b"X-Nexus-Backend: b\r\nX-Nexus-Backend-Type: local\r\nX-Nexus-Privacy-Zone: restricted\r\n"
    )
    assert candidate.upstream_model == "org/m"
    assert candidate.traits.capabilities == TOOLS
    assert candidate.traits.price == (2_500_000_000, 10_000_000_000)


def test_google_is_reached_below_its_own_root(wired: Any) -> None:
    spec = {"url": "https://generativelanguage.example", "type": "google", "models": MODELS}
    wired.put("LLMBackend", "g", spec=spec)
    wired.apply()
    assert backend(wired).origin.paths[Endpoint.CHAT] == b"/v1beta/openai/chat/completions"


def test_without_models_of_its_own_a_backend_serves_what_the_probe_found(wired: Any) -> None:
    wired.put("LLMBackend", "b", status={"models": [{"name": "x"}, {"name": "y"}]})
    wired.apply()
    assert set(wired.router.table.candidates) == {"x", "y"}
    wired.put("LLMBackend", "b", spec={"models": MODELS}, status={"models": [{"name": "x"}]})
    wired.apply()
    assert set(wired.router.table.candidates) == {"m"}


def test_live_objects_survive_every_rebuild(wired: Any) -> None:
    wired.put("LLMBackend", "b", spec={"models": MODELS})
    wired.apply()
    before, candidate, subject = backend(wired), only(wired), only(wired).subject
    before.in_flight += 1
    candidate.rest(wired.now, 30.0)
    wired.put("LLMBackend", "b", spec={"models": MODELS, "url": "http://other:1", "priority": 3})
    wired.put("LLMBackend", "c", spec={"models": MODELS})
    wired.apply()
    after = wired.router.table.backends["uid-b"]
    assert after is before
    assert (after.in_flight, after.origin.host) == (1, "other")
    same = wired.router.table.candidates["m"][0]
    assert same is candidate
    assert same.subject is subject
    assert (same.traits.priority, same.resting_until > wired.now) == (3, True)


def test_a_backend_whose_models_are_not_known_is_in_the_table_while_it_is_there(wired: Any) -> None:
    wired.put("LLMBackend", "b", spec={"models": MODELS})
    wired.apply()
    wired.put("LLMBackend", "c")
    wired.apply()
    assert set(wired.router.table.backends) == {"uid-b", "uid-c"}
    assert [b.name for b in wired.router.table.undiscovered()] == ["c"]
    del wired.objects["LLMBackend", "c"]
    wired.apply()
    assert set(wired.router.table.backends) == {"uid-b"}


def test_a_recreated_backend_is_a_new_one(wired: Any) -> None:
    wired.put("LLMBackend", "b", spec={"models": MODELS})
    wired.apply()
    before = backend(wired)
    wired.put("LLMBackend", "b", meta={"uid": "uid-2"}, spec={"models": MODELS})
    wired.apply()
    assert backend(wired) is not before
    assert only(wired).subject.uid == "uid-2"


def test_a_deleted_backend_is_gone(wired: Any) -> None:
    wired.put("LLMBackend", "b", spec={"models": MODELS})
    wired.apply()
    wired.objects.clear()
    wired.apply()
    assert not wired.router.table.backends
    assert not wired.router.table.candidates


def test_published_figures_alone_make_no_new_table(wired: Any) -> None:
    wired.put("LLMBackend", "b", spec={"models": MODELS})
    wired.apply()
    table = wired.router.table
    quality = {"requests1h": 10, "errorRate1h": "10%"}
    status = {"quality": quality, "state": "Active", "verdictGeneration": 0}
    wired.put("LLMBackend", "b", spec={"models": MODELS}, status=status)
    wired.apply()
    assert wired.router.table is table


STATES = [
    ({"state": "Active"}, Standing.ADMITTED),
    ({"state": "Excluded", "verdictGeneration": 1}, Standing.OUT),
    ({"state": "Probation", "verdictGeneration": 2}, Standing.PROBING),
]


@pytest.mark.parametrize(("status", "standing"), STATES)
def test_the_shared_verdict_is_followed(wired: Any, status: Any, standing: Standing) -> None:
    wired.put("LLMBackend", "b", spec={"models": MODELS})
    wired.apply()
    wired.put("LLMBackend", "b", spec={"models": MODELS}, status=status)
    wired.apply()
    assert only(wired).subject.standing is standing


def test_the_verdict_on_one_model_leaves_that_one_out_and_says_so(wired: Any) -> None:
    spec = {"models": [{"name": "good"}, {"name": "bad"}]}
    reason = "Model bad: error rate 100% of the last 60 s (40 of 40) reaches the threshold 50%"
    exclusion = {"startTime": "2026-01-01T00:00:00Z", "reason": reason, "suggestedAction": "Look"}
    told = {"name": "bad", "state": "Excluded", "exclusion": exclusion}
    status = {"state": "Active", "verdictGeneration": 1, "modelQuality": [told]}
    wired.put("QualityPolicy", "q", spec={"whenAllExcluded": "Reject"})
    wired.put("LLMBackend", "b", spec=spec)
    wired.apply()
    wired.put("LLMBackend", "b", spec=spec, status=status)
    wired.apply()
    assert only(wired, "good").subject.standing is Standing.ADMITTED
    assert wired.router.choose(Call(Endpoint.CHAT, "good"), 1001.0).candidate.model == "good"
    refused = wired.router.choose(Call(Endpoint.CHAT, "bad"), 1001.0)
    (why,) = refused.reasons
    assert (refused.status, why.backend, why.reconciler) == (503, "b", "QualityReconciler")
    assert (why.reason, why.suggested_action) == (reason, "Look")
    wired.put("QualityPolicy", "q", spec={"whenAllExcluded": "LeastBad"})
    wired.apply()
    assert wired.router.choose(Call(Endpoint.CHAT, "bad"), 1001.0).last_resort


def test_an_unhealthy_backend_says_why(wired: Any) -> None:
    condition = {
        "type": "Healthy",
        "status": "False",
        "reason": "ProbeFailed",
        "message": "connection refused",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }
    status = {"state": "Unhealthy", "conditions": [condition]}
    wired.put("LLMBackend", "b", spec={"models": MODELS}, status=status)
    wired.apply()
    told = ("connection refused", "look at the backend, or correct spec.url or spec.healthCheck")
    assert only(wired).traits.unhealthy == told


def test_an_unhealthy_backend_is_refused_in_the_words_of_its_condition(wired: Any) -> None:
    said = words_of_health.failing(seen="GET / answers 500", failures=3, threshold=3, seconds=90)
    condition = {
        "type": "Healthy",
        "status": "False",
        "reason": "ProbeFailed",
        "message": said.message,
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }
    status = {"state": "Unhealthy", "conditions": [condition]}
    wired.put("LLMBackend", "b", spec={"models": MODELS}, status=status)
    wired.apply()
    assert only(wired).traits.unhealthy == said


def test_a_refused_key_of_the_fleet_is_refused_in_the_words_of_its_condition(wired: Any) -> None:
    said = words.key_rejected(secret="s", key="k", refusals=3, threshold=3)
    condition = {
        "type": "Stalled",
        "status": "True",
        "reason": "CredentialsRejected",
        "message": said.message,
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }
    exclusion = {"rule": "CredentialsRejected", "startTime": "2026-01-01T00:00:00Z"}
    status = {"state": "Excluded", "conditions": [condition], "exclusion": exclusion}
    wired.put("LLMBackend", "b", spec={"models": MODELS}, status=status)
    wired.apply()
    refused = wired.router.choose(Call(Endpoint.CHAT, "m"), wired.now)
    (reason,) = refused.reasons
    assert (reason.reason, reason.suggested_action) == said
    assert only(wired).subject.standing is Standing.ADMITTED  # no breaker follows an overlay
    wired.put("LLMBackend", "b", spec={"models": MODELS}, status={"state": "Active"})
    wired.apply()
    assert not isinstance(wired.router.choose(Call(Endpoint.CHAT, "m"), wired.now), type(refused))


def test_the_policy_in_force_is_the_one_of_its_labels_and_namespace(wired: Any) -> None:
    selector = {"matchLabels": {"tier": "gold"}}
    reject = {"whenAllExcluded": "Reject", "targetSelector": selector}
    wired.put("QualityPolicy", "gold", spec=reject)
    elsewhere = {"namespace": "other"}
    everyone = {"ttftPenaltyThresholdMilliseconds": 1}
    wired.put("QualityPolicy", "foreign", meta=elsewhere, spec=everyone)
    labels = {"labels": {"tier": "gold"}}
    wired.put("LLMBackend", "b", meta=labels, spec={"models": MODELS})
    wired.put("LLMBackend", "c", spec={"models": [{"name": "n"}]})
    wired.apply()
    assert not only(wired).traits.least_bad
    assert only(wired, "n").traits.least_bad
    assert only(wired, "n").traits.ttft_threshold_ms == 3000


def test_a_policy_edit_is_followed_without_a_restart(wired: Any) -> None:
    wired.put("LLMBackend", "b", spec={"models": MODELS})
    wired.apply()

    def fail(times: int) -> Standing:
        for _ in range(times):
            wired.now += 0.1
            only(wired).subject.begin(wired.now).end(Outcome.SERVER_ERROR, wired.now)
        return only(wired).subject.standing

    assert fail(3) is Standing.ADMITTED
    only(wired).subject.begin(wired.now + 1).end(Outcome.SUCCESS, wired.now + 1)
    wired.put("QualityPolicy", "strict", spec={"consecutiveFailures": 1})
    wired.apply()
    wired.now += 2
    assert fail(9) is Standing.OUT


def test_only_the_oldest_routing_policy_governs(wired: Any) -> None:
    aliases = [{"name": "best", "model": "m"}]
    old, new = "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"
    wired.put("RoutingPolicy", "b", meta={"creationTimestamp": old}, spec={"aliases": aliases})
    wired.put("RoutingPolicy", "a", meta={"creationTimestamp": new}, spec={"maxRetries": 9})
    wired.apply()
    assert wired.router.table.rules.max_retries == 2
    assert wired.router.table.rules.chain("best") == ("best", "m")


def test_a_new_month_ends_a_hard_limit_without_the_operator(wired: Any) -> None:
    budget = {"month": "2026-01", "spentUSD": "9", "state": "HardLimit"}
    status = {"budget": {**budget, "asOf": "2026-01-30T00:00:00Z"}}
    spec = {"budget": {"monthlyLimitUSD": "9", "hardLimitAction": "BlockAll"}}
    wired.put("RoutingPolicy", "r", spec=spec, status=status)
    wired.put("LLMBackend", "b", spec={"models": MODELS})
    wired.apply()
    call = Call(Endpoint.CHAT, "m")
    assert wired.router.choose(call, wired.now).status == 503
    wired.month = "2026-02"
    wired.control.reinstall()
    assert wired.router.choose(call, wired.now).candidate is only(wired)


def test_the_own_spend_is_acted_upon_the_moment_it_reaches_a_limit(wired: Any) -> None:
    spec = {"budget": {"monthlyLimitUSD": "2", "hardLimitAction": "BlockAll"}}
    wired.put("RoutingPolicy", "r", spec=spec)
    wired.put("LLMBackend", "b", spec={"models": MODELS})
    wired.apply()
    spending, call = wired.monitor.spending, Call(Endpoint.CHAT, "m")
    spending.utc = lambda now: now + 1_767_225_600.0  # January 2026
    spending.charge("team", 1_499_999_999, wired.now)
    assert not wired.router.table.rules.soft_limit
    spending.charge("team", 1, wired.now)
    assert wired.router.table.rules.soft_limit
    assert wired.router.choose(call, wired.now).candidate is only(wired)
    spending.charge("team", 500_000_000, wired.now)
    refused = wired.router.choose(call, wired.now)
    assert [reason.reconciler for reason in refused.reasons] == ["BudgetReconciler"]
    report = wired.monitor.report(wired.now, full=False)
    assert sum(spend.nano_usd for spend in report.spend) == 2_000_000_000


@pytest.mark.parametrize("more", [{"maxConcurrency": 2}, {"priority": 7}])
def test_any_edit_of_a_backend_wakes_those_who_wait_for_a_place(
    wired: Any, more: dict[str, int]
) -> None:
    wired.put("LLMBackend", "b", spec={"models": MODELS, "maxConcurrency": 1})
    wired.apply()
    woken: list[int] = []
    wired.router.woken = lambda: woken.append(1)
    wired.put("LLMBackend", "b", spec={"models": MODELS, "maxConcurrency": 1, **more})
    wired.apply()
    assert woken


def auth(**more: Any) -> dict[str, Any]:
    return {"models": MODELS, "auth": {"secretRef": {"name": "s", "key": "k"}, **more}}


def test_a_missing_secret_leaves_the_backend_out_and_says_what_to_do(
    wired: Any, tmp_path: Path
) -> None:
    wired.put("LLMBackend", "b", spec=auth())
    wired.apply()
    refused = wired.router.choose(Call(Endpoint.CHAT, "m"), wired.now)
    (reason,) = refused.reasons
    assert reason.reason == "Secret s not found"
    assert str(tmp_path / "s" / "k") in reason.suggested_action


def test_a_key_is_sent_once_it_is_mounted_and_again_when_it_rotates(
    wired: Any, tmp_path: Path
) -> None:
    wired.put("LLMBackend", "b", spec=auth())
    wired.apply()
    (tmp_path / "s").mkdir()
    for key in ("first-key", "second-key"):
        (tmp_path / "s" / "k").write_text(f"{key}\n")
        wired.control.reinstall()
        line = backend(wired).credentials.header_line
        assert line == f"Authorization: Bearer {key}\r\n".encode()
        assert only(wired).traits.obstacle is None
        assert key not in repr(backend(wired).credentials)


AUTH = [
    ({"type": "anthropic"}, {}, b"x-api-key: key\r\n"),
    ({}, {"header": "X-Key"}, b"X-Key: key\r\n"),
    ({}, {"scheme": "Token"}, b"Authorization: Token key\r\n"),
]


@pytest.mark.parametrize(("spec", "more", "line"), AUTH)
def test_the_header_is_the_types_or_the_users(
    wired: Any, tmp_path: Path, spec: Any, more: Any, line: bytes
) -> None:
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "k").write_text("key")
    wired.put("LLMBackend", "b", spec={**auth(**more), **spec})
    wired.apply()
    credentials = backend(wired).credentials
    assert credentials.header_line == line
    assert line.partition(b":")[0].lower() in credentials.strip
    assert b"authorization" in credentials.strip


def test_a_key_that_no_header_can_carry_is_refused_without_being_shown(
    wired: Any, tmp_path: Path
) -> None:
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "k").write_text("evil\r\nx-injected: 1")
    wired.put("LLMBackend", "b", spec=auth())
    wired.apply()
    reason, action = only(wired).traits.obstacle
    assert "no header can carry" in reason
    assert "injected" not in reason + action
    assert backend(wired).credentials.header_line == b""


def test_credentials_of_the_client_pass_only_where_asked_for(wired: Any) -> None:
    wired.put("LLMBackend", "b", spec={"models": MODELS})
    wired.apply()
    assert b"authorization" in backend(wired).credentials.strip
    wired.put("LLMBackend", "b", spec={"models": MODELS, "auth": {"mode": "PassThrough"}})
    wired.apply()
    assert backend(wired).credentials.strip == frozenset()


@pytest.mark.parametrize(
    ("pem", "said"),
    [
        (None, "Secret ca not found"),
        ("", "Secret ca has no key ca.crt"),
        ("no pem", "not a PEM"),
        ("# Főtanúsítvány\n", "not a PEM"),
    ],
)
def test_a_ca_that_is_missing_or_none_leaves_the_backend_out(
    wired: Any, tmp_path: Path, pem: str | None, said: str
) -> None:
    tls = {"caSecretRef": {"name": "ca", "key": "ca.crt"}}
    spec = {"url": "https://b:8443", "models": MODELS, "tls": tls}
    if pem is not None:
        (tmp_path / "ca").mkdir()
        (tmp_path / "ca" / "ca.crt").write_text(pem, "utf-8")
    wired.put("LLMBackend", "b", spec=spec)
    wired.apply()
    assert said in only(wired).traits.obstacle[0]
    assert backend(wired).origin.tls is None


def test_figures_in_a_status_leave_the_plans_as_they_are(
    wired: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    forgotten: list[bool] = []
    status = {"state": "Active", "verdictGeneration": 1, "quality": {"successRate24h": "1%"}}
    for number in range(20):
        wired.put("LLMBackend", f"b{number}", spec={"models": MODELS}, status=status)
    wired.apply()
    table = wired.router.table
    monkeypatch.setattr(wired.monitor, "_on_change", lambda: forgotten.append(True))
    for number in range(20):
        status = {**status, "quality": {"successRate24h": f"{number}%"}}
        wired.put("LLMBackend", f"b{number}", spec={"models": MODELS}, status=status)
        wired.apply()
    assert wired.router.table is table
    assert forgotten == []
    excluded = {"state": "Excluded", "verdictGeneration": 2}
    wired.put("LLMBackend", "b7", spec={"models": MODELS}, status=excluded)
    wired.apply()
    assert forgotten
