"""Deadlines by the gateway's tick, idle connections, and the drain."""

from __future__ import annotations

import asyncio
import socket

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
from nexus_devtools.rawhttp.stage import Stage
from nexus_proxy.routing.candidate import Timeouts
from nexus_quality.outcome import Outcome

GOOD = b'{"id":"good"}'
TIMEOUTS = Timeouts(connect=5, first_token=20, idle=10, response=30)


async def _asked(stage: Stage, body: bytes) -> Peer:
    client = await stage.client()
    await client.send(post(body))
    await until(lambda: stage.upstreams[0].requests)
    await asyncio.sleep(0.02)
    return client


@pytest.mark.parametrize("said", [b"", SSE_HEAD, SSE_HEAD + chunk(event()[:9])])
async def test_a_stream_without_a_first_token_in_time_goes_elsewhere(
    stage: Stage, said: bytes
) -> None:
    upstream = await stage.backend(says(said), timeouts=TIMEOUTS)
    await stage.backend(says(answer(GOOD)))
    client = await _asked(stage, STREAM_BODY)
    if not said.endswith(b"\r\n\r\n"):
        stage.tick(1)
    else:
        stage.tick(19)
    assert stage.outcomes() == []
    if len(said) <= len(SSE_HEAD):
        stage.tick(21)
        assert (await client.receive()).body == GOOD
        assert stage.outcomes() == [Outcome.TIMEOUT]
        await until(upstream.peers[0].lost.is_set)


async def test_a_preamble_does_not_stop_the_clock(stage: Stage) -> None:
    await stage.backend(says(SSE_HEAD + chunk(event())), timeouts=TIMEOUTS)
    client = await _asked(stage, STREAM_BODY)
    stage.tick(19)
    assert stage.outcomes() == []
    stage.tick(21)
    assert b"stream_interrupted" in (await client.receive()).body
    assert stage.outcomes() == [Outcome.TIMEOUT]


async def test_every_event_extends_the_idle_time(stage: Stage) -> None:
    more = asyncio.Event()

    async def script(peer: Peer, _request: Message) -> None:
        await peer.send(SSE_HEAD + chunk(event("a")))
        await more.wait()
        await peer.send(chunk(event("b")))

    await stage.backend(script, timeouts=TIMEOUTS)
    client = await _asked(stage, STREAM_BODY)
    stage.tick(8)
    sent = stage.counters.bytes_sent
    more.set()
    await until(lambda: stage.counters.bytes_sent > sent)
    stage.tick(9)
    stage.tick(18)
    assert stage.outcomes() == []
    stage.tick(20)
    assert stage.outcomes() == [Outcome.TIMEOUT]
    await client.receive()


async def test_an_answer_that_is_not_complete_in_time_goes_elsewhere(stage: Stage) -> None:
    await stage.backend(says(b""), timeouts=TIMEOUTS)
    await stage.backend(says(answer(GOOD)))
    client = await _asked(stage, b'{"model":"m"}')
    stage.tick(29)
    assert stage.outcomes() == []
    stage.tick(31)
    assert (await client.receive()).body == GOOD
    assert stage.outcomes() == [Outcome.TIMEOUT]


async def test_an_answer_on_its_way_that_is_not_complete_in_time_is_cut(stage: Stage) -> None:
    await stage.backend(says(answer(b"x" * 200_000)[:-9]), timeouts=TIMEOUTS)
    client = await _asked(stage, b'{"model":"m"}')
    await until(lambda: stage.counters.bytes_sent > 100_000)
    stage.tick(31)
    with pytest.raises(Incomplete):
        await client.receive()
    assert stage.outcomes() == [Outcome.TIMEOUT]


async def test_a_whole_answer_to_a_stream_has_the_time_of_a_whole_one(stage: Stage) -> None:
    release = asyncio.Event()

    async def script(peer: Peer, _request: Message) -> None:
        whole = answer(GOOD)
        await peer.send(whole[:-5])
        await release.wait()
        await peer.send(whole[-5:])

    await stage.backend(script, timeouts=TIMEOUTS)
    client = await _asked(stage, STREAM_BODY)
    stage.tick(25)
    release.set()
    assert (await client.receive()).body == GOOD


async def test_a_connection_that_is_not_made_in_time_is_a_connect_error(stage: Stage) -> None:
    await stage.backend(says(answer(b"{}")), timeouts=TIMEOUTS)
    await stage.backend(says(answer(GOOD)))
    client = await stage.client()
    release = stage.hold_connects()
    await client.send(post())
    await until(lambda: stage.attempts())
    stage.tick(4)
    assert stage.outcomes() == []
    release()
    stage.tick(6)
    assert (await client.receive()).body == GOOD
    assert stage.outcomes() == [Outcome.CONNECT_ERROR]


async def test_a_backend_connection_may_idle_for_most_of_a_minute(stage: Stage) -> None:
    upstream = await stage.backend(says(answer(GOOD)))
    await stage.ask()
    stage.tick(53)
    assert not upstream.peers[0].lost.is_set()
    stage.tick(56)
    await until(upstream.peers[0].lost.is_set)


