"""A scripted API server behind httpx.MockTransport, and a reflector that reads from it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import httpx
import msgspec
import pytest

from nexus_api import LLMBackend, decode_backend
from nexus_proxy.kube.client import KubeClient, ServerClock
from nexus_proxy.kube.kubeconfig import Access
from nexus_proxy.kube.reflector import Reflector
from nexus_proxy.kube.store import Store


def item(name: str, version: int = 1, **spec: Any) -> dict[str, Any]:
    """An LLMBackend as the API server sends it."""
    return {
        "apiVersion": "nexus.dev/v1alpha1",
        "kind": "LLMBackend",
        "metadata": {
            "name": name,
            "namespace": "team",
            "uid": f"uid-{name}",
            "resourceVersion": str(version),
        },
        "spec": {"url": "http://b:1", **spec},
    }


def listing(*items: dict[str, Any], version: int = 10, more: str = "") -> httpx.Response:
    """A page of a list."""
    metadata = {"resourceVersion": str(version), **({"continue": more} if more else {})}
    return httpx.Response(200, json={"metadata": metadata, "items": list(items)})


class Events(httpx.AsyncByteStream):
    """The body of a watch: events as lines, then an end, an error, or silence for ever."""

    def __init__(self, *events: tuple[str, dict[str, Any]], end: Any = None) -> None:
        self._events = events
        self._end = end

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for kind, body in self._events:
            line = msgspec.json.encode({"type": kind, "object": body}) + b"\n"
            middle = len(line) // 2
            yield line[:middle]
            yield line[middle:]
        if isinstance(self._end, Exception):
            raise self._end
        if self._end == "silence":
            await asyncio.Event().wait()


def watching(*events: tuple[str, dict[str, Any]], end: Any = None) -> httpx.Response:
    """The answer to a watch."""
    return httpx.Response(200, stream=Events(*events, end=end))


Answer = httpx.Response | Exception
ACCESS = Access("http://api", "test", token="t0ken")


@dataclass
class Scene:
    """A reflector against scripted answers; it runs until they are used up."""

    answers: list[Answer] = field(default_factory=list)
    requests: list[httpx.Request] = field(default_factory=list)
    pauses: list[float] = field(default_factory=list)
    changes: int = 0
    access: Access = ACCESS
    now: float = 1000.0

    def __post_init__(self) -> None:
        self.store: Store[LLMBackend] = Store(
            "llmbackends", decode_backend, on_change=self._changed
        )
        self.server_clock = ServerClock(now=self.now, local=5.0)
        self._used = asyncio.Event()

    def _changed(self) -> None:
        self.changes += 1

    async def _answer(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        if not self.answers:
            self._used.set()
            await asyncio.Event().wait()
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def _sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        await asyncio.sleep(0)

    async def play(self, *answers: Answer) -> None:
        """Run the reflector until every answer was given and one more was asked for."""
        self.answers = list(answers)
        client = KubeClient(self.access, transport=httpx.MockTransport(self._answer))
        reflector = Reflector(
            client,
            self.store,
            namespace="team",
            clock=lambda: self.now,
            server_clock=self.server_clock,
            random=lambda: 0.5,
            sleep=self._sleep,
        )
        task = asyncio.create_task(reflector.run())
        used = asyncio.create_task(self._used.wait())
        await asyncio.wait({task, used}, timeout=5, return_when=asyncio.FIRST_COMPLETED)
        finished = task.done()
        for each in (task, used):
            each.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await each
        await client.close()
        assert not finished
        assert not self.answers, f"{len(self.answers)} answers were never asked for"

    @property
    def names(self) -> list[str]:
        """What the store holds."""
        return sorted(each.metadata.name for each in self.store.objects.values())

    def query(self, number: int) -> dict[str, str]:
        """The query of a request."""
        return dict(self.requests[number].url.params)


@pytest.fixture
def scene() -> Scene:
    """A new scene."""
    return Scene()


@pytest.fixture
def make_item() -> Callable[..., dict[str, Any]]:
    """Makes LLMBackends as the API server sends them."""
    return item


@pytest.fixture
def make_list() -> Callable[..., httpx.Response]:
    """Makes pages of a list."""
    return listing


@pytest.fixture
def make_watch() -> Callable[..., httpx.Response]:
    """Makes answers to a watch."""
    return watching
