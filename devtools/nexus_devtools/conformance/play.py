"""Plays a case against a proxy: a scripted client, a scripted backend, and a further request.

Promises to read strictly, to wait on conditions with a deadline, and to end every run with a
well-formed request (on the same connection where it is open) that must get its own answer: a proxy
that has lost count of messages shows there.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Awaitable, Callable
from typing import Protocol

from nexus_devtools.conformance.case import Case, End, Run, Step
from nexus_devtools.rawhttp.messages import Incomplete, Message, answer, post, read_message
from nexus_devtools.rawhttp.peers import Peer, Script, until

PROBE = b'{"model":"m","messages":[],"user":"probe"}'
PROBED = b'{"probed":true}'
DEADLINE = 5.0
QUIET_SECONDS = 0.7  # so long nothing comes: nothing will


class Target(Protocol):
    """A proxy in front of the scripted backend."""

    async def open(self) -> Peer:
        """A client's connection to it."""

    async def patience(self, sent: int) -> None:
        """Return once any peer that should have said something has been given up; the client has
        sent so many bytes.
        """


def guarded(scripts: tuple[Script, ...], run: Run) -> Script:
    """The scripts of a case in turn, with the further request answered apart from them."""

    async def script(peer: Peer, request: Message) -> None:
        if request.body == PROBE:
            await peer.send(answer(PROBED))
            return
        run.requests.append(request)
        await scripts[min(len(run.requests), len(scripts)) - 1](peer, request)

    return script


def answers_in(line: str) -> int:
    """How many final answers a recorded line tells of."""
    return sum(status >= "200" for status in itertools.takewhile(str.isdigit, line.split()))


class Wire:
    """A reader that knows whether anything has been read."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self._reader = reader
        self.taken = False

    async def read(self, n: int = -1, /) -> bytes:
        return await self._noting(self._reader.read(n))

    async def readexactly(self, n: int, /) -> bytes:
        return await self._noting(self._reader.readexactly(n))

    async def readuntil(self, separator: bytes = b"\n", /) -> bytes:
        return await self._noting(self._reader.readuntil(separator))

    async def _noting(self, reading: Awaitable[bytes]) -> bytes:
        try:
            data = await reading
        except asyncio.IncompleteReadError as error:
            self.taken |= bool(error.partial)
            raise
        self.taken |= bool(data)
        return data


class Player:
    """One run of one case, of which `expected` was recorded (None: nothing, take what comes)."""

    def __init__(self, case: Case, target: Target, run: Run, *, expected: str | None) -> None:
        self._case = case
        self._target = target
        self._run = run
        self._expected = None if expected is None else answers_in(expected)
        self._ends = expected is not None and End.OPEN.value not in expected.split()
        patient = expected is not None and End.STUCK.value not in expected
        self._deadline = DEADLINE if patient else QUIET_SECONDS
        self._piecewise = False
        self._sent: list[bytes] = []
        self._client: Peer
        self._wire: Wire
        self._steps: dict[Step, Callable[[], Awaitable[None]]] = {
            Step.TOO_LONG: self._too_long,
            Step.INTERIM: self._interim,
            Step.REACHED: self._reached,
            Step.HALF_CLOSE: self._half_close,
            Step.BYTEWISE: self._bytewise,
        }

    async def play(self) -> None:
        """Play it; the run holds what happened."""
        run = self._run
        self._client = client = await self._target.open()
        try:
            with contextlib.suppress(ConnectionError):
                for step in self._case.sends:
                    await self._step(step)
            await self._read_answers()
            if run.end is End.OPEN:
                await self._look_at_end(client)
        finally:
            client.abort()
        if run.end is not End.OPEN:
            await self._ask_anew()

    async def _step(self, step: bytes | Step) -> None:
        if isinstance(step, Step):
            await self._steps[step]()
        else:
            self._sent.append(step)
            await self._client.send_bytewise(step, 1 if self._piecewise else len(step))

    async def _too_long(self) -> None:
        await self._target.patience(sum(len(step) for step in self._sent))

    async def _interim(self) -> None:
        line = await self._client.receive_interim()
        self._run.interim.append(int(line.split()[1]))

    async def _reached(self) -> None:
        await until(lambda: self._run.requests)

    async def _half_close(self) -> None:
        self._client.writer.write_eof()

    async def _bytewise(self) -> None:
        self._piecewise = True

    async def _read_answers(self) -> None:
        run = self._run
        while self._expected is None or self._ends or len(run.answers) < self._expected:
            if run.answers and run.answers[-1].values("connection") == [b"close"]:
                return
            try:
                message = await asyncio.wait_for(self._receive(), self._deadline)
            except Incomplete:
                run.end = End.CUT if self._wire.taken else End.CLOSED
                return
            except TimeoutError:
                stuck = self._wire.taken or self._expected is not None
                run.end = End.STUCK if stuck else End.OPEN
                return
            if message.status < 200:
                run.interim.append(message.status)
            else:
                run.answers.append(message)

    async def _receive(self) -> Message:
        self._wire = Wire(self._client.reader)
        return await read_message(self._wire, head_only=self._case.head)

    async def _look_at_end(self, client: Peer) -> None:
        """Ask once more: an open connection answers just that."""
        run = self._run
        try:
            await client.send(post(PROBE))
            message = await asyncio.wait_for(read_message(client.reader), self._deadline)
        except TimeoutError:
            run.end = End.STUCK
        except (Incomplete, ConnectionError):
            run.end = End.CLOSED
        else:
            run.afterwards = _judged(message)

    async def _ask_anew(self) -> None:
        client = await self._target.open()
        try:
            await client.send(post(PROBE))
            self._run.afterwards = _judged(await client.receive())
        except (Incomplete, ConnectionError, TimeoutError) as error:
            self._run.afterwards = f"afterwards: {type(error).__name__}"
        finally:
            client.abort()


def _judged(message: Message) -> str:
    if message.start.split()[1:2] == [b"200"] and message.body == PROBED:
        return "serves"
    return f"afterwards: {message.start[:40].decode('latin-1')}"
