"""A stalled loop shows as lag, a silent watch as age, a long computation does not stall."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

from nexus_operator.slices import gathered
from nexus_operator.vitals import BEAT_SECONDS, Sightings, watch_loop


async def test_a_loop_that_was_busy_shows_as_lag() -> None:
    lags: asyncio.Queue[float] = asyncio.Queue()
    watching = asyncio.create_task(watch_loop(lags.put_nowait))
    await lags.get()
    await asyncio.sleep(0)
    until = time.monotonic() + BEAT_SECONDS + 0.1
    while time.monotonic() < until:
        pass
    assert await lags.get() >= 0.05
    watching.cancel()


def test_ages_are_those_of_each_kind() -> None:
    now = [100.0]
    sightings = Sightings(("a", "b"), monotonic=lambda: now[0])
    now[0] = 130.0
    sightings.heard("b")
    now[0] = 140.0
    assert dict(sightings.ages()) == {"a": 40.0, "b": 10.0}


async def test_others_have_their_turn_between_the_steps_of_a_long_computation() -> None:
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    def steps() -> Iterator[int]:
        for number in range(10):
            until = time.monotonic() + 0.006
            while time.monotonic() < until:
                pass
            yield number

    task = asyncio.create_task(other())
    assert await gathered(steps()) == list(range(10))
    task.cancel()
    assert turns >= 8
