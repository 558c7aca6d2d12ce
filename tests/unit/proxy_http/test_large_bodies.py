"""Large bodies: every byte arrives, in many reads, whatever happens on the way."""

from __future__ import annotations

import json
from collections import deque

import pytest

from nexus_devtools.rawhttp.messages import answer, post
from nexus_devtools.rawhttp.peers import says, until
from nexus_devtools.rawhttp.stage import Stage
from nexus_proxy.http.request_head import Request
from nexus_proxy.http.request_reader import RequestReader

GOOD = answer(b'{"id":"1"}')
MB = 1024 * 1024


def ask(size: int) -> bytes:
    """A body of that size in which no two places look alike."""
    text = "".join(f"{n:x}," for n in range(size // 3))[: size - 80]
    return json.dumps({"model": "m", "messages": [{"role": "user", "content": text}]}).encode()


def reader_with_known_head() -> tuple[RequestReader, deque[tuple[Request, bytes]]]:
    queue: deque[tuple[Request, bytes]] = deque()
    reader = RequestReader(queue, max_body=64 * MB)
    reader.feed(post())
    queue.clear()
    return reader, queue


@pytest.mark.parametrize("first", [100, 100_000, 150_000, 600_000, 999_999])
@pytest.mark.parametrize("size", [50_000, 262_144, 700_000])
def test_how_a_large_body_is_split_changes_nothing(first: int, size: int) -> None:
    reader, queue = reader_with_known_head()
    body = ask(MB)
    wire = post(body) + post()
    reader.feed(wire[:first])
    for at in range(first, len(wire), size):
        reader.feed(wire[at : at + size])
    assert [each for _, each in queue] == [body, post().partition(b"\r\n\r\n")[2]]
    assert type(queue[0][1]) is bytes
    assert not reader.begun


@pytest.mark.parametrize("size", [220_000, MB, 5 * MB])
async def test_large_bodies_arrive_whole_one_after_the_other(stage: Stage, size: int) -> None:
    upstream = await stage.backend(says(GOOD))
    client = await stage.client()
    bodies = [ask(1000), ask(size), ask(size + 1), ask(1000), ask(size)]
    for body in bodies:
        await client.send(post(body))
        assert (await client.receive()).status == 200
    assert [each.body for each in upstream.requests] == bodies
    assert stage.counters.bytes_received == sum(len(post(body)) for body in bodies)


async def test_large_bodies_sent_ahead_are_served_in_order(stage: Stage) -> None:
    upstream = await stage.backend(says(GOOD))
    client = await stage.client()
    bodies = [ask(1000), ask(2 * MB), ask(300_000), ask(900)]
    await client.send(b"".join(map(post, bodies)))
    for _ in bodies:
        assert (await client.receive()).status == 200
    assert [each.body for each in upstream.requests] == bodies


@pytest.mark.parametrize("how", ["abort", "close"])
async def test_a_client_that_leaves_in_the_midst_leaves_nothing_behind(
    stage: Stage, how: str
) -> None:
    upstream = await stage.backend(says(GOOD))
    client = await stage.client()
    await client.send(post())
    await client.receive()
    await client.send(post(ask(MB))[: MB // 2])
    await until(lambda: stage.counters.bytes_received > MB // 4)
    if how == "abort":
        client.abort()
    else:
        await client.close()
    await until(lambda: not stage.gateway.clients)
    assert len(upstream.requests) == 1


async def test_a_body_that_stops_coming_is_refused_in_time(stage: Stage) -> None:
    await stage.backend(says(GOOD))
    client = await stage.client()
    await client.send(post())
    await client.receive()
    wire = post(ask(MB))
    await client.send(wire[: MB // 2])
    await until(lambda: stage.counters.bytes_received >= MB // 2)
    for seconds in (100, 200):  # what came between two looks is progress
        stage.tick(seconds)
    assert (await client.receive()).status == 408
    await client.send(wire[MB // 2 :])
    assert await client.ended() == b""
