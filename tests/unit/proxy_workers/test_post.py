"""A worker's place when the parent is cancelled in the very moment in which something ends."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable
from typing import Any

import pytest

from nexus_proxy.workers import post as module
from nexus_proxy.workers.post import Post

TURNS = range(8)


class Process:
    """A child that runs until it is told to end."""

    pid = 4_194_305  # beyond any that there is

    def __init__(self) -> None:
        self.returncode: int | None = None
        self.waited = 0
        self._ended = asyncio.Event()

    async def wait(self) -> int:
        self.waited += 1
        await self._ended.wait()
        assert self.returncode is not None
        return self.returncode

    def end(self, code: int) -> None:
        if self.returncode is None:
            self.returncode = code
            self._ended.set()

    def kill(self) -> None:
        self.end(-9)


class NoListeners:
    def open(self) -> list[socket.socket]:
        return []


class Nobody:
    """A keeper that needs to know nothing."""

    def began(self, post: Post) -> None: ...
    def heard(self, post: Post, message: object) -> None: ...
    def ended(self, post: Post) -> None: ...


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Process]:
    """The children, in the order of their start."""
    found: list[Process] = []

    async def start(*_: object, **__: object) -> Any:
        found.append(Process())
        return found[-1]

    monkeypatch.setattr(module.asyncio, "create_subprocess_exec", start)
    return found


@pytest.fixture
def place() -> Post:
    listeners: Any = NoListeners()
    return Post(1, [], listeners, Nobody(), clock=time.monotonic, random=lambda: 1.0)


async def eventually(holds: Callable[[], object]) -> None:
    for _ in range(5000):
        if holds():
            return
        await asyncio.sleep(0.001)
    raise AssertionError("it did not happen within 5 s")


async def cancelled(task: asyncio.Task[None], turns: int) -> bool:
    """Cancel it after so many turns of the loop; whether that was its end."""
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    _, late = await asyncio.wait([task], timeout=1.0)
    for one in late:
        one.cancel()
    await asyncio.wait([task])
    return not late and task.cancelled()


@pytest.mark.parametrize("turns", TURNS)
async def test_a_child_that_ends_as_its_place_is_cancelled_gets_no_successor_to_wait_for(
    place: Post, started: list[Process], turns: int
) -> None:
    task = asyncio.create_task(place.run())
    # The link's other end is closed with our copy of it: the place waits for the child's end.
    await eventually(lambda: started and started[0].waited)
    started[0].end(0)
    assert await cancelled(task, turns)


@pytest.mark.parametrize("turns", TURNS)
async def test_a_place_that_retires_as_it_is_cancelled_does_not_go_on(
    place: Post, started: list[Process], turns: int
) -> None:
    task = asyncio.create_task(place.run())
    for number in range(2):  # the second pauses before a third
        await eventually(lambda number=number: len(started) > number and started[number].waited)
        started[number].end(1)
    await eventually(lambda: place.restarts == 2)
    place.retire()
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task], timeout=1.0)
    assert task.done() and len(started) == 2
