"""The whole operator in process, kopf included, against a fake cluster."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from nexus_api.meta import API_VERSION
from nexus_devtools.reports import Counters, full_report
from nexus_devtools.schemas import assert_valid_status
from nexus_operator.app import operate
from nexus_operator.context import Context
from nexus_operator.credentials import Credentials
from nexus_operator.settings import Settings
from nexus_quality.report import encode

ROOT = f"/apis/{API_VERSION}/namespaces/shop"
SETTINGS = Settings(all_namespaces=True, host="127.0.0.1", port=0)
POD = {
    "authenticated": True,
    "audiences": ["nexus-operator"],
    "user": {"username": "system:serviceaccount:shop:app"},
}
Stored = dict[str, Any]


async def eventually(holds: Callable[[], Any]) -> Any:
    for _ in range(1000):
        if found := holds():
            return found
        await asyncio.sleep(0.01)
    raise AssertionError("it did not happen within 10 s")


class Running:
    """An operator that runs, and the cluster it runs against."""

    def __init__(self, cluster: Any, api: httpx.AsyncClient, context: Context) -> None:
        self.cluster, self.api, self.context = cluster, api, context

    async def create(self, plural: str, kind: str, name: str, **spec: Any) -> Stored:
        body = {
            "apiVersion": API_VERSION,
            "kind": kind,
            "metadata": {"name": name, "namespace": "shop"},
            "spec": spec,
        }
        answer = await self.api.post(f"{ROOT}/{plural}", json=body)
        answer.raise_for_status()
        return await self.get(plural, name)

    async def backend(self, name: str, **spec: Any) -> Stored:
        check = {"enabled": False}
        spec = {"url": "http://127.0.0.1:1", "type": "vllm", "healthCheck": check} | spec
        return await self.create("llmbackends", "LLMBackend", name, **spec)

    def conflicts(self) -> float:
        value = self.context.metrics.registry.get_sample_value
        labels = {"kind": "LLMBackend", "result": "conflict"}
        return value("nexus_operator_status_writes_total", labels) or 0.0

    async def get(self, plural: str, name: str) -> Stored:
        answer = await self.api.get(f"{ROOT}/{plural}/{name}")
        answer.raise_for_status()
        found: Stored = answer.json()
        return found

    async def change(self, plural: str, name: str, **spec: Any) -> None:
        answer = await self.api.patch(f"{ROOT}/{plural}/{name}", json={"spec": spec})
        answer.raise_for_status()

    async def status(
        self, name: str, holds: Callable[[Stored], object], plural: str = "llmbackends"
    ) -> Stored:
        for _ in range(1000):
            found: Stored = (await self.get(plural, name)).get("status") or {}
            if found and holds(found):
                return found
            await asyncio.sleep(0.01)
        raise AssertionError(f"the status of {name} did not get there within 10 s: {found}")

    async def report(self, uid: str, *, requests: int, errors: int, generation: int = 0) -> None:
        report = full_report(uid, requests=requests, errors=errors, generation=generation)
        answer = await self.http("POST", "/v1/outcomes", content=encode(report), token="good")
        assert answer.status_code == 200, answer.text

    async def http(
        self, method: str, path: str, *, token: str = "", content: bytes = b""
    ) -> httpx.Response:
        url = f"http://127.0.0.1:{self.context.server.port}{path}"
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        async with httpx.AsyncClient() as client:
            return await client.request(method, url, headers=headers, content=content)


@asynccontextmanager
async def running(
    cluster: tuple[Any, str], settings: Settings = SETTINGS, watches: int = 3
) -> AsyncIterator[Running]:
    handler, url = cluster
    handler.tokens["good"] = POD
    contexts: list[Context] = []
    credentials = Credentials(server=url, origin="test", namespace="shop")
    awaited = handler.watches + watches
    task = asyncio.create_task(
        operate(settings, find_credentials=lambda: credentials, started=contexts.append)
    )
    await eventually(lambda: contexts and contexts[0].problem is None)
    # Stopped before its watches run, kopf waits 5 s for what it had only begun to ask.
    await eventually(lambda: handler.watches == awaited)
    async with httpx.AsyncClient(base_url=url) as api:
        try:
            yield Running(handler, api, contexts[0])
        finally:
            contexts[0].ask_to_stop()
            code = await asyncio.wait_for(task, 10)
    assert code == 0
    for path, body in handler.patches:
        if body.get("kind"):
            assert path.endswith("/status"), path
            assert_valid_status(body["kind"], body["status"])


async def test_at_first_sight_a_backend_gets_all_its_conditions(cluster: Any) -> None:
    async with running(cluster) as operator:
        await operator.backend("a")
        status = await operator.status("a", lambda status: status["state"])
        assert [c["type"] for c in status["conditions"]] == [
            "Ready",
            "Healthy",
            "WithinPolicy",
            "Stalled",
            "Priced",
        ]
        assert status["verdictGeneration"] == 0


async def test_objects_that_were_there_before_are_served_too(cluster: Any) -> None:
    async with running(cluster) as first:
        await first.backend("a")
    async with running(cluster) as second:
        await second.status("a", lambda status: status["state"] == "Active")


async def test_nothing_but_status_is_ever_written(cluster: Any) -> None:
    async with running(cluster) as operator:
        before = await operator.backend("a")
        await operator.create("qualitypolicies", "QualityPolicy", "p", minReporters=1)
        await operator.create("routingpolicies", "RoutingPolicy", "r")
        await operator.status("a", lambda status: status.get("qualityPolicy") == "p")
        await operator.status("r", lambda status: status["conditions"], "routingpolicies")
        after = await operator.get("llmbackends", "a")
    for stored in (before, after):
        stored.pop("status", None)
        stored["metadata"].pop("resourceVersion")
    assert after == before
    written = [path for path, body in operator.cluster.patches]
    assert written and all(path.endswith("/status") for path in written)


async def test_a_quiet_cluster_sees_no_further_writes(cluster: Any) -> None:
    async with running(cluster) as operator:
        await operator.backend("a")
        await operator.create("qualitypolicies", "QualityPolicy", "p")
        await operator.status("p", lambda s: s.get("effectiveBackends") == 1, "qualitypolicies")
        await operator.status("a", lambda status: status.get("qualityPolicy") == "p")
        await eventually(lambda: operator.context.writer.idle)
        writes = len(operator.cluster.patches)
        for uid in operator.context.engine.backends():
            operator.context.evaluator.touch(uid)
        operator.context.policies.mark("shop")
        await eventually(lambda: operator.context.writer.idle)
        await asyncio.sleep(0.05)
        assert len(operator.cluster.patches) == writes


async def test_a_report_moves_the_verdict_and_says_so_in_an_event(cluster: Any) -> None:
    async with running(cluster) as operator:
        await operator.create("qualitypolicies", "QualityPolicy", "p", minReporters=1)
        uid = (await operator.backend("a"))["metadata"]["uid"]
        await operator.status("a", lambda status: status.get("qualityPolicy") == "p")
        await operator.report(uid, requests=30, errors=20)
        status = await operator.status("a", lambda status: status["state"] == "Excluded")
        assert (status["verdictGeneration"], status["exclusion"]["count"]) == (1, 1)
        assert status["quality"]["errorRate1h"] == "66.67%"
        await operator.status("p", lambda s: s["excludedBackends"] == 1, "qualitypolicies")
        event = (await eventually(lambda: operator.cluster.events))[0]
        assert (event["reason"], event["type"]) == ("Excluded", "Warning")


async def test_an_edited_policy_is_followed_without_a_restart(cluster: Any) -> None:
    async with running(cluster) as operator:
        await operator.create(
            "qualitypolicies", "QualityPolicy", "p", minReporters=1, errorRateThreshold="90%"
        )
        uid = (await operator.backend("a"))["metadata"]["uid"]
        await operator.status("a", lambda status: status.get("qualityPolicy") == "p")
        await operator.report(uid, requests=30, errors=20)
        await operator.change("qualitypolicies", "p", errorRateThreshold="50%")
        await operator.status("a", lambda status: status["state"] == "Excluded")
        await operator.change("qualitypolicies", "p", errorRateThreshold="95%")
        status = await operator.status("a", lambda status: status["state"] == "Active")
        assert status["verdictGeneration"] == 2
        assert "recoveredTime" in status["exclusion"]


async def test_a_restarted_operator_keeps_the_verdict(cluster: Any) -> None:
    async with running(cluster) as first:
        await first.create("qualitypolicies", "QualityPolicy", "p", minReporters=1)
        uid = (await first.backend("a"))["metadata"]["uid"]
        await first.status("a", lambda status: status.get("qualityPolicy") == "p")
        await first.report(uid, requests=30, errors=20)
        before = await first.status("a", lambda status: status["state"] == "Excluded")
    async with running(cluster) as second:
        verdict = second.context.engine.verdict(uid)
        assert (str(verdict.state), verdict.generation, verdict.count) == ("Excluded", 1, 1)
        await eventually(lambda: second.context.writer.idle)
        after = (await second.get("llmbackends", "a"))["status"]
        for name in ("state", "verdictGeneration", "exclusion", "quality"):
            assert after[name] == before[name], name


async def test_a_restart_where_nothing_is_used_writes_nothing(cluster: Any) -> None:
    silent = {"type": "WithinPolicy", "status": "Unknown", "reason": "NoTraffic"}
    async with running(cluster) as first:
        await first.backend("a")
        status = await first.status("a", lambda status: status["state"])
    for condition in status["conditions"]:
        if condition["type"] == "WithinPolicy":
            condition |= silent | {"message": "No request in the last hour"}
    async with httpx.AsyncClient(base_url=cluster[1]) as api:
        change = {"status": status}
        (await api.patch(f"{ROOT}/llmbackends/a/status", json=change)).raise_for_status()
        before = (await api.get(f"{ROOT}/llmbackends/a")).json()
    async with running(cluster) as second:
        await eventually(lambda: second.context.writer.idle)
        assert await second.get("llmbackends", "a") == before


async def test_a_spec_that_changed_while_no_operator_looked_is_a_new_backend(cluster: Any) -> None:
    async with running(cluster) as first:
        await first.create("qualitypolicies", "QualityPolicy", "p", minReporters=1)
        uid = (await first.backend("a"))["metadata"]["uid"]
        await first.status("a", lambda status: status.get("qualityPolicy") == "p")
        await first.report(uid, requests=30, errors=20)
        await first.status("a", lambda status: status["state"] == "Excluded")
    async with httpx.AsyncClient(base_url=cluster[1]) as api:
        change = {"spec": {"url": "http://127.0.0.1:2"}}
        (await api.patch(f"{ROOT}/llmbackends/a", json=change)).raise_for_status()
    async with running(cluster) as second:
        status = await second.status("a", lambda status: status["state"] == "Active")
        assert (status["verdictGeneration"], status["observedGeneration"]) == (2, 2)
        assert "exclusion" not in status
    async with running(cluster) as third:
        assert third.context.engine.verdict(uid).generation == 2


@pytest.mark.parametrize(
    ("change", "kept", "state"),
    [
        ({"priority": 1}, True, "Excluded"),
        ({"url": "http://127.0.0.1:2"}, True, "Active"),
        ({"priority": 1}, False, "Active"),
    ],
)
async def test_with_a_store_an_unseen_edit_is_told_from_a_new_backend(
    cluster: Any, tmp_path: Path, change: Stored, kept: bool, state: str
) -> None:
    settings = replace(SETTINGS, data_dir=tmp_path) if kept else SETTINGS
    async with running(cluster, settings) as first:
        recovery = {"baseExclusionSeconds": 300, "maxExclusionSeconds": 300}
        await first.create(
            "qualitypolicies", "QualityPolicy", "p", minReporters=1, recovery=recovery
        )
        uid = (await first.backend("a", priority=7))["metadata"]["uid"]
        await first.status("a", lambda status: status.get("qualityPolicy") == "p")
        await first.report(uid, requests=30, errors=20)
        before = await first.status("a", lambda status: status["state"] == "Excluded")
    async with httpx.AsyncClient(base_url=cluster[1]) as api:
        answer = await api.patch(f"{ROOT}/llmbackends/a", json={"spec": change})
        answer.raise_for_status()
    async with running(cluster, settings) as second:
        status = await second.status("a", lambda status: status["observedGeneration"] == 2)
        assert status["state"] == state
        if state == "Excluded":
            assert status["exclusion"] == before["exclusion"]
            assert status["verdictGeneration"] == before["verdictGeneration"]


async def test_replaced_certificates_begin_another_life_of_the_watch(
    cluster: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(cluster) as operator:
        uid = (await operator.backend("a"))["metadata"]["uid"]
        await operator.status("a", lambda status: status["state"] == "Active")
        watches = operator.cluster.watches
        operator.context.kube.connection.replaced()
        await eventually(lambda: operator.cluster.watches == watches + 3)
        await operator.backend("b")
        await operator.status("b", lambda status: status["state"] == "Active")
        await operator.report(uid, requests=3, errors=0)
        assert operator.context.leader.leading
    assert [line for line in caplog.messages if line.startswith("watching again")] == [
        "watching again in 1 s"
    ]


async def test_a_conflict_is_read_again_and_written(cluster: Any) -> None:
    async with running(cluster) as operator:
        await operator.backend("a")
        await operator.status("a", lambda status: status["state"])
        refusals = [409]
        operator.cluster.refuse = lambda path: (
            refusals.pop() if refusals and path.endswith("/a/status") else None
        )
        await operator.change("llmbackends", "a", suspend=True)
        await operator.status("a", lambda status: status["state"] == "Suspended")
        assert operator.conflicts() == 1


async def test_a_deletion_that_no_watch_reported_is_noticed(cluster: Any) -> None:
    async with running(cluster) as operator:
        uid = (await operator.backend("a"))["metadata"]["uid"]
        kept = (await operator.backend("b"))["metadata"]["uid"]
        await operator.status("b", lambda status: status["state"])
        await operator.status("a", lambda status: status["state"])
        key = next(k for k in operator.cluster._objects if k[2] == "a")
        operator.cluster._objects[key].delete()
        await operator.context.rollcall.call()
        assert operator.context.registry.backends.uids() == {kept}
        assert operator.context.engine.backends() == [kept]
        assert uid != kept


async def test_a_deleted_backend_is_forgotten(cluster: Any) -> None:
    async with running(cluster) as operator:
        await operator.backend("a")
        await operator.status("a", lambda status: status["state"])
        (await operator.api.delete(f"{ROOT}/llmbackends/a")).raise_for_status()
        await eventually(lambda: not operator.context.engine.backends())
        page = (await operator.http("GET", "/metrics")).text
        assert "nexus_operator_backends 0.0" in page


async def test_a_generation_of_somebody_else_ends_the_operator(
    cluster: Any, caplog: pytest.LogCaptureFixture
) -> None:
    handler, url = cluster
    credentials = Credentials(server=url, origin="test", namespace="shop")
    contexts: list[Context] = []
    task = asyncio.create_task(
        operate(SETTINGS, find_credentials=lambda: credentials, started=contexts.append)
    )
    await eventually(lambda: contexts and contexts[0].problem is None)
    async with httpx.AsyncClient(base_url=url) as api:
        operator = Running(handler, api, contexts[0])
        await operator.backend("a")
        await operator.status("a", lambda status: status["state"])
        theirs = {"status": {"state": "Active", "verdictGeneration": 7}}
        (await api.patch(f"{ROOT}/llmbackends/a/status", json=theirs)).raise_for_status()
    assert await asyncio.wait_for(task, 10) == 1
    lines = [record.getMessage() for record in caplog.records if record.levelname == "CRITICAL"]
    assert len(lines) == 1
    assert "verdict generation 7 (ours was 0): stepping down" in lines[0]


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (SETTINGS, "ready: 0 backends in all namespaces,"),
        (replace(SETTINGS, all_namespaces=False), "ready: 0 backends in namespace shop,"),
        (
            replace(SETTINGS, all_namespaces=False, namespaces=("shop", "lab")),
            "ready: 0 backends in namespaces shop, lab,",
        ),
    ],
)
async def test_the_line_that_says_ready_says_where(
    cluster: Any, caplog: pytest.LogCaptureFixture, settings: Settings, says: str
) -> None:
    caplog.set_level("INFO")
    watches = 3 * max(1, len(settings.namespaces))
    async with running(cluster, settings, watches=watches):
        assert [m for m in caplog.messages if m.startswith(says)]


async def test_pages_are_served(cluster: Any) -> None:
    async with running(cluster) as operator:
        uid = (await operator.backend("a"))["metadata"]["uid"]
        await operator.backend("b")
        await operator.status("b", lambda status: status["state"])
        await operator.status("a", lambda status: status["state"])
        await operator.report(uid, requests=20, errors=1)
        for path in ("/healthz", "/readyz"):
            assert (await operator.http("GET", path)).status_code == 200
        stats = (await operator.http("GET", "/v1/stats")).json()
        assert stats["requests"] == {"total": 20, "success": 19, "errors": 1}
        one, other = stats["backends"]
        assert (one["id"], one["name"], one["requests"]) == ("shop/a", "a", 20)
        assert (one["error_rate_1h"], one["success_rate_24h"]) == (0.05, 0.95)
        assert not {"error_rate_1h", "avg_ttft_ms", "success_rate_24h"} & set(other)
        page = (await operator.http("GET", "/metrics")).text
        assert 'nexus_agent_error_rate{agent_id="shop/a"} 0.05' in page
        assert 'nexus_agent_error_rate{agent_id="shop/b"}' not in page


async def test_missing_kinds_are_waited_for_with_a_line_that_says_what_to_do(
    cluster: Any, caplog: pytest.LogCaptureFixture
) -> None:
    handler, url = cluster
    handler.refuse = lambda path: 404 if path.startswith(f"/apis/{API_VERSION}") else None
    contexts: list[Context] = []
    credentials = Credentials(server=url, origin="test", namespace="shop")
    task = asyncio.create_task(
        operate(SETTINGS, find_credentials=lambda: credentials, started=contexts.append)
    )
    await eventually(lambda: contexts and "kubectl apply -f crds/" in str(contexts[0].problem))
    async with httpx.AsyncClient() as client:
        address = f"http://127.0.0.1:{contexts[0].server.port}"
        assert (await client.get(f"{address}/healthz")).status_code == 200
        ready = await client.get(f"{address}/readyz")
        refused = await client.post(f"{address}/v1/outcomes")
    assert (ready.status_code, refused.status_code) == (503, 503)
    assert "llmbackends.nexus.dev" in ready.text
    handler.refuse = lambda path: None
    await eventually(lambda: contexts[0].problem is None)
    async with httpx.AsyncClient(base_url=url) as api:
        operator = Running(handler, api, contexts[0])
        await operator.backend("a")
        await operator.status("a", lambda status: status["state"] == "Active")
    contexts[0].ask_to_stop()
    assert await asyncio.wait_for(task, 10) == 0


@pytest.mark.parametrize(
    ("status", "says"),
    [
        (401, "rejects our credentials (401) from test: renew the token"),
        (403, "not allowed to list qualitypolicies.nexus.dev in all namespaces (403)"),
        (500, "does not answer"),
    ],
)
async def test_what_can_heal_is_waited_for(cluster: Any, status: int, says: str) -> None:
    handler, url = cluster
    handler.refuse = lambda path: status if path.endswith("/qualitypolicies") else None
    contexts: list[Context] = []
    credentials = Credentials(server=url, origin="test", namespace="shop")
    task = asyncio.create_task(
        operate(SETTINGS, find_credentials=lambda: credentials, started=contexts.append)
    )
    await eventually(lambda: contexts and says in str(contexts[0].problem))
    started = time.monotonic()
    contexts[0].ask_to_stop()
    assert await asyncio.wait_for(task, 10) == 0
    assert time.monotonic() - started < 5


async def test_a_taken_port_ends_the_operator_with_one_line(
    cluster: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        settings = Settings(all_namespaces=True, host="127.0.0.1", port=port)
        credentials = Credentials(server=cluster[1], origin="test", namespace="shop")
        assert await operate(settings, find_credentials=lambda: credentials) == 1
    (line,) = [record.getMessage() for record in caplog.records if record.levelname == "CRITICAL"]
    assert line.startswith(f"cannot listen on 127.0.0.1:{port}")
    assert "--listen" in line


async def test_a_stop_takes_well_under_five_seconds_and_leaves_no_task(cluster: Any) -> None:
    before = asyncio.all_tasks()
    async with running(cluster) as operator:
        for name in "abc":
            await operator.backend(name)
        await operator.status("c", lambda status: status["state"])
        started = time.monotonic()
    assert time.monotonic() - started < 4
    assert asyncio.all_tasks() - before == set()


async def one_bad_model(operator: Running) -> tuple[str, Counters]:
    """A backend `a` of two models, `bad` of which has failed 30 times."""
    await operator.create("qualitypolicies", "QualityPolicy", "p", minReporters=1)
    models = [{"name": "good"}, {"name": "bad"}]
    uid = (await operator.backend("a", models=models))["metadata"]["uid"]
    await operator.status("a", lambda status: status.get("qualityPolicy") == "p")
    counters = Counters()
    counters.count(uid, model="good", requests=30)
    counters.count(uid, model="bad", requests=30, errors=30)
    answer = await operator.http("POST", "/v1/outcomes", content=counters.full(), token="good")
    assert answer.status_code == 200, answer.text
    return uid, counters


def told_of_bad(status: Stored) -> Stored:
    """What a status says of the model `bad`, {} if nothing."""
    return next((m for m in status.get("modelQuality", []) if m["name"] == "bad"), {})


async def test_a_bad_model_is_excluded_alone_and_said_so_everywhere(cluster: Any) -> None:
    async with running(cluster) as operator:
        await one_bad_model(operator)
        status = await operator.status("a", lambda s: told_of_bad(s).get("state") == "Excluded")
        assert (status["state"], status["verdictGeneration"]) == ("Active", 1)
        assert "exclusion" not in status
        assert status["modelQuality"][0]["name"] == "bad"
        assert status["modelQuality"][0]["errorRate1h"] == "100%"
        reason = told_of_bad(status)["exclusion"]["reason"]
        assert reason.startswith("Model bad: ") and "30 of 30" in reason
        said = {c["type"]: (c["status"], c["message"]) for c in status["conditions"]}
        assert said["WithinPolicy"][0] == said["Ready"][0] == "True"
        assert said["WithinPolicy"][1].endswith("left out: model bad")
        event = (await eventually(lambda: operator.cluster.events))[0]
        assert (event["reason"], event["type"]) == ("Excluded", "Warning")
        assert event["message"].startswith(reason)
        page = (await operator.http("GET", "/v1/stats")).json()
        states = {m["name"]: m["state"] for m in page["backends"][0]["models"]}
        assert states == {"good": "Active", "bad": "Excluded"}
        text = (await operator.http("GET", "/metrics")).text
        turned = [line for line in text.splitlines() if 'transitions_total{row="S1"' in line]
        assert len(turned) == 1
        assert 'rule=""' not in turned[0] and turned[0].endswith('state="Excluded"} 1.0')
        assert 'nexus_operator_backend_models_out{agent_id="shop/a"} 1.0' in text


async def test_a_restarted_operator_keeps_the_verdict_on_a_model(cluster: Any) -> None:
    async with running(cluster) as first:
        uid, _ = await one_bad_model(first)
        before = await first.status("a", lambda s: told_of_bad(s).get("state") == "Excluded")
    async with running(cluster) as second:
        verdicts = second.context.engine.verdicts(uid)
        assert (verdicts.generation, verdicts.out) == (1, {"bad"})
        await eventually(lambda: second.context.writer.idle)
        after = (await second.get("llmbackends", "a"))["status"]
        assert told_of_bad(after) == told_of_bad(before)
        await second.change("qualitypolicies", "p", errorRateThreshold="100%")
        released = await second.status("a", lambda s: told_of_bad(s).get("state") == "Active")
        assert released["verdictGeneration"] == 2
        assert "recoveredTime" in told_of_bad(released)["exclusion"]
