"""Requests that wait for a place: with the real router and queue, between scripted peers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from nexus_api import Queue as QueueSpec
from nexus_devtools.rawhttp.messages import (
    DONE,
    STREAM_BODY,
    Message,
    answer,
    event,
    post,
    stream,
)
from nexus_devtools.rawhttp.peers import Peer, Script, Upstream, says, until
from nexus_devtools.rawhttp.stage import Stage
from nexus_proxy.routing.queue import Queue
from nexus_proxy.routing.router import Router
from nexus_proxy.routing.rules import Rules
from nexus_proxy.routing.table import Table
from nexus_quality.monitor import Monitor

STREAM = stream(event("a"), event(finish="stop"), DONE)


class Gate:
    """A backend's script that answers when it is told to."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._open = asyncio.Semaphore(0)

    def let_through(self, number: int = 1) -> None:
        for _ in range(number):
            self._open.release()

    async def __call__(self, peer: Peer, _request: Message) -> None:
        await self._open.acquire()
        await peer.send(self._data)


@pytest.fixture
def routed(stage: Stage) -> Callable[..., Queue]:
    """Puts the real router and queue in charge of the backends there are."""

    def install(*, limit: int | None = 1, **queue: Any) -> Queue:
        router = Router(counters=stage.counters)
        candidates = tuple(choice.candidate for choice in stage.router.choices)
        monitor = Monitor(
            incarnation="ab" * 16,
            started=stage.clock(),
            random=lambda: 0.5,
            on_change=router.invalidate,
            on_urgent=lambda _seconds: None,
        )
        for candidate in candidates:
            candidate.subject = monitor.subject(candidate.backend.uid, "m")
            candidate.backend.max_concurrency = limit
            candidate.backend._changed = router.journal.changed
        rules = Rules(queue=QueueSpec(**queue))
        router.install(
            Table({"m": candidates}, {c.backend.uid: c.backend for c in candidates}, rules)
        )
        made = Queue(
            router,
            clock=stage.clock,
            later=asyncio.get_running_loop().call_later,
            counters=stage.counters.queue,
        )
        router.woken = made.stir
        stage.gateway.router, stage.gateway.queue = router, made
        return made

    return install


async def _backend(stage: Stage, script: Script) -> Upstream:
    return await stage.backend(*[script] * 50)


async def test_more_requests_than_places_are_all_served_in_turn(stage: Stage, routed: Any) -> None:
    gate = Gate(answer(b"{}"))
    upstream = await _backend(stage, gate)
    queue = routed(limit=2)
    asked = [asyncio.create_task(stage.ask(post())) for _ in range(10)]
    await until(lambda: queue.depth == 8)
    assert len(upstream.requests) == 2
    gate.let_through(10)
    assert [(await each).status for each in asked] == [200] * 10
    assert stage.counters.queue.outcomes == {"served": 8}
    assert stage.counters.attempts == {"success": 10}


async def test_streams_wait_like_any_other(stage: Stage, routed: Any) -> None:
    gate = Gate(STREAM)
    await _backend(stage, gate)
    queue = routed()
    asked = [asyncio.create_task(stage.ask(post(STREAM_BODY))) for _ in range(3)]
    await until(lambda: queue.depth == 2)
    gate.let_through(3)
    for each in asked:
        message = await each
        assert (message.status, message.body.endswith(b"data: [DONE]\n\n")) == (200, True)


async def test_the_header_decides_who_goes_first(stage: Stage, routed: Any) -> None:
    gate = Gate(answer(b"{}"))
    await _backend(stage, gate)
    queue = routed()
    first = asyncio.create_task(stage.ask(post()))
    await until(lambda: stage.backend_of().in_flight)
    normal = asyncio.create_task(stage.ask(post()))
    await until(lambda: queue.depth == 1)
    high = asyncio.create_task(stage.ask(post(more=b"X-Nexus-Priority: high\r\n")))
    await until(lambda: queue.depth == 2)
    gate.let_through(2)
    await first
    await high
    assert not normal.done()
    gate.let_through()
    await normal


@pytest.mark.parametrize("how", ["reset", "close", "half-close"])
async def test_a_waiting_client_that_leaves_is_forgotten_at_once(
    stage: Stage, routed: Any, how: str
) -> None:
    gate = Gate(answer(b"{}"))
    upstream = await _backend(stage, gate)
    queue = routed()
    running = asyncio.create_task(stage.ask(post()))
    await until(lambda: upstream.requests)
    client = await stage.client()
    await client.send(post())
    await until(lambda: queue.depth == 1)
    if how == "half-close":
        client.writer.write_eof()
    else:
        client.abort() if how == "reset" else await client.close()
    await until(lambda: queue.depth == 0)
    assert stage.counters.queue.outcomes == {"client_gone": 1}
    assert stage.counters.client_gone == 1
    gate.let_through()
    assert (await running).status == 200
    assert len(upstream.requests) == 1


async def test_a_full_queue_and_a_late_wait_are_503s_with_retry_after(
    stage: Stage, routed: Any
) -> None:
    gate = Gate(answer(b"{}"))
    await _backend(stage, gate)
    queue = routed(max_size=1, max_wait_seconds=1)
    running = asyncio.create_task(stage.ask(post()))
    await until(lambda: stage.backend_of().in_flight)
    waiting = asyncio.create_task(stage.ask(post()))
    await until(lambda: queue.depth == 1)
    for message, words in ((await stage.ask(post()), "full"), (await waiting, "waited 1 s")):
        assert (message.status, message.header("retry-after")) == (503, b"1")
        error = json.loads(message.body)["error"]
        assert (error["type"], error["code"]) == ("server_error", "no_available_backend")
        assert words in error["message"]
        (reason,) = error["context"]["rejection_reasons"]
        assert "maxConcurrency" in reason["reason"]
    gate.let_through()
    assert (await running).status == 200


async def test_what_a_waiting_client_sends_ahead_is_bounded(stage: Stage, routed: Any) -> None:
    gate = Gate(answer(b"{}"))
    await _backend(stage, gate)
    queue = routed()
    running = asyncio.create_task(stage.ask(post()))
    await until(lambda: stage.backend_of().in_flight)
    client = await stage.client()
    await client.send(post())
    await until(lambda: queue.depth == 1)
    client.writer.write(b"x" * 20_000_000)
    await asyncio.sleep(0.1)
    assert stage.counters.bytes_received < 1_000_000
    assert client.writer.transport.get_write_buffer_size() > 1_000_000
    gate.let_through(2)
    assert (await running).status == 200
    assert (await client.receive()).status == 200


async def test_a_429_is_waited_out_on_the_only_backend(stage: Stage, routed: Any) -> None:
    refusal = answer(b"{}", status="429 Too Many Requests", more=b"Retry-After: 1\r\n")
    await stage.backend(says(refusal), says(answer(b'{"ok":1}')))
    routed(limit=None)
    message = await stage.ask(post())
    assert (message.status, message.header("x-nexus-retries")) == (200, b"1")
    assert stage.counters.attempts == {"throttled": 1, "success": 1}


async def test_a_drain_lets_those_who_wait_finish(stage: Stage, routed: Any) -> None:
    gate = Gate(answer(b"{}"))
    await _backend(stage, gate)
    queue = routed()
    asked = [asyncio.create_task(stage.ask(post())) for _ in range(3)]
    await until(lambda: queue.depth == 2)
    drained = asyncio.create_task(stage.gateway.drain(10.0))
    await asyncio.sleep(0)
    assert queue.closed
    gate.let_through(3)
    assert [(await each).status for each in asked] == [200] * 3
    assert await drained
