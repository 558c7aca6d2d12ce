"""The feed: one picture for all, changes after it, and nobody who can hold it up."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from nexus_devtools.page_stand import Stand, name, uid
from nexus_operator.page import board, feed, handlers
from nexus_operator.page.feed import BACKLOG, BEAT, Feed, message
from nexus_operator.slices import Slice

Event = tuple[str, int, dict[str, Any]]


class Reader:
    """Reads events off a response."""

    def __init__(self, response: httpx.Response) -> None:
        self._lines = response.aiter_lines()

    async def next(self) -> Event:
        """The next event that is no beat; AssertionError if there is none for 10 s."""
        event, number, data = "", 0, ""
        async with asyncio.timeout(10):
            async for line in self._lines:
                field, _, value = line.partition(": ")
                if field == "event":
                    event = value
                elif field == "id":
                    number = int(value)
                elif field == "data":
                    data = value
                elif not line and event not in ("", "beat"):
                    return event, number, json.loads(data)
        raise AssertionError("the feed ended")

    async def until(self, wanted: Any) -> Event:
        """The first event of which something holds."""
        while not wanted(found := await self.next()):
            pass
        return found


async def eventually(holds: Callable[[], bool]) -> None:
    for _ in range(400):
        if holds():
            return
        await asyncio.sleep(0.05)
    raise AssertionError("it did not happen within 20 s")


@asynccontextmanager
async def listening(client: httpx.AsyncClient) -> AsyncIterator[Reader]:
    async with client.stream("GET", "/page/events") as response:
        assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert response.headers["cache-control"] == "no-store"
        yield Reader(response)


async def test_a_listener_begins_with_the_whole_picture(
    client: httpx.AsyncClient, stand: Stand
) -> None:
    stand.policies()
    async with listening(client) as reader:
        event, _, told = await reader.next()
    assert event == "snapshot"
    assert set(told["backends"]) == {uid(0), uid(1), uid(2)} == set(told["sparks"])
    assert told["backends"][uid(0)]["name"] == name(0)
    assert {row["name"] for row in told["quality"].values()} == {"gold", "stricter-trial"}
    assert [row["spent"] for row in told["routing"].values()] == ["391.27"]
    assert told["head"]["leading"] is True


async def test_a_verdict_is_told_within_two_seconds_and_alone(
    client: httpx.AsyncClient, stand: Stand
) -> None:
    async with listening(client) as reader:
        _, number, _ = await reader.next()
        stand.fail(1)
        async with asyncio.timeout(2):
            event, later, told = await reader.next()
    assert (event, later) == ("delta", number + 1)
    assert list(told["backends"]) == [uid(1)]
    row = told["backends"][uid(1)]
    assert row["state"] == "Excluded" and row["reason"] and row["message"]
    assert "sparks" not in told and "quality" not in told


async def test_a_burst_of_changes_is_one_message(client: httpx.AsyncClient, stand: Stand) -> None:
    async with listening(client) as reader:
        await reader.next()
        for number in (0, 1, 2):
            stand.suspend(number)
        _, _, told = await reader.next()
    assert set(told["backends"]) == {uid(0), uid(1), uid(2)}


async def test_what_is_deleted_is_told_and_not_in_the_next_picture(
    client: httpx.AsyncClient, stand: Stand
) -> None:
    async with listening(client) as reader:
        await reader.next()
        stand.remove(2)
        _, number, told = await reader.next()
        assert told["gone"] == [uid(2)]
        async with listening(client) as second:
            event, same, whole = await second.next()
    assert (event, same) == ("snapshot", number)
    assert set(whole["backends"]) == set(whole["sparks"]) == {uid(0), uid(1)}


async def test_picture_and_changes_make_the_next_picture(
    client: httpx.AsyncClient, stand: Stand
) -> None:
    async with listening(client) as reader:
        _, _, picture = await reader.next()
        stand.fail(0)
        stand.add(3)
        _, _, told = await reader.next()
        picture["backends"] |= told["backends"]
        async with listening(client) as second:
            _, _, whole = await second.next()
    assert whole["backends"] == picture["backends"]


async def test_figures_change_without_a_verdict(
    client: httpx.AsyncClient, stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(board, "FIGURES_SECONDS", 0.2)
    async with listening(client) as reader:
        _, _, picture = await reader.next()
        before = picture["backends"][uid(2)]["requests"]
        stand.desk.count("late", uid=uid(2), model="qwen-2.5-7b", requests=5)
        _, _, told = await reader.until(lambda found: uid(2) in found[2].get("backends", {}))
    assert told["backends"][uid(2)]["requests"] == before + 5


async def test_it_says_that_the_operator_does_not_lead(
    client: httpx.AsyncClient, stand: Stand
) -> None:
    async with listening(client) as reader:
        await reader.next()
        stand.leading("standing by: nexus-0 leads", leads=False)
        _, _, told = await reader.next()
    assert told["head"]["leading"] is False
    assert told["head"]["problem"] == "standing by: nexus-0 leads"


async def test_nobody_listens_so_nothing_is_worked_out(
    client: httpx.AsyncClient, stand: Stand
) -> None:
    async with listening(client) as reader:
        await reader.next()
    for _ in range(400):
        stand.suspend(0)  # what is to be told is what shows that nobody listens any more
        if not stand.board.busy:
            break
        await asyncio.sleep(0.05)
    stand.suspend(1)
    assert not stand.board.busy


async def test_a_server_that_stops_does_not_wait_for_listeners(
    client: httpx.AsyncClient, stand: Stand
) -> None:
    async with listening(client) as reader:
        await reader.next()
        async with asyncio.timeout(0.9):
            await stand.stop()
        with pytest.raises((AssertionError, httpx.RemoteProtocolError)):
            await reader.next()


async def test_a_server_that_starts_again_serves_the_page_again(
    client: httpx.AsyncClient, stand: Stand
) -> None:
    async with listening(client) as reader:
        await reader.next()
        await stand.stop()
    await stand.start()  # the same board, as when the operator's watch begins anew
    async with listening(client) as reader:
        event, _, told = await reader.next()
    assert event == "snapshot" and len(told["backends"]) == 3


async def test_what_changes_while_the_first_picture_is_made_is_told(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(board, "Slice", lambda: Slice(0.0))  # others have a turn at every step
    monkeypatch.setattr(board, "FIGURES_SECONDS", 1000.0)
    joining = asyncio.create_task(stand.board.join())
    for _ in range(3):
        await asyncio.sleep(0)  # one backend was looked at at least, and not all of it is done
    assert stand.board.busy and not joining.done()
    for number in (0, 1, 2):
        stand.suspend(number)
    listener = await joining
    assert listener is not None
    told = (await listener.next() or b"") + (await listener.next() or b"")
    assert told.count(b'"state":"Suspended"') >= 3
    await stand.board.close()


async def test_one_who_does_not_take_what_is_sent_is_let_go(
    client: httpx.AsyncClient,
    stand: Stand,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(handlers, "WRITE_SECONDS", 0.2)
    _, writer = await asyncio.open_connection("127.0.0.1", stand.port, limit=1)
    writer.write(b"GET /page/events HTTP/1.1\r\nHost: x\r\n\r\n")
    await eventually(lambda: len(stand.board.feed) == 1)
    for _ in range(3):
        stand.board.feed.publish(message("delta", 1, b'"' + b"x" * 4_000_000 + b'"'))
    await eventually(lambda: len(stand.board.feed) == 0)
    async with listening(client) as other:
        assert (await other.next())[0] == "snapshot"
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []
    writer.close()


async def test_one_listener_too_many_is_told_to_wait(
    client: httpx.AsyncClient, stand: Stand
) -> None:
    stand.board.feed = Feed(most=1)
    async with listening(client) as reader:
        await reader.next()
        answer = await client.get("/page/events")
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "5"


async def test_one_who_does_not_read_is_dropped_and_the_others_are_not() -> None:
    feed = Feed()
    slow, quick = feed.join(b"first"), feed.join(b"first")
    assert slow is not None and quick is not None
    await quick.next()
    for number in range(BACKLOG):
        feed.publish(message("delta", number, b"{}"))
        assert await quick.next() == message("delta", number, b"{}")
    assert slow.dropped and await slow.next() is None
    assert len(feed) == 1 and not quick.dropped


async def test_a_quiet_feed_beats(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "BEAT_SECONDS", 0.01)
    listener = Feed().join(b"first")
    assert listener is not None
    assert (await listener.next() or b"").endswith(b"first")
    assert await listener.next() == BEAT
