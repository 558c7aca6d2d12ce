"""What a probe finds, and when backends are probed."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from nexus_api import ConditionStatus, LLMBackend, LLMBackendSpec
from nexus_operator.metrics import Metrics
from nexus_operator.probe import Answer, Doorbell
from nexus_operator.prober import CONCURRENCY, Prober

Build = Callable[..., LLMBackend]
MODELS = {"data": [{"id": "m1"}, {"id": "m2"}]}
KEY = {"secretRef": {"name": "s", "key": "k"}}


class Server:
    """Answers by path; remembers what was asked."""

    def __init__(self, **pages: httpx.Response | Exception) -> None:
        self.pages = {path.replace("_", "/"): page for path, page in pages.items()}
        self.asked: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        page = self.pages.get(request.url.path, httpx.Response(404))
        if isinstance(page, Exception):
            raise page
        return page


async def ring(server: Server, spec: LLMBackendSpec) -> Answer:
    doorbell = Doorbell(transport=httpx.MockTransport(server))
    try:
        return await doorbell.ring("shop", spec)
    finally:
        await doorbell.close()


async def test_health_and_models_are_asked_for_by_type(backend: Build) -> None:
    server = Server(_health=httpx.Response(200), _v1_models=httpx.Response(200, json=MODELS))
    answer = await ring(server, backend(type="vllm").spec)
    assert (answer.ok, answer.reason) == (True, "ProbeSucceeded")
    assert [model.name for model in answer.models or ()] == ["m1", "m2"]
    assert [request.url.path for request in server.asked] == ["/health", "/v1/models"]
    assert answer.latency_ms is not None and answer.latency_ms >= 1


async def test_the_model_list_is_asked_for_once_where_it_is_the_health_page(
    backend: Build,
) -> None:
    server = Server(_v1_models=httpx.Response(200, json=MODELS))
    answer = await ring(server, backend(type="generic").spec)
    assert len(server.asked) == 1
    assert answer.models is not None and len(answer.models) == 2


async def test_configured_models_are_not_discovered(backend: Build) -> None:
    server = Server(_health=httpx.Response(200))
    answer = await ring(server, backend(models=[{"name": "mine"}]).spec)
    assert (answer.ok, answer.models, len(server.asked)) == (True, None, 1)


@pytest.mark.parametrize(
    "page", [httpx.Response(500), httpx.Response(200, text="<html>"), httpx.Response(401)]
)
async def test_a_backend_that_does_not_list_its_models_is_alive_and_keeps_them(
    backend: Build, page: httpx.Response
) -> None:
    server = Server(_health=httpx.Response(200), _v1_models=page)
    answer = await ring(server, backend().spec)
    assert (answer.ok, answer.models) == (True, None)


GZIP = {"content-encoding": "gzip"}


@pytest.mark.parametrize(
    ("page", "why"),
    [
        (httpx.Response(500), "GET /v1/models answers 500"),
        (httpx.Response(200, text="<html>"), "no list of models: "),
        (httpx.Response(200, text="[" * 100_000), "no list of models: "),
        (
            httpx.Response(200, content=b"x" * (4 * 1024 * 1024 + 1)),
            "GET /v1/models: the answer is longer than 4194304 bytes",
        ),
        # Unpacked it could be anything, and it was not asked for.
        (httpx.Response(200, content=gzip.compress(b"{}"), headers=GZIP), "no list of models: "),
        (httpx.ReadTimeout("slow"), "GET /v1/models: slow"),
        (TimeoutError(), "GET /v1/models: no answer within 5 s"),
    ],
)
async def test_a_list_that_is_slow_or_huge_or_garbage_is_no_sign_of_death(
    backend: Build, page: httpx.Response | Exception, why: str
) -> None:
    server = Server(_health=httpx.Response(200), _v1_models=page)
    answer = await ring(server, backend().spec)
    assert (answer.ok, answer.reason, answer.models) == (True, "ProbeSucceeded", None)
    assert answer.message.startswith("GET /health answers 200; its models are unknown (" + why)
    assert answer.message.endswith("): write spec.models")


TYPES = {
    "vllm": ["/health", "/v1/models"],
    "ollama": ["/api/version", "/v1/models"],
    "llamacpp": ["/health", "/v1/models"],
    "lmstudio": ["/v1/models"],
    "exo": ["/v1/models"],
    "openai": ["/v1/models"],
    "anthropic": ["/v1/models"],
    "google": ["/v1beta/openai/models"],
    "generic": ["/v1/models"],
}


@pytest.mark.parametrize(("kind", "paths"), TYPES.items())
async def test_each_type_is_asked_for_what_costs_nothing(
    backend: Build, kind: str, paths: list[str]
) -> None:
    asked: list[httpx.Request] = []

    def serve(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return httpx.Response(200, json=MODELS)

    doorbell = Doorbell(transport=httpx.MockTransport(serve))
    answer = await doorbell.ring("shop", backend(type=kind).spec)
    await doorbell.close()
    assert answer.ok and answer.models
    assert [request.url.path for request in asked] == paths
    assert {request.method for request in asked} == {"GET"}
    assert all(not request.content for request in asked)


@pytest.mark.parametrize("status", [401, 403])
async def test_a_backend_that_wants_its_key_is_alive(backend: Build, status: int) -> None:
    server = Server(_v1_models=httpx.Response(status))
    answer = await ring(server, backend(type="openai", auth=KEY).spec)
    assert (answer.ok, answer.reason, answer.models) == (True, "AliveUnauthenticated", None)
    assert "authorization" not in server.asked[0].headers


@pytest.mark.parametrize(
    ("page", "says"),
    [
        (httpx.Response(503), "GET /health answers 503"),
        (httpx.Response(401), "it wants credentials, give it spec.auth"),
        (httpx.Response(404), "set spec.healthCheck.path"),
        (httpx.Response(302, headers={"location": "/x"}), "write the final address in spec.url"),
        (httpx.ConnectError("Connection refused"), "Connection refused"),
        (httpx.ReadError(""), "ReadError"),
        (httpx.Response(200, content=b"x" * (4 * 1024 * 1024 + 1)), "longer than"),
    ],
)
async def test_what_is_wrong_is_said_in_one_line(
    backend: Build, page: httpx.Response | Exception, says: str
) -> None:
    answer = await ring(Server(_health=page), backend().spec)
    assert (answer.ok, answer.reason) == (False, "ProbeFailed")
    assert says in answer.message
    assert "\n" not in answer.message


async def test_a_probe_ends_with_its_timeout(backend: Build) -> None:
    async def hang(request: httpx.Request) -> httpx.Response:
        raise TimeoutError

    doorbell = Doorbell(transport=httpx.MockTransport(hang))
    answer = await doorbell.ring("shop", backend(healthCheck={"timeoutSeconds": 7}).spec)
    await doorbell.close()
    assert (answer.ok, answer.message) == (False, "GET /health: no answer within 7 s")


GOOD = Answer(ok=True, reason="ProbeSucceeded", message="200", latency_ms=5)
BAD = Answer(ok=False, reason="ProbeFailed", message="503")


class Rounds:
    """A prober with a clock of its own, whose backends answer from a script."""

    def __init__(self, *script: Answer) -> None:
        self.now = 1000.0
        self.script = list(script) or [GOOD]
        self.rung: list[float] = []
        self.turned: list[str] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.active = self.most = 0
        self.prober = Prober(
            ring=self.ring,
            clock=lambda: self.now,
            random=lambda: 0.5,
            turned=self.turned.append,
            metrics=Metrics(lambda: ()),
        )

    async def ring(self, namespace: str, spec: LLMBackendSpec) -> Answer:
        assert namespace == "shop"
        self.rung.append(self.now)
        self.active += 1
        self.most = max(self.most, self.active)
        try:
            await self.gate.wait()
        finally:
            self.active -= 1
        return self.script.pop(0) if len(self.script) > 1 else self.script[0]

    async def to(self, now: float) -> None:
        """Lets time pass until `now`, and everything due happen."""
        self.now = now
        self.prober._wake.set()
        for _ in range(50):
            await asyncio.sleep(0)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Rounds]:
        task = asyncio.create_task(self.prober.run())
        try:
            yield self
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def health(self, uid: str = "uid-a") -> tuple[str, str]:
        health = self.prober.findings(uid).health
        return str(health.status), health.reason


async def test_a_new_backend_is_probed_at_once_and_then_each_period(backend: Build) -> None:
    async with Rounds().running() as rounds:
        rounds.prober.see(backend())
        assert rounds.health() == ("Unknown", "AwaitingFirstProbe")
        await rounds.to(1000.0)
        assert rounds.health() == ("True", "ProbeSucceeded")
        await rounds.to(1029.9)
        assert rounds.rung == [1000.0]
        await rounds.to(1030.0)
        assert rounds.rung == [1000.0, 1030.0]


async def test_a_backend_that_never_answered_is_asked_again_soon_and_that_counts_once(
    backend: Build,
) -> None:
    async with Rounds(BAD, BAD, BAD, BAD, BAD, GOOD).running() as rounds:
        rounds.prober.see(backend())
        for now in (1000.0, 1000.9, 1001.0, 1003.0, 1007.0, 1014.9):
            await rounds.to(now)
        assert rounds.rung == [1000.0, 1001.0, 1003.0, 1007.0]
        assert rounds.prober.findings("uid-a").health.failures == 1
        await rounds.to(1015.0)
        assert rounds.prober.findings("uid-a").health.failures == 2
        await rounds.to(1044.9)
        assert len(rounds.rung) == 5
        await rounds.to(1045.0)
        assert rounds.health() == ("True", "ProbeSucceeded")


async def test_one_that_answered_before_is_asked_at_its_period_when_it_fails(
    backend: Build,
) -> None:
    async with Rounds(GOOD, BAD).running() as rounds:
        rounds.prober.see(backend())
        for now in (1000.0, 1030.0, 1031.0, 1038.0):
            await rounds.to(now)
        assert rounds.rung == [1000.0, 1030.0]


async def test_health_turns_at_its_thresholds_and_is_looked_at_while_it_is_bad(
    backend: Build,
) -> None:
    check = {"periodSeconds": 10, "failureThreshold": 2, "successThreshold": 2}
    script = [GOOD, BAD, BAD, BAD, GOOD, GOOD]
    seen = []
    async with Rounds(*script).running() as rounds:
        rounds.prober.see(backend(healthCheck=check))
        for step in range(len(script)):
            await rounds.to(1000.0 + 10 * step)
            seen.append(rounds.health()[0])
        assert seen == ["True", "True", "False", "False", "False", "True"]
        # The first good one, the two at which it is out, the one that is not enough, the last.
        assert rounds.turned == ["uid-a"] * 5


async def test_an_unchanged_backend_is_not_probed_out_of_turn(backend: Build) -> None:
    async with Rounds().running() as rounds:
        rounds.prober.see(backend())
        await rounds.to(1000.0)
        rounds.prober.see(backend(status={"state": "Active"}, priority=7))
        await rounds.to(1001.0)
        assert rounds.rung == [1000.0]


async def test_a_new_address_is_probed_at_once_and_its_health_unknown(backend: Build) -> None:
    async with Rounds().running() as rounds:
        rounds.prober.see(backend())
        await rounds.to(1000.0)
        rounds.prober.see(backend(url="http://elsewhere"))
        assert rounds.health() == ("Unknown", "AwaitingFirstProbe")
        await rounds.to(1001.0)
        assert rounds.rung == [1000.0, 1001.0]


async def test_an_answer_about_an_old_address_counts_for_nothing(backend: Build) -> None:
    async with Rounds(BAD, GOOD).running() as rounds:
        rounds.gate.clear()
        rounds.prober.see(backend(healthCheck={"failureThreshold": 1}))
        await rounds.to(1000.0)
        rounds.prober.see(backend(url="http://elsewhere", healthCheck={"failureThreshold": 1}))
        rounds.gate.set()
        await rounds.to(1000.1)
        assert rounds.health() == ("True", "ProbeSucceeded")


async def test_a_backend_without_probing_is_left_alone(backend: Build) -> None:
    async with Rounds().running() as rounds:
        rounds.prober.see(backend())
        await rounds.to(1000.0)
        rounds.prober.see(backend(healthCheck={"enabled": False}))
        await rounds.to(2000.0)
        assert rounds.rung == [1000.0]
        assert rounds.health() == ("Unknown", "ProbingDisabled")
        rounds.prober.see(backend())
        await rounds.to(2001.0)
        assert rounds.rung == [1000.0, 2001.0]


async def test_a_deleted_backend_is_probed_no_more(backend: Build) -> None:
    async with Rounds().running() as rounds:
        rounds.prober.see(backend())
        await rounds.to(1000.0)
        rounds.prober.forget("uid-a")
        await rounds.to(2000.0)
        assert rounds.rung == [1000.0]


async def test_probes_in_flight_are_bounded(backend: Build) -> None:
    async with Rounds().running() as rounds:
        rounds.gate.clear()
        for number in range(3 * CONCURRENCY):
            rounds.prober.see(backend(f"b{number}"))
        await rounds.to(1000.0)
        assert rounds.active == CONCURRENCY
        rounds.gate.set()
        await rounds.to(1000.0)
        assert (len(rounds.rung), rounds.most) == (3 * CONCURRENCY, CONCURRENCY)


def test_a_restarted_operator_remembers_health_and_models(backend: Build) -> None:
    healthy: dict[str, Any] = {
        "type": "Healthy",
        "status": "False",
        "reason": "ProbeFailed",
        "message": "503",
        "lastTransitionTime": "2026-11-24T00:00:00Z",
    }
    status = {
        "conditions": [healthy],
        "models": [{"name": "m"}],
        "probeLatencyMilliseconds": 12,
    }
    rounds = Prober(
        ring=Rounds().ring,
        clock=lambda: 0.0,
        random=lambda: 0.5,
        turned=lambda uid: None,
        metrics=Metrics(lambda: ()),
    )
    rounds.see(backend(status=status))
    findings = rounds.findings("uid-a")
    assert (findings.health.status, findings.health.latency_ms) == (ConditionStatus.FALSE, 12)
    assert [model.name for model in findings.models] == ["m"]
