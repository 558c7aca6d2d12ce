"""The administrative paths over a real loopback socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from nexus_api import Quality
from nexus_proxy.admin.metrics import ProxyCollector
from nexus_proxy.admin.routes import AdminRoutes
from nexus_proxy.admin.server import AdminRequest, AdminServer
from nexus_proxy.admin.stats import stats
from nexus_quality.outcome import Outcome

MODELS = [{"name": "m"}]
LACKING = "waiting for the first list of llmbackends"


class Admin:
    """A started admin server over wired parts."""

    def __init__(self, wired: Any) -> None:
        self.wired = wired
        self.quality: dict[str, Quality] = {}
        registry = CollectorRegistry(auto_describe=False)
        registry.register(ProxyCollector(wired.router.counters, wired.router))
        self.routes = AdminRoutes(
            router=wired.router,
            registry=registry,
            stats=self._stats,
            clock=lambda: wired.now,
            waits_for=lambda: "" if wired.router.ready else LACKING,
        )
        self.server = AdminServer(self.routes.answer)
        self.client = httpx.AsyncClient()

    def _stats(self) -> dict[str, Any]:
        router = self.wired.router
        return stats(router.table, router.counters, self.quality.get, uptime_seconds=60.4)

    async def get(self, path: str) -> httpx.Response:
        return await self.client.get(f"http://127.0.0.1:{self.server.port}{path}")

    async def post(self, path: str, body: bytes) -> httpx.Response:
        return await self.client.post(f"http://127.0.0.1:{self.server.port}{path}", content=body)

    async def metrics(self) -> dict[tuple[str, ...], float]:
        text = (await self.get("/metrics")).text
        return {
            (sample.name, *sorted(sample.labels.values())): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }


@pytest.fixture
async def admin(wired: Any) -> AsyncIterator[Admin]:
    started = Admin(wired)
    await started.server.start("127.0.0.1", 0)
    yield started
    await started.client.aclose()
    await started.server.close()


async def test_ready_follows_the_first_table_and_draining(admin: Admin) -> None:
    assert (await admin.get("/healthz")).status_code == 200
    waiting = await admin.get("/readyz")
    assert (waiting.status_code, waiting.text) == (
        503,
        f"{LACKING}\n",
    )
    admin.wired.apply()
    assert (await admin.get("/readyz")).status_code == 200
    admin.routes.draining = True
    assert (await admin.get("/readyz")).text == "draining\n"
    assert (await admin.get("/healthz")).status_code == 200


async def test_stats_have_the_seeds_shape_and_omit_what_has_no_data(admin: Admin) -> None:
    admin.wired.put("LLMBackend", "busy", spec={"models": MODELS})
    admin.wired.put("LLMBackend", "idle")
    admin.wired.apply()
    busy = admin.wired.router.table.backends["uid-busy"]
    busy.in_flight += 1
    busy.observe_latency(45.04)
    admin.quality["uid-busy"] = Quality(
        error_rate_1h="5%", avg_ttft_milliseconds=250, success_rate_24h="98%"
    )
    admin.wired.router.counters.request("/v1/chat/completions", 200)
    admin.wired.router.counters.request("/v1/chat/completions", 503)
    assert (await admin.get("/v1/stats")).json() == {
        "uptime_seconds": 60,
        "requests": {"total": 2, "success": 1, "errors": 1},
        "backends": [
            {
                "id": "team/busy",
                "name": "busy",
                "requests": 1,
                "average_latency_ms": 45.0,
                "pending": 1,
                "error_rate_1h": 0.05,
                "avg_ttft_ms": 250,
                "success_rate_24h": 0.98,
            },
            {"id": "team/idle", "name": "idle", "requests": 0},
        ],
    }


async def test_explain_answers_a_request_body_with_the_decision(admin: Admin) -> None:
    admin.wired.put("LLMBackend", "b", spec={"models": MODELS})
    admin.wired.apply()
    told = (await admin.post("/v1/explain", b'{"model":"m","messages":[]}')).json()
    assert told["decision"] == "Route"
    assert told["legs"][0]["candidates"][0]["score"] == 75
    assert (await admin.post("/v1/explain", b'{"model":"x"}')).json()["decision"] == "Reject"
    refused = await admin.post("/v1/explain", b"{")
    assert (refused.status_code, "JSON object" in refused.text) == (400, True)


async def test_metrics_are_plain_counters_read_at_scrape_time(admin: Admin) -> None:
    admin.wired.put("LLMBackend", "b", spec={"models": MODELS})
    admin.wired.apply()
    counters = admin.wired.router.counters
    counters.request("/v1/chat/completions", 200)
    counters.retries += 3
    counters.attempts["success"] = 2
    seen = await admin.metrics()
    assert seen["nexus_proxy_requests_total", "/v1/chat/completions", "200"] == 1
    assert seen["nexus_proxy_retries_total",] == 3
    assert seen["nexus_proxy_attempts_total", "success"] == 2
    assert seen["nexus_proxy_ready",] == 1
    assert seen["nexus_proxy_backend_standing", "admitted", "team/b"] == 1
    subject = admin.wired.router.table.candidates["m"][0].subject
    for _ in range(9):
        subject.begin(admin.wired.now).end(Outcome.SERVER_ERROR, admin.wired.now)
    seen = await admin.metrics()
    assert seen["nexus_proxy_backend_standing", "out", "team/b"] == 1


WRONG = [("GET", "/", 404), ("POST", "/healthz", 405), ("GET", "/v1/explain", 405)]


@pytest.mark.parametrize(("method", "path", "status"), WRONG)
async def test_wrong_paths_and_methods_are_told(
    admin: Admin, method: str, path: str, status: int
) -> None:
    url = f"http://127.0.0.1:{admin.server.port}{path}"
    answer = await admin.client.request(method, url)
    assert (answer.status_code, "message" in answer.json()["error"]) == (status, True)


@pytest.mark.parametrize("path", ["/v1/stats", "/v1/explain"])
def test_what_tells_the_backends_answers_loopback_only(wired: Any, path: str) -> None:
    admin = Admin(wired)
    method = "GET" if path == "/v1/stats" else "POST"
    request = AdminRequest(method, path, b'{"model":"m"}', local=False)
    assert admin.routes.answer(request).status == 403
    assert admin.routes.answer(AdminRequest("GET", "/healthz", b"", local=False)).status == 200


async def test_a_malformed_request_is_answered_and_the_connection_ends(admin: Admin) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", admin.server.port)
    writer.write(b"NONSENSE\r\n\r\n")
    answer = await asyncio.wait_for(reader.read(), 5)
    writer.close()
    await writer.wait_closed()
    assert answer.startswith(b"HTTP/1.1 400 ")


async def test_a_body_beyond_the_limit_is_refused(admin: Admin) -> None:
    answer = await admin.post("/v1/explain", b"x" * (1024 * 1024 + 1))
    assert answer.status_code == 413
