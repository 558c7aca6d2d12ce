"""Where clients meet servers: servers, a tap before each, the proxy, a tap before it.

Promises: what goes in on one side can be compared with what comes out on the other, byte by byte,
and `since` keeps tests apart that share a place. It is NOT a client.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from nexus_devtools.e2e import eventually
from nexus_devtools.realworld.exchanges import Exchange, exchanges
from nexus_devtools.realworld.standalone import Standalone
from nexus_devtools.realworld.tap import Tap

HOP_BY_HOP = frozenset(("connection", "keep-alive", "transfer-encoding", "content-length"))
"""Headers that belong to one connection, or to how one message is framed."""
CLIENTS_KEY = "sk-of-the-client-0123456789"
"""What every client sends as its own API key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """One request as the client saw it and as its backend did."""

    client: Exchange
    backend: Exchange
    served_by: str


@dataclass(slots=True, kw_only=True)
class Place:
    """A proxy between taps: clients are pointed at `url`."""

    proxy: Standalone
    front: Tap
    backs: Mapping[str, Tap]
    """By the name of the LLMBackend."""
    pairs: list[Pair] = field(default_factory=list)
    """What `watched` saw last."""

    @property
    def url(self) -> str:
        """Base URL for clients, with `/v1`."""
        return f"{self.front.url}/v1"

    def mark(self) -> Mapping[str, int]:
        """How much was said up to now."""
        return {name: len(_posts(tap)) for name, tap in self._taps().items()}

    def since(self, mark: Mapping[str, int]) -> dict[str, list[Exchange]]:
        """The POSTs after a mark, by backend; `""` is the client's side."""
        return {name: _posts(tap)[mark[name] :] for name, tap in self._taps().items()}

    def _taps(self) -> dict[str, Tap]:
        return {"": self.front, **self.backs}

    @contextmanager
    def watched(self) -> Iterator[list[Pair]]:
        """Afterwards the list holds every request of the block, paired; AssertionError if a byte
        of a body differs, or a header that is the two ends' own business.
        """
        self.pairs = []
        mark = self.mark()
        yield self.pairs
        said = eventually(
            lambda: self.since(mark), _settled, what="every answer complete on both sides"
        )
        self.pairs += _paired(said)
        for pair in self.pairs:
            assert_equal_bytes(pair)


def _posts(tap: Tap) -> list[Exchange]:
    return exchanges(tap, method="POST")


def _settled(said: Mapping[str, list[Exchange]]) -> bool:
    clients, backends = said[""], [e for name, es in said.items() if name for e in es]
    whole = all(each.finished for each in (*clients, *backends))
    return whole and len(clients) == len(backends) > 0


def _paired(said: Mapping[str, list[Exchange]]) -> Iterator[Pair]:
    """Each request of a client with the next of the backend that its answer names."""
    waiting = {name: iter(found) for name, found in said.items()}
    for exchange in said[""]:
        name = exchange.answer_header("x-nexus-backend") or ""
        yield Pair(client=exchange, backend=next(waiting[name]), served_by=name)


def assert_equal_bytes(pair: Pair) -> None:
    """The request and the answer on both sides are the same."""
    client, backend = pair.client, pair.backend
    assert (client.method, client.path) == (backend.method, backend.path)
    assert client.body == backend.body
    assert client.status == backend.status
    assert client.answer == backend.answer
    assert dict(_own(backend.answer_headers)).items() <= dict(client.answer_headers).items()


def secrets_seen(tap: Tap, *secrets: str) -> set[str]:
    """Which of these texts were among the raw bytes that arrived there, whatever they belong to."""
    arrived = [b"".join(data for _, data in wire.sent) for wire in tap.wires]
    return {each for each in secrets if any(each.encode() in raw for raw in arrived)}


def _own(headers: tuple[tuple[str, str], ...]) -> list[tuple[str, str]]:
    return [(name, value) for name, value in headers if name not in HOP_BY_HOP]


def manifest(name: str, url: str, **spec: Any) -> dict[str, Any]:
    """An LLMBackend of these tests."""
    return _object("LLMBackend", name, {"url": url, **spec})


def routing(**spec: Any) -> dict[str, Any]:
    """A RoutingPolicy of these tests."""
    return _object("RoutingPolicy", "default", spec)


def quality(**spec: Any) -> dict[str, Any]:
    """A QualityPolicy of these tests: one process is the whole fleet."""
    return _object("QualityPolicy", "default", {"minReporters": 1, **spec})


def _object(kind: str, name: str, spec: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "apiVersion": "nexus.dev/v1alpha1",
        "kind": kind,
        "metadata": {"name": name},
        "spec": dict(spec),
    }
