"""The byte path fails by itself: its client hears a 500, nothing stays held, the log says it."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from typing import Any

import pytest

from nexus_devtools.rawhttp.messages import (
    DONE,
    END,
    SSE_HEAD,
    STREAM_BODY,
    Message,
    answer,
    chunk,
    event,
    post,
)
from nexus_devtools.rawhttp.peers import Incomplete, Peer, says, until
from nexus_devtools.rawhttp.stage import FakeAttempt, Stage
from nexus_proxy.http.exchange import Exchange
from nexus_quality.outcome import Outcome

GOOD = answer(b'{"id":"1"}')
Patch = pytest.MonkeyPatch


def fails(*_args: Any, **_options: Any) -> Any:
    raise RuntimeError("a defect of ours")


class FullBooks(dict[Any, Any]):
    """Nothing more can be written into them."""

    __setitem__ = fails


class Unwritable:
    """A transport that fails at the next write."""

    write = staticmethod(fails)

    def __init__(self, transport: Any) -> None:
        self._transport = transport

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


async def expect_500(stage: Stage, data: bytes | None = None) -> None:
    client = await stage.client()
    await client.send(data or post())
    message = await client.receive()
    assert (message.status, message.header("connection")) == (500, b"close")
    error = json.loads(message.body)["error"]
    assert (error["type"], error["code"]) == ("server_error", "internal_error")
    assert "defect" not in error["message"], "what happened inside is the log's matter"
    assert await client.ended() == b""


async def test_a_failing_decision_is_a_500_and_the_next_request_is_served(
    stage: Stage, monkeypatch: Patch
) -> None:
    await stage.backend(says(GOOD))
    with monkeypatch.context() as patch:
        patch.setattr(stage.router, "choose", fails)
        await expect_500(stage)
    assert stage.counters.requests == {("/v1/chat/completions", 500): 1}
    assert (await stage.ask()).status == 200


async def test_a_failing_retry_is_a_500_and_the_attempt_has_its_outcome(
    stage: Stage, monkeypatch: Patch
) -> None:
    await stage.backend(says(answer(b"{}", status="500 X")))
    monkeypatch.setattr(stage.router, "again", fails)
    await expect_500(stage)
    assert stage.outcomes() == [Outcome.SERVER_ERROR]


async def test_a_failing_connect_is_a_500_and_leaves_no_connection(
    stage: Stage, monkeypatch: Patch
) -> None:
    upstream = await stage.backend(says(GOOD))
    backend = stage.backend_of()
    monkeypatch.setattr(backend, "origin", replace(backend.origin, paths={}))
    await expect_500(stage)
    assert stage.outcomes() == [Outcome.CLIENT_GONE]
    await until(lambda: upstream.peers and upstream.peers[0].lost.is_set())


@pytest.mark.parametrize("wire", [GOOD, GOOD[:-1]], ids=["whole", "in part"])
async def test_a_failing_look_at_an_answer_is_a_500_and_the_backend_is_let_go(
    stage: Stage, monkeypatch: Patch, wire: bytes
) -> None:
    upstream = await stage.backend(says(wire))
    monkeypatch.setattr(Exchange, "answered", fails)
    monkeypatch.setattr(Exchange, "received", fails)
    await expect_500(stage)
    assert stage.outcomes() == [Outcome.CLIENT_GONE]
    await until(upstream.peers[0].lost.is_set)


async def test_after_the_answer_went_out_a_failure_adds_nothing_to_it(
    stage: Stage, monkeypatch: Patch
) -> None:
    await stage.backend(says(GOOD))
    client = await stage.client()
    with monkeypatch.context() as patch:
        patch.setattr(stage.counters, "requests", FullBooks())
        await client.send(post())
        assert (await client.receive()).body == b'{"id":"1"}'
        assert await client.ended() == b""
    stage.gateway.exchanges.clear()  # even the books are broken in this test


async def test_a_stream_that_a_failure_ends_does_not_look_complete(
    stage: Stage, monkeypatch: Patch
) -> None:
    async def script(peer: Peer, _request: Message) -> None:
        await peer.send(SSE_HEAD + chunk(event("a")))
        await until(lambda: stage.counters.active_streams)
        (client,) = stage.gateway.clients
        monkeypatch.setattr(client, "transport", Unwritable(client.transport))
        await peer.send(b"5\r\n")
        await peer.send(b"data:\r\n" + chunk(DONE) + END)

    await stage.backend(script)
    with pytest.raises(Incomplete):
        await stage.ask(post(STREAM_BODY))
    assert stage.outcomes() == [Outcome.CLIENT_GONE]


async def test_a_failure_at_a_tick_ends_its_request_alone(stage: Stage, monkeypatch: Patch) -> None:
    first = await stage.backend(says(b""))
    client = await stage.client()
    await client.send(post())
    await until(lambda: first.requests)
    with monkeypatch.context() as patch:
        patch.setattr(stage.router, "again", fails)
        stage.tick(1000)
    assert (await client.receive()).status == 500
    assert stage.outcomes() == [Outcome.TIMEOUT]


async def test_a_failing_end_of_an_attempt_frees_the_place_all_the_same(
    stage: Stage, monkeypatch: Patch
) -> None:
    await stage.backend(says(b""))
    client = await stage.client()
    await client.send(post())
    await until(lambda: stage.attempts())
    with monkeypatch.context() as patch:
        patch.setattr(FakeAttempt, "end", fails)
        client.abort()
        await until(lambda: not stage.gateway.clients)
    assert stage.backend_of().in_flight == 0
    stage.attempts().clear()  # it could not be told its outcome
    stage.gateway.exchanges.clear()


async def test_the_log_says_it_with_the_place_and_then_keeps_silent_for_a_while(
    stage: Stage, monkeypatch: Patch, caplog: pytest.LogCaptureFixture
) -> None:
    await stage.backend(says(GOOD))
    monkeypatch.setattr(stage.router, "choose", fails)
    with caplog.at_level(logging.ERROR, "nexus.proxy"):
        for _ in range(3):
            await expect_500(stage)
        assert [bool(record.exc_info) for record in caplog.records] == [True]
        stage.tick(11)
        await expect_500(stage)
    assert "4 so far" in caplog.records[-1].getMessage()
    assert len(caplog.records) == 2
