"""The wheel: what is due is looked at, nothing else is, and nobody is forgotten."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial

import pytest

from nexus_devtools.rawhttp.messages import SSE_HEAD, STREAM_BODY, answer, chunk, event, post
from nexus_devtools.rawhttp.peers import says, until
from nexus_devtools.rawhttp.stage import Stage
from nexus_proxy.http.downstream import ClientConnection
from nexus_proxy.http.wheel import NEVER, PER_SECOND, Wheel
from nexus_proxy.routing.candidate import Timeouts
from nexus_quality.outcome import Outcome


class Thing:
    """An item with a deadline of its own, which may move on."""

    def __init__(self) -> None:
        self.due = NEVER
        self.deadline = NEVER


def test_an_item_comes_at_the_first_tick_from_its_time_on_and_once() -> None:
    wheel: Wheel[Thing] = Wheel()
    thing = Thing()
    wheel.by(thing, 10.1)
    assert wheel.take(10.0) == []
    assert wheel.take(10.2) == [], "slots are a quarter of a second"
    assert wheel.take(10.25) == [thing]
    assert wheel.take(11.0) == []
    assert thing.due == NEVER


def test_nearer_moves_an_item_and_later_does_not() -> None:
    wheel: Wheel[Thing] = Wheel()
    thing = Thing()
    wheel.by(thing, 75.0)
    wheel.by(thing, 600.0)
    assert thing.due == 75.0
    wheel.by(thing, 5.0)
    assert wheel.take(5.0) == [thing]
    assert wheel.take(700.0) == []


def test_a_dropped_item_is_held_by_nothing() -> None:
    wheel: Wheel[Thing] = Wheel()
    things = [Thing() for _ in range(3)]
    for thing in things:
        wheel.by(thing, 600.0)
    for thing in things:
        wheel.drop(thing)
        wheel.drop(thing)
    assert len(wheel) == 0
    assert wheel._slots == {}
    wheel.by(things[0], 1.0)
    assert wheel.take(2.0) == [things[0]]


def test_a_clock_that_jumps_brings_everything_and_one_that_stands_brings_nothing() -> None:
    wheel: Wheel[Thing] = Wheel()
    things = [Thing() for _ in range(50)]
    for number, thing in enumerate(things):
        wheel.by(thing, float(number))
    assert wheel.take(-1.0) == []
    assert len(wheel.take(1e9)) == 50
    wheel.by(things[0], 3.0)
    assert wheel.take(3.0) == [things[0]], "earlier than the last tick: still found"


@pytest.mark.parametrize("seed", range(20))
def test_no_deadline_is_missed_or_looked_at_early_whatever_happens(seed: int) -> None:
    chance = random.Random(seed)
    wheel: Wheel[Thing] = Wheel()
    things = [Thing() for _ in range(40)]
    now = 0.0
    for _ in range(2000):
        thing = chance.choice(things)
        if chance.random() < 0.1:
            wheel.drop(thing)
            thing.deadline = NEVER
        else:
            thing.deadline = now + chance.choice((0.0, 0.3, 2.0, 5.0, 75.0, 600.0))
            wheel.by(thing, thing.deadline)
        if chance.random() < 0.3:
            now += chance.random()
            for due in wheel.take(now):
                assert due.due == NEVER
                if due.deadline <= now:
                    due.deadline = NEVER
                wheel.by(due, due.deadline)
            late = [t for t in things if t.deadline < now - 1.0 / PER_SECOND]
            assert not late
    held = [thing for thing in things if thing.deadline < NEVER]
    assert len(wheel) == len(held)


def reached(stage: Stage, sent: int) -> bool:
    """So many bytes have gone to clients."""
    return stage.counters.bytes_sent >= sent


class CountingWheel(Wheel[ClientConnection]):
    """Counts the connections that ticks have looked at."""

    looked_at = 0

    def take(self, now: float) -> list[ClientConnection]:
        found = super().take(now)
        self.looked_at += len(found)
        return found


@pytest.fixture
def looks(stage: Stage) -> Callable[[], int]:
    """How many connections were looked at since the last call."""
    stage.gateway.wheel = wheel = CountingWheel()

    def since() -> int:
        found, wheel.looked_at = wheel.looked_at, 0
        return found

    return since


async def test_a_thousand_ticks_look_at_running_streams_once(
    stage: Stage, looks: Callable[[], int]
) -> None:
    await stage.backend(says(SSE_HEAD + chunk(event("a"))))
    clients = [await stage.client() for _ in range(5)]
    for client in clients:
        await client.send(post(STREAM_BODY))
    await until(lambda: stage.counters.active_streams == 5)
    for tick in range(1000):
        stage.tick(tick * 0.05)
    assert looks() == 5, "when the time to connect would have been over"
    stage.tick(59)
    assert looks() == 0
    stage.tick(62)
    assert looks() == 5
    assert stage.outcomes() == [Outcome.TIMEOUT] * 5


async def test_requests_on_one_connection_leave_one_entry(
    stage: Stage, looks: Callable[[], int]
) -> None:
    await stage.backend(says(answer(b"{}")), timeouts=Timeouts(response=30.0))
    client = await stage.client()
    for _ in range(20):
        await client.send(post())
        await client.receive()
    assert len(stage.gateway.wheel) == 1
    client.abort()
    await until(lambda: not stage.gateway.clients)
    assert len(stage.gateway.wheel) == 0
    stage.tick(1000)
    assert looks() == 0


async def test_a_short_timeout_is_kept_though_the_connection_was_to_be_looked_at_later(
    stage: Stage,
) -> None:
    await stage.backend(says(answer(b"{}")), says(b""), timeouts=Timeouts(response=3.0))
    client = await stage.client()
    await client.send(post())
    await client.receive()
    await client.send(post())
    await until(lambda: len(stage.upstreams[0].requests) == 2)
    stage.tick(2)
    assert len(stage.outcomes()) == 1
    stage.tick(4)
    assert stage.outcomes()[1:] == [Outcome.TIMEOUT]
    assert (await client.receive()).status == 503


async def test_a_stream_that_never_pauses_is_never_cut(stage: Stage) -> None:
    upstream = await stage.backend(says(SSE_HEAD + chunk(event("a"))), timeouts=Timeouts(idle=10))
    client = await stage.client()
    await client.send(post(STREAM_BODY))
    await until(lambda: stage.counters.active_streams)
    for tick in range(1, 100):
        stage.tick(float(tick))
        if tick % 8 == 0:
            expected = stage.counters.bytes_sent + len(chunk(event("b")))
            await upstream.peers[0].send(chunk(event("b")))
            await until(partial(reached, stage, expected))
    assert stage.outcomes() == []
    stage.tick(96 + 10.5)
    assert stage.outcomes() == []
    stage.tick(96 + 12)
    assert stage.outcomes() == [Outcome.TIMEOUT]
