"""Status writes: what is sent, and what follows from each answer."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from nexus_api import LLMBackend, LLMBackendStatus
from nexus_api.meta import BACKEND_PLURAL
from nexus_operator import events
from nexus_operator import writer as module
from nexus_operator.credentials import Credentials
from nexus_operator.kube import Kube
from nexus_operator.metrics import Metrics
from nexus_operator.notes import Note
from nexus_operator.plan import Key, Plan
from nexus_operator.writer import Writer

KEY = Key(BACKEND_PLURAL, "uid-a")
PATH = "/apis/nexus.dev/v1alpha1/namespaces/shop/llmbackends/a"
Build = Callable[..., LLMBackend]
Answer = httpx.Response | Exception


@dataclass
class Api:
    """Answers PATCHes from a list (the last one for ever) and GETs with an object."""

    answers: list[Answer] = field(default_factory=list)
    stored: Answer = field(default_factory=lambda: httpx.Response(404, json={}))
    sent: list[httpx.Request] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/events"):
            self.events.append(json.loads(request.content))
            return httpx.Response(201, json={})
        self.sent.append(request)
        if request.method == "GET":
            answer: Answer = self.stored
        else:
            answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    @property
    def patches(self) -> list[dict[str, Any]]:
        return [json.loads(r.content) for r in self.sent if r.method == "PATCH"]


@dataclass
class Planner:
    """Wants the statuses of a list, one after the other, until each was accepted."""

    backend: LLMBackend
    wanted: list[LLMBackendStatus]
    accepted: list[Mapping[str, Any]] = field(default_factory=list)
    again: list[Mapping[str, Any] | None] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)

    def plan(self, key: Key) -> Plan | None:
        if not self.wanted:
            return None
        metadata, status = self.backend.metadata, self.wanted[0]
        return Plan(metadata=metadata, status=status, accepted=self._accept)

    def _accept(self, stored: Mapping[str, Any]) -> list[Note]:
        self.wanted.pop(0)
        self.accepted.append(stored)
        return self.notes

    def reread(self, key: Key, stored: Mapping[str, Any] | None) -> None:
        self.again.append(stored)
        if stored is None:
            self.wanted.clear()


@asynccontextmanager
async def running(api: Any, planner: Planner) -> AsyncIterator[tuple[Writer, Metrics]]:
    credentials = Credentials(server="http://api", origin="test", namespace="default")
    kube = Kube(credentials, transport=httpx.MockTransport(api))
    metrics = Metrics(lambda: ())
    writer = Writer(
        kube=kube, planner=planner, metrics=metrics, clock=lambda: 1e9, random=lambda: 0.0
    )
    task = asyncio.create_task(writer.run())
    try:
        yield writer, metrics
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await kube.close()


async def eventually(holds: Callable[[], object]) -> None:
    for _ in range(5000):
        if holds():
            return
        await asyncio.sleep(0.001)
    raise AssertionError("it did not happen within 5 s")


async def settled(writer: Writer) -> None:
    await eventually(lambda: writer.idle)


def ok(version: str = "2") -> httpx.Response:
    return httpx.Response(200, json={"metadata": {"resourceVersion": version}})


def count(metrics: Metrics, result: str) -> float:
    labels = {"kind": "LLMBackend", "result": result}
    name = "nexus_operator_status_writes_total"
    return metrics.registry.get_sample_value(name, labels) or 0.0


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BACKOFF_SECONDS", (0.001,))


def status(generation: int) -> LLMBackendStatus:
    return LLMBackendStatus(verdict_generation=generation)


async def test_a_write_is_an_apply_of_status_with_uid_and_version(backend: Build) -> None:
    api, planner = Api([ok()]), Planner(backend(), [status(1)])
    async with running(api, planner) as (writer, metrics):
        writer.mark(KEY)
        await settled(writer)
    (request,) = api.sent
    assert (request.method, request.url.path) == ("PATCH", f"{PATH}/status")
    assert dict(request.url.params) == {"fieldManager": "nexus-operator", "force": "true"}
    assert request.headers["content-type"] == "application/apply-patch+yaml"
    assert api.patches == [
        {
            "apiVersion": "nexus.dev/v1alpha1",
            "kind": "LLMBackend",
            "metadata": {
                "namespace": "shop",
                "name": "a",
                "uid": "uid-a",
                "resourceVersion": "1",
            },
            "status": {"verdictGeneration": 1},
        }
    ]
    assert planner.accepted == [{"metadata": {"resourceVersion": "2"}}]
    assert count(metrics, "written") == 1


async def test_nothing_is_sent_when_nothing_is_wanted(backend: Build) -> None:
    api, planner = Api([ok()]), Planner(backend(), [])
    async with running(api, planner) as (writer, _):
        writer.mark(KEY)
        await settled(writer)
    assert not api.sent


async def test_two_transitions_are_two_writes_in_order(backend: Build) -> None:
    api, planner = Api([ok()]), Planner(backend(), [status(1), status(2)])
    async with running(api, planner) as (writer, _):
        writer.mark(KEY)
        await settled(writer)
    assert [patch["status"]["verdictGeneration"] for patch in api.patches] == [1, 2]


async def test_a_conflict_is_read_again_and_then_written(backend: Build) -> None:
    stored = {"metadata": {"uid": "uid-a", "resourceVersion": "7"}}
    api = Api([httpx.Response(409, json={}), ok()], httpx.Response(200, json=stored))
    planner = Planner(backend(), [status(1)])
    async with running(api, planner) as (writer, metrics):
        writer.mark(KEY)
        await settled(writer)
    assert [request.method for request in api.sent] == ["PATCH", "GET", "PATCH"]
    assert planner.again == [stored]
    assert len(planner.accepted) == 1
    assert (count(metrics, "conflict"), count(metrics, "written")) == (1, 1)


async def test_conflicts_without_an_end_are_no_storm(
    backend: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BACKOFF_SECONDS", (60.0,))
    stored = {"metadata": {"uid": "uid-a", "resourceVersion": "7"}}
    api = Api([httpx.Response(409, json={})], httpx.Response(200, json=stored))
    async with running(api, Planner(backend(), [status(1)])) as (writer, metrics):
        writer.mark(KEY)
        await eventually(lambda: count(metrics, "conflict") >= 2)
        for _ in range(50):
            await asyncio.sleep(0.001)
        assert count(metrics, "conflict") == 2


async def test_an_event_that_nobody_answers_holds_up_no_status(
    backend: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "ANSWER_SECONDS", 0.01)
    api, posted = Api([ok()]), asyncio.Event()

    async def silent(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/events"):
            posted.set()
            await asyncio.Event().wait()
        return api(request)

    planner = Planner(backend(), [status(1), status(2)], notes=[Note("Excluded", "8 of 10")])
    async with running(silent, planner) as (writer, metrics):
        writer.mark(KEY)
        await eventually(lambda: len(api.patches) == 2)
        await settled(writer)
    assert posted.is_set()
    labels = {"result": "failed"}
    assert metrics.registry.get_sample_value("nexus_operator_events_total", labels) == 2


@pytest.mark.parametrize(
    "stored",
    [
        httpx.Response(404, json={}),
        httpx.Response(200, json={"metadata": {"uid": "a namesake", "resourceVersion": "7"}}),
    ],
)
async def test_an_object_that_is_gone_or_another_one_by_now_is_forgotten(
    backend: Build, stored: httpx.Response
) -> None:
    api = Api([httpx.Response(409, json={})], stored)
    planner = Planner(backend(), [status(1)])
    async with running(api, planner) as (writer, _):
        writer.mark(KEY)
        await settled(writer)
    assert planner.again == [None]
    assert len(api.patches) == 1


@pytest.mark.parametrize(
    "trouble",
    [
        httpx.ConnectError("refused"),
        httpx.ReadTimeout(""),
        httpx.Response(500, json={}),
        httpx.Response(429, json={}),
        httpx.Response(403, json={}),
    ],
)
async def test_what_can_heal_is_tried_again_with_the_latest_status(
    backend: Build, trouble: Answer
) -> None:
    api, planner = Api([trouble, trouble, ok()]), Planner(backend(), [status(1)])
    async with running(api, planner) as (writer, metrics):
        writer.mark(KEY)
        await eventually(lambda: api.patches)
        planner.wanted[0] = status(9)
        await settled(writer)
    assert len(planner.accepted) == 1
    assert api.patches[-1]["status"] == {"verdictGeneration": 9}
    assert count(metrics, "written") == 1


async def test_silence_is_called_so_in_the_log(
    backend: Build, caplog: pytest.LogCaptureFixture
) -> None:
    api, planner = Api([httpx.ReadTimeout(""), ok()]), Planner(backend(), [status(1)])
    async with running(api, planner) as (writer, _):
        writer.mark(KEY)
        await settled(writer)
    assert "status of a not written: no answer" in caplog.messages


async def test_a_status_that_is_invalid_is_not_sent_again_until_another_is_wanted(
    backend: Build,
) -> None:
    api = Api([httpx.Response(422, json={"message": "no"}), ok()])
    planner = Planner(backend(), [status(1)])
    async with running(api, planner) as (writer, metrics):
        writer.mark(KEY)
        await settled(writer)
        assert len(api.patches) == 1
        writer.mark(KEY)
        await settled(writer)
    assert (count(metrics, "invalid"), count(metrics, "written")) == (1, 1)


async def test_events_follow_an_accepted_write_alone(backend: Build) -> None:
    api = Api([httpx.Response(500, json={}), ok()])
    planner = Planner(backend(), [status(1)], notes=[Note("Excluded", "8 of 10 failed")])
    async with running(api, planner) as (writer, _):
        writer.mark(KEY)
        await settled(writer)
    (event,) = api.events
    assert (event["type"], event["reason"], event["message"]) == (
        "Warning",
        "Excluded",
        "8 of 10 failed",
    )
    assert event["involvedObject"]["uid"] == "uid-a"
    assert event["metadata"]["namespace"] == "shop"


async def test_one_object_in_trouble_delays_no_other(backend: Build) -> None:
    slow = asyncio.Event()

    async def serve(request: httpx.Request) -> httpx.Response:
        if json.loads(request.content)["metadata"]["name"] == "slow":
            await slow.wait()
        return ok()

    fast, stuck = Planner(backend("a"), [status(1)]), Planner(backend("slow"), [status(1)])

    class Both(Planner):
        def plan(self, key: Key) -> Plan | None:
            return (stuck if key.uid == "uid-slow" else fast).plan(key)

    credentials = Credentials(server="http://api", origin="test", namespace="default")
    kube = Kube(credentials, transport=httpx.MockTransport(serve))
    writer = Writer(
        kube=kube,
        planner=Both(backend(), []),
        metrics=Metrics(lambda: ()),
        clock=lambda: 1e9,
        random=lambda: 0.0,
    )
    task = asyncio.create_task(writer.run())
    writer.mark(Key(BACKEND_PLURAL, "uid-slow"))
    writer.mark(KEY)
    await eventually(lambda: fast.accepted)
    assert not stuck.accepted
    slow.set()
    await settled(writer)
    assert stuck.accepted
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await kube.close()


async def test_a_stop_lets_a_write_in_flight_finish(backend: Build) -> None:
    begun, go = asyncio.Event(), asyncio.Event()

    async def serve(request: httpx.Request) -> httpx.Response:
        begun.set()
        await go.wait()
        return ok()

    planner = Planner(backend(), [status(1)])
    credentials = Credentials(server="http://api", origin="test", namespace="default")
    kube = Kube(credentials, transport=httpx.MockTransport(serve))
    writer = Writer(
        kube=kube,
        planner=planner,
        metrics=Metrics(lambda: ()),
        clock=lambda: 1e9,
        random=lambda: 0.0,
    )
    task = asyncio.create_task(writer.run())
    writer.mark(KEY)
    async with asyncio.timeout(5):
        await begun.wait()
    task.cancel()
    asyncio.get_running_loop().call_later(0.01, go.set)
    await asyncio.gather(task, return_exceptions=True)
    assert len(planner.accepted) == 1
    await kube.close()