@pytest.mark.parametrize(("said", "kept", "closed"), [(5, 3, 5), (1, 0.2, 1), (600, 53, 56)])
async def test_a_backend_connection_idles_no_longer_than_its_server_says(
    stage: Stage, said: int, kept: float, closed: float
) -> None:
    header = b"Keep-Alive: max=9, timeout=%d\r\n" % said
    upstream = await stage.backend(says(answer(GOOD, more=header)))
    await stage.ask()
    stage.tick(kept)
    assert not upstream.peers[0].lost.is_set()
    stage.tick(closed)
    await until(upstream.peers[0].lost.is_set)


async def test_a_server_that_closes_an_idle_connection_is_believed_for_the_next(
    stage: Stage,
) -> None:
    upstream = await stage.backend(says(answer(GOOD)))
    await stage.ask()
    (pool,) = stage.gateway.pools
    stage.gateway.clock, real = lambda: real() + 20, stage.gateway.clock
    upstream.peers[0].abort()
    await until(lambda: pool.idle == 0)
    assert 17 < pool.patience < 19, "a little sooner than it was"
    stage.gateway.clock = real
    await stage.ask()
    upstream.peers[1].abort()
    await until(lambda: pool.idle == 0)
    assert pool.patience == 4, "a server that went says nothing of how patient it is"


async def test_a_pool_grows_patient_again_with_a_server_that_leaves_connections_open(
    stage: Stage,
) -> None:
    upstream = await stage.backend(says(answer(GOOD)))
    await stage.ask()
    (pool,) = stage.gateway.pools
    pool.patience = 4.0
    for number, patience in enumerate((5.0, 6.25)):
        stage.tick(7)
        await until(upstream.peers[number].lost.is_set)
        assert pool.patience == patience
        stage.tick(0)
        await stage.ask()


async def test_of_a_burst_few_connections_idle_for_long(stage: Stage) -> None:
    upstream = await stage.backend(says(answer(GOOD)))
    clients = [await stage.client() for _ in range(12)]
    for client in clients:
        await client.send(post())
    for client in clients:
        await client.receive()
    (pool,) = stage.gateway.pools
    assert pool.idle == upstream.connections == 12
    stage.tick(3)
    assert pool.idle == 12
    stage.tick(5)
    assert pool.idle == 8


async def test_a_backend_connection_asks_whether_its_peer_is_there(stage: Stage) -> None:
    await stage.backend(says(answer(GOOD)))
    await stage.ask()
    (pool,) = stage.gateway.pools
    connection = pool.take(stage.clock())
    assert connection is not None
    opened = connection.transport.get_extra_info("socket")
    assert opened.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    connection.abort()


async def test_a_backend_that_moved_is_reached_where_it_is_now(stage: Stage) -> None:
    old = await stage.backend(says(answer(b'{"id":"old"}')))
    new = await stage.backend(says(answer(b'{"id":"new"}')))
    await stage.ask()
    stage.backend_of(0).origin = stage.backend_of(1).origin
    assert (await stage.ask()).body == b'{"id":"new"}'
    await until(old.peers[0].lost.is_set)
    assert len(new.requests) == 1


async def test_a_connection_to_where_a_backend_was_is_not_kept(stage: Stage) -> None:
    release = asyncio.Event()

    async def script(peer: Peer, _request: Message) -> None:
        await release.wait()
        await peer.send(answer(GOOD))

    old = await stage.backend(script)
    await stage.backend(says(answer(b'{"id":"new"}')))
    client = await _asked(stage, b'{"model":"m"}')
    stage.backend_of(0).origin = stage.backend_of(1).origin
    assert (await stage.ask()).body == b'{"id":"new"}'
    release.set()
    assert (await client.receive()).body == GOOD
    await until(old.peers[0].lost.is_set)


async def test_an_idle_client_is_closed(stage: Stage) -> None:
    await stage.backend(says(answer(GOOD)))
    client = await stage.client()
    await client.send(post())
    await client.receive()
    stage.tick(70)
    assert stage.gateway.clients
    stage.tick(80)
    assert await client.ended() == b""


async def test_a_request_that_does_not_arrive_in_time_is_refused(stage: Stage) -> None:
    client = await stage.client()
    await client.send(post()[:-5])
    await until(lambda: stage.counters.bytes_received)
    stage.tick(50)
    stage.tick(70)
    assert (await client.receive()).status == 408
    assert await client.ended() == b""


async def test_a_refused_client_that_never_leaves_is_closed(stage: Stage) -> None:
    client = await stage.client()
    await client.send(b"nonsense\r\n\r\n")
    assert (await client.receive()).status == 400
    assert stage.gateway.clients
    stage.tick(10)
    await until(lambda: not stage.gateway.clients)


