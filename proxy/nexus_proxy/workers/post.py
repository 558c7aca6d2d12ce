"""One place for a worker: started, heard, ended, started again.

Promises that a worker which dies is replaced at once, and one that dies again soon after a growing
pause; that it accepts from sockets which outlive it, so that a connection which waits for it finds
its successor; and that those are closed where that takes long, so that others get what comes. It
decides nothing of what a worker says.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import sys
from collections.abc import Callable, Sequence
from typing import Protocol

from nexus_api.pace import paced
from nexus_proxy.workers.fleet import Hand
from nexus_proxy.workers.link import Link
from nexus_proxy.workers.sockets import Listeners
from nexus_proxy.workers.wire import Down, Drained, Serving, Up, decode_up

STEADY_SECONDS = 30.0
PAUSE_FIRST_SECONDS = 0.5
PAUSE_MOST_SECONDS = 15.0
HELD_SECONDS = 1.0  # clients may wait so long for a worker that is not there
SILENT_SECONDS = paced(30.0)
AWAY_SECONDS = 5.0
LAST_SECONDS = 5.0  # for a process to end that has nothing more to say

_log = logging.getLogger("nexus.proxy.workers")


class Keeper(Protocol):
    """Who is told of a worker's life."""

    def began(self, post: Post) -> None:
        """A worker was started and may be told of the world."""

    def heard(self, post: Post, message: Up) -> None:
        """It said something."""

    def ended(self, post: Post) -> None:
        """It is gone, after all it had said."""


class Post:
    """The place of worker `number`, counted from one, with the parent's own `arguments`."""

    def __init__(
        self,
        number: int,
        arguments: Sequence[str],
        listeners: Listeners,
        keeper: Keeper,
        *,
        clock: Callable[[], float],
        random: Callable[[], float],
    ) -> None:
        self.number = number
        self.serving = False
        self.whole = False
        self.restarts = 0
        self.hand: Hand | None = None
        self._arguments = arguments
        self._listeners = listeners
        self._keeper = keeper
        self._clock = clock
        self._random = random
        self._sockets = listeners.open()
        self._process: asyncio.subprocess.Process | None = None
        self._link: Link | None = None
        self._heard_at = self._ticked = 0.0
        self._retired = asyncio.Event()
        self._failures = 0

    @property
    def pid(self) -> int | None:
        """The worker's process, None while there is none."""
        process = self._process
        return None if process is None or process.returncode is not None else process.pid

    @property
    def there(self) -> bool:
        """There is a worker that can be told something."""
        return self._link is not None

    async def run(self) -> None:
        """Keep a worker here until it is asked to stop."""
        while not self._retired.is_set():
            began = self._clock()
            try:
                self._sockets = self._sockets or self._listeners.open()
                end = _way(await self._live())
            except OSError as error:
                end = f"the system ({error.strerror or error})"
            if self._retired.is_set():
                return
            lived = self._clock() - began
            self._failures = 1 if lived >= STEADY_SECONDS else self._failures + 1
            self.restarts += 1
            pause = self._pause()
            when = f" in {pause:.1f} s" if pause else ""
            text = "worker %d ended by %s after %.1f s and is started again%s"
            _log.error(text, self.number, end, lived, when)
            if pause > HELD_SECONDS:
                self._close_sockets()
            if pause:
                # Not wait_for, here and below: what ends at the moment of a cancellation would
                # swallow that.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await self._retired.wait()
                    return

    def _pause(self) -> float:
        if self._failures < 2:
            return 0.0
        grown = PAUSE_FIRST_SECONDS * 2.0 ** min(self._failures - 2, 16)
        return min(grown, PAUSE_MOST_SECONDS) * (0.5 + 0.5 * self._random())

    async def _live(self) -> int:
        """One worker from its start to its end; its exit code."""
        gone = asyncio.Event()
        ours, theirs = socket.socketpair()
        with contextlib.ExitStack() as unless, theirs:
            unless.enter_context(ours)
            files = [theirs.fileno(), *(each.fileno() for each in self._sockets)]
            numbers = ",".join(map(str, files[1:]))
            process = await asyncio.create_subprocess_exec(
                # Not from the working directory, where modules of any name may lie.
                *(sys.executable, "-P", "-m", "nexus_proxy.workers"),
                *(str(self.number), str(files[0]), numbers, *self._arguments),
                stdin=asyncio.subprocess.DEVNULL,
                pass_fds=files,
            )
            unless.pop_all()
        self._process = process
        link = Link(self._take, gone.set)
        try:
            await link.open(ours)
            self._link, self._heard_at = link, self._clock()
            self._keeper.began(self)
            await gone.wait()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LAST_SECONDS):
                    await process.wait()
        finally:
            self.serving = False
            self._link = None
            self.kill()
            code = await process.wait()
            self._keeper.ended(self)
        return code

    def _take(self, body: bytes) -> None:
        self._heard_at = self._clock()
        message = decode_up(body)
        if isinstance(message, Serving):
            self.serving = True
            _log.info("worker %d serves (pid %s)", self.number, self.pid)
        elif isinstance(message, Drained):
            self.whole = message.whole
        self._keeper.heard(self, message)

    def send(self, message: Down) -> None:
        """Tell the worker, if there is one."""
        if self._link is not None:
            self._link.send(message)

    def tick(self, now: float) -> None:
        """Once a second: end a worker that does not give a sign of life."""
        away, self._ticked = now - self._ticked > AWAY_SECONDS, now
        if away:
            self._heard_at = now  # this process was stopped itself, as by a machine that sleeps
        if self._link is None or now < self._heard_at + SILENT_SECONDS:
            return
        _log.error("worker %d has been silent for %.0f s", self.number, now - self._heard_at)
        self._heard_at = now
        self.kill()

    def retire(self) -> None:
        """Take no more connections, and start no other worker once this one is gone."""
        self._retired.set()
        self._close_sockets()

    def kill(self) -> None:
        """End it without a word, if there is one."""
        if self._process is not None and self.pid is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()

    def _close_sockets(self) -> None:
        for each in self._sockets:
            each.close()
        self._sockets = []


def _way(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"
