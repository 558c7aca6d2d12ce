"""More clients than fit: those who came first are served, the others told when to come back."""

from __future__ import annotations

import json

from nexus_devtools.rawhttp.messages import answer, post
from nexus_devtools.rawhttp.peers import says, until
from nexus_devtools.rawhttp.stage import Stage


async def test_a_client_too_many_is_told_to_come_back(stage: Stage) -> None:
    await stage.backend(says(answer(b"{}")))
    stage.gateway.max_clients = 2
    first, second = await stage.client(), await stage.client()
    await until(lambda: len(stage.gateway.clients) == 2)
    third = await stage.client()
    refused = await third.receive()
    assert (refused.status, refused.values("retry-after")) == (503, [b"1"])
    assert json.loads(refused.body)["error"]["code"] == "too_many_connections"
    assert await third.ended() == b""
    assert stage.counters.turned_away == 1
    for client in (first, second):
        await client.send(post())
        assert (await client.receive()).status == 200


async def test_a_place_that_was_left_is_free_again(stage: Stage) -> None:
    await stage.backend(says(answer(b"{}")))
    stage.gateway.max_clients = 1
    await (await stage.client()).close()
    await until(lambda: not stage.gateway.clients)
    client = await stage.client()
    await client.send(post())
    assert (await client.receive()).status == 200
    assert stage.counters.turned_away == 0