async def test_a_drain_lets_a_running_request_finish_and_says_so(stage: Stage) -> None:
    release = asyncio.Event()

    async def script(peer: Peer, _request: Message) -> None:
        await release.wait()
        await peer.send(answer(GOOD))

    await stage.backend(script)
    busy = await _asked(stage, b'{"model":"m"}')
    idle = await stage.client()
    await until(lambda: len(stage.gateway.clients) == 2)
    draining = asyncio.create_task(stage.gateway.drain(5))
    await until(lambda: stage.gateway.draining)
    stage.gateway.tick(stage.gateway.now + 2.5)
    assert await idle.ended() == b""
    with pytest.raises(ConnectionError):
        await stage.client()
    release.set()
    message = await busy.receive()
    assert (message.body, message.header("connection")) == (GOOD, b"close")
    assert await busy.ended() == b""
    assert await draining is True


async def test_a_drain_lets_a_stream_reach_its_end(stage: Stage) -> None:
    release = asyncio.Event()

    async def script(peer: Peer, _request: Message) -> None:
        await peer.send(SSE_HEAD + chunk(event("a")))
        await release.wait()
        await peer.send(chunk(DONE) + END)

    await stage.backend(script)
    client = await _asked(stage, STREAM_BODY)
    await until(lambda: stage.counters.active_streams)
    draining = asyncio.create_task(stage.gateway.drain(5))
    await asyncio.sleep(0.02)
    release.set()
    assert (await client.receive()).body == event("a") + DONE
    assert await client.ended() == b""
    assert await draining is True


async def test_a_drain_tells_an_unanswered_request_that_the_proxy_stops(stage: Stage) -> None:
    upstream = await stage.backend(says(b""))
    client = await _asked(stage, b'{"model":"m"}')
    assert await stage.gateway.drain(0.05) is False
    message = await client.receive()
    assert (message.status, message.header("connection")) == (503, b"close")
    assert message.header("retry-after") == b"1"
    assert b"shutting_down" in message.body
    assert await client.ended() == b""
    assert stage.outcomes() == [Outcome.CLIENT_GONE]
    await until(upstream.peers[0].lost.is_set)


async def test_a_drain_ends_a_stream_with_an_error_event(stage: Stage) -> None:
    upstream = await stage.backend(says(SSE_HEAD + chunk(event("a"))))
    client = await _asked(stage, STREAM_BODY)
    await until(lambda: stage.counters.active_streams)
    assert await stage.gateway.drain(0.05) is False
    message = await client.receive()
    assert message.body.startswith(event("a") + b"data: {")
    assert b"this proxy is stopping" in message.body
    assert b"backend" not in message.body
    assert await client.ended() == b""
    assert stage.outcomes() == [Outcome.CLIENT_GONE]
    await until(upstream.peers[0].lost.is_set)


async def test_a_drain_cuts_a_long_answer_so_that_it_does_not_look_complete(stage: Stage) -> None:
    await stage.backend(says(answer(b"x" * 200_000)[:-9]))
    client = await _asked(stage, b'{"model":"m"}')
    await until(lambda: stage.counters.bytes_sent > 100_000)
    assert await stage.gateway.drain(0.05) is False
    with pytest.raises(Incomplete):
        await client.receive()


async def test_a_head_that_comes_a_byte_at_a_time_has_one_deadline(stage: Stage) -> None:
    client = await stage.client()
    for number, byte in enumerate(post()[:5]):
        await client.send(bytes((byte,)))
        await until(lambda wanted=number: stage.counters.bytes_received > wanted)
        stage.gateway.now += 13  # as ticks do
    stage.gateway.tick(stage.gateway.now)
    assert (await client.receive()).status == 408


@pytest.mark.parametrize("known", [False, True])
async def test_a_slow_body_is_waited_for_as_long_as_it_gets_on(stage: Stage, known: bool) -> None:
    await stage.backend(says(answer(GOOD)))
    client = await stage.client()
    request = post(b'{"model":"m","pad":"' + b"x" * 300_000 + b'"}')
    if known:
        await client.send(post(b'{"model":"m"}'))
        assert (await client.receive()).status == 200
    seen = stage.counters.bytes_received
    began = stage.gateway.now
    for part, size in enumerate((100_000, 100_000, 1000)):
        await client.send(request[part * 100_000 : part * 100_000 + size])
        seen += size
        await until(lambda wanted=seen: stage.counters.bytes_received >= wanted)
        began += 61
        stage.gateway.tick(began)
    assert (await client.receive()).status == 408


async def test_a_request_that_was_on_its_way_when_a_drain_began_is_answered(stage: Stage) -> None:
    await stage.backend(says(answer(GOOD)))
    client, idle = await stage.client(), await stage.client()
    await client.send(post())
    assert (await client.receive()).status == 200
    draining = asyncio.create_task(stage.gateway.drain(5))
    await until(lambda: stage.gateway.draining)
    await client.send(post())
    last = await client.receive()
    assert (last.status, last.header("connection")) == (200, b"close")
    assert await client.ended() == b""
    stage.gateway.tick(stage.gateway.now + 1.5)
    assert stage.gateway.clients, "the other one may still ask"
    stage.gateway.tick(stage.gateway.now + 1.0)
    assert await idle.ended() == b""
    assert await draining is True


async def test_draining_nothing_takes_no_time(stage: Stage) -> None:
    assert await stage.gateway.drain(60) is True
