"""Reports are taken in turn, and a crowd of them leaves room for everything else."""

from __future__ import annotations

import asyncio
import time

import pytest

from nexus_operator.slices import SLICE_SECONDS
from nexus_operator.turns import AGAIN_SECONDS, WAIT_SECONDS, Turns


def work() -> None:
    """A piece that takes as long as a turn of the loop may."""
    end = time.monotonic() + SLICE_SECONDS
    while time.monotonic() < end:
        pass


async def test_a_crowd_of_reports_lets_others_have_every_other_turn() -> None:
    turns, order = Turns(), []

    async def report(number: int) -> None:
        async with turns:
            for _ in range(2):
                order.append(number)
                work()
                await turns.pause()

    async def somebody_else() -> None:
        while order.count(9) < 2:
            order.append(-1)
            await asyncio.sleep(0)

    await asyncio.gather(*map(report, range(10)), somebody_else())
    pieces = [number for number in order if number >= 0]
    assert pieces == [number for number in range(10) for _ in range(2)]
    together = "".join("e" if number < 0 else "r" for number in order).split("e")
    assert max(map(len, together)) <= 2


class Crowd:
    """Turns that take as long as the test says."""

    def __init__(self) -> None:
        self.now = 100.0
        self.turns = Turns(lambda: self.now)

    async def take(self, seconds: float) -> None:
        async with self.turns:
            self.now += seconds

    async def wait(self, number: int) -> list[asyncio.Task[None]]:
        """As many are waiting behind one that takes its time."""
        gate = asyncio.Event()

        async def hold() -> None:
            async with self.turns:
                await gate.wait()

        tasks = [asyncio.create_task(hold()) for _ in range(number + 1)]
        await asyncio.sleep(0)
        self.open = gate.set
        return tasks


@pytest.fixture
def crowd() -> Crowd:
    return Crowd()


async def test_without_a_crowd_every_report_may_come(crowd: Crowd) -> None:
    for _ in range(50):
        await crowd.take(0.5)
    assert crowd.turns.again() == 0.0


async def test_one_that_would_wait_for_too_long_is_told_when_to_come_again(crowd: Crowd) -> None:
    for _ in range(200):
        await crowd.take(0.1)
    few = int(WAIT_SECONDS / 0.1) - 1
    waiting = await crowd.wait(few)
    assert crowd.turns.again() == 0.0
    waiting += await crowd.wait(few)
    least, most = AGAIN_SECONDS
    assert least <= crowd.turns.again() <= most
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    assert crowd.turns.again() == 0.0
    await asyncio.wait_for(crowd.take(0.1), 1.0)


async def test_an_error_of_one_leaves_the_turn_to_the_next(crowd: Crowd) -> None:
    with pytest.raises(ValueError):
        async with crowd.turns:
            raise ValueError
    await asyncio.wait_for(crowd.take(0.1), 1.0)
