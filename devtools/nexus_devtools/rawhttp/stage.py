"""A byte path between scripted peers on loopback, with a router that tries what it is told.

Promises to check, at the end, the one invariant of attempts: each began once, ended once, and freed
its place.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from nexus_devtools.rawhttp.messages import Message, post
from nexus_devtools.rawhttp.peers import Peer, Script, Upstream, open_client
from nexus_proxy.counters import Counters
from nexus_proxy.http.exchange import INFINITY
from nexus_proxy.http.gateway import Gateway
from nexus_proxy.http.listener import Listener
from nexus_proxy.http.wheel import NEVER
from nexus_proxy.routing.candidate import Backend, Candidate, Credentials, Origin, Timeouts
from nexus_proxy.routing.endpoint import Endpoint
from nexus_proxy.routing.request import Call
from nexus_proxy.routing.router import Choice, Reason, Rejection
from nexus_quality.outcome import Outcome


class FakeAttempt:
    """Counts its endings."""

    def __init__(self) -> None:
        self.sent_at: list[float] = []
        self.content_at: list[float] = []
        self.outcomes: list[Outcome] = []

    def sent(self, now: float) -> None:
        self.sent_at.append(now)

    def content(self, now: float) -> None:
        self.content_at.append(now)

    def end(self, outcome: Outcome, now: float, *, cost_nano_usd: int = 0) -> None:
        self.outcomes.append(outcome)


class FakeSubject:
    """Hands out attempts and remembers them."""

    def __init__(self) -> None:
        self.attempts: list[FakeAttempt] = []

    def begin(self, now: float, *, probe: bool = False, last_resort: bool = False) -> FakeAttempt:
        attempt = FakeAttempt()
        self.attempts.append(attempt)
        return attempt


class FakeRouter:
    """Tries the candidates in the order given, each once."""

    ready = True

    def __init__(self) -> None:
        self.choices: list[Choice] = []
        self.free: list[bool] = []
        self.calls: list[Call] = []

    def choose(self, call: Call, now: float) -> Choice | Rejection:
        self.calls.append(call)
        return self._next(call)

    def again(self, call: Call, now: float, *, first_retry_free: bool) -> Choice | Rejection:
        self.free.append(first_retry_free)
        return self._next(call)

    def _next(self, call: Call) -> Choice | Rejection:
        if len(call.tried) < len(self.choices):
            return self.choices[len(call.tried)]
        reasons = tuple(
            Reason(choice.candidate.backend.name, "SchedulerReconciler", text, "look at it")
            for choice, text in call.tried
        )
        return Rejection(503, "no_available_backend", "nobody is left", reasons, retry_after=7)

    def models(self) -> bytes:
        return b'{"object":"list","data":[{"id":"m","object":"model"}]}'


@dataclass
class Stage:
    """Everything a test plays with."""

    router: FakeRouter = field(default_factory=FakeRouter)
    counters: Counters = field(default_factory=Counters)
    clock: Callable[[], float] = time.monotonic
    upstreams: list[Upstream] = field(default_factory=list)
    clients: list[Peer] = field(default_factory=list)
    subjects: list[FakeSubject] = field(default_factory=list)
    gateway: Gateway = field(init=False)
    max_body_bytes: int = 64 * 1024 * 1024
    listener: Listener = field(default_factory=Listener)
    trust: ssl.SSLContext | None = None  # of its clients, if they speak TLS

    async def start(self) -> None:
        self.gateway = Gateway(
            router=self.router,
            clock=self.clock,
            counters=self.counters,
            max_body_bytes=self.max_body_bytes,
        )
        self.gateway.listener = self.listener
        await self.gateway.start("127.0.0.1", 0)

    async def backend(
        self,
        *scripts: Script,
        credentials: Credentials | None = None,
        timeouts: Timeouts | None = None,
        rewrite: str | None = None,
        fallback: str | None = None,
        port: int | None = None,
        prefix: str = "",
    ) -> Upstream:
        """Add a backend that the router tries after those there are."""
        upstream = Upstream(*scripts)
        await upstream.start()
        self.upstreams.append(upstream)
        name = f"b{len(self.router.choices)}"
        address = port or upstream.port
        origin = Origin(
            scheme="http",
            host="127.0.0.1",
            port=address,
            authority=b"127.0.0.1:%d" % address,
            base_path=prefix.encode(),
            paths={e: (prefix + e.path).encode() for e in Endpoint},
        )
        backend = Backend(
            name,
            "ns",
            name,
            origin=origin,
            timeouts=timeouts,
            credentials=credentials,
            answer_headers=b"X-Nexus-Backend: %b\r\nX-Nexus-Backend-Type: local\r\n"
            b"X-Nexus-Privacy-Zone: restricted\r\n" % name.encode(),
        )
        subject = FakeSubject()
        self.subjects.append(subject)
        candidate = Candidate(backend, "m", subject=subject)  # type: ignore[arg-type]
        self.router.choices.append(Choice(candidate, rewrite=rewrite, fallback_model=fallback))
        return upstream

    async def client(self) -> Peer:
        peer = await open_client(self.gateway.port, self.trust)
        self.clients.append(peer)
        return peer

    async def ask(self, data: bytes | None = None) -> Message:
        """One request on a connection of its own, and its answer."""
        client = await self.client()
        await client.send(data if data is not None else post())
        message = await client.receive()
        await client.close()
        return message

    def attempts(self, index: int = 0) -> list[FakeAttempt]:
        return self.subjects[index].attempts

    def outcomes(self, index: int = 0) -> list[Outcome]:
        return [outcome for attempt in self.attempts(index) for outcome in attempt.outcomes]

    def backend_of(self, index: int = 0) -> Backend:
        return self.router.choices[index].candidate.backend

    def hold_connects(self) -> Callable[[], None]:
        """Let no new connection (clients too) come about until the returned function is called."""
        loop = asyncio.get_running_loop()
        original = loop.create_connection
        released = asyncio.Event()

        async def later(*args: Any, **options: Any) -> Any:
            await released.wait()
            return await original(*args, **options)

        def release() -> None:
            setattr(loop, "create_connection", original)  # noqa: B010
            released.set()

        setattr(loop, "create_connection", later)  # noqa: B010 (mypy forbids the assignment)
        return release

    def tick(self, seconds: float = 0.0) -> None:
        """Let the gateway believe that so many seconds have passed; nobody may be forgotten."""
        self.gateway.tick(self.clock() + seconds)
        waiting = {each.client for each in self.gateway.exchanges if each.deadline == INFINITY}
        lost = {client for client in self.gateway.clients - waiting if client.due == NEVER}
        assert not lost, "a connection that no tick will look at"

    async def stop(self) -> None:
        for client in self.clients:
            client.abort()
        await self.gateway.drain(0.2)
        for upstream in self.upstreams:
            await upstream.stop()

    def check_attempts(self) -> None:
        assert not self.gateway.exchanges, "an exchange was forgotten"
        assert self.counters.active_downstreams == 0
        assert self.counters.active_streams == 0
        for index, choice in enumerate(self.router.choices):
            for attempt in self.attempts(index):
                assert len(attempt.outcomes) == 1, f"an attempt ended as {attempt.outcomes}"
            assert choice.candidate.backend.in_flight == 0
