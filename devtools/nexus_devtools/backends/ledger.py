"""What a simulated backend has seen, counted.

Promises: every inference request is counted once when it arrives and once when it ends; raw bytes
are kept only as length and digest. It is NOT a log: only the last request is kept in detail.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import Counter
from collections.abc import Iterable

import msgspec


class LastRequest(msgspec.Struct, frozen=True, kw_only=True):
    """The most recent inference request, exact enough to test that bytes were passed through."""

    method: str
    path: str
    headers: tuple[tuple[str, str], ...]
    body_sha256: str
    body_length: int


class SinceScript(msgspec.Struct, frozen=True, kw_only=True):
    """Counts since the present script was set."""

    seconds: float
    requests: int
    faulted: int


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """A snapshot of the ledger, as ``GET /_seen`` gives it."""

    name: str
    requests: int
    """Inference requests (POSTs); probes and model lists appear in ``by_path`` alone."""
    completed: int
    """Answered to the end as the script wanted, errors included."""
    aborted: int
    """Given up by the client before the answer was complete."""
    faulted: int
    in_flight: int
    peak_in_flight: int
    connections: int
    by_path: dict[str, int]
    by_model: dict[str, int]
    by_fault: dict[str, int]
    since_script: SinceScript
    last: LastRequest | None
    simulated: bool = True


class Ledger:
    """Counters of one backend; used from its event loop only."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._paths: Counter[str] = Counter()
        self._models: Counter[str] = Counter()
        self._faults: Counter[str] = Counter()
        self._requests = self._completed = self._aborted = 0
        self._in_flight = self._peak = self._connections = 0
        self._last: LastRequest | None = None
        self.changed = asyncio.Event()
        """Set whenever a request begins or ends."""
        self.mark_script()

    def mark_script(self) -> None:
        """A new script is in force: ``since_script`` starts at zero."""
        self._mark = time.monotonic()
        self._mark_requests = self._requests
        self._mark_faulted = sum(self._faults.values())

    def path(self, method: str, path: str) -> None:
        """Count any request by path."""
        self._paths[f"{method} {path}"] += 1

    def connection(self) -> None:
        """Count an accepted connection."""
        self._connections += 1

    def began(self, path: str, headers: Iterable[tuple[str, str]], body: bytes) -> None:
        """An inference request arrived whole."""
        self.changed.set()
        self._requests += 1
        self._in_flight += 1
        self._peak = max(self._peak, self._in_flight)
        self._last = LastRequest(
            method="POST",
            path=path,
            headers=tuple((str(name), str(value)) for name, value in headers),
            body_sha256=hashlib.sha256(body).hexdigest(),
            body_length=len(body),
        )

    def addressed(self, model: str) -> None:
        """The request in hand is for this model."""
        self._models[model] += 1

    def struck(self, fault: str) -> None:
        """A fault struck the request in hand."""
        self._faults[fault] += 1

    def ended(self, *, aborted: bool) -> None:
        """The request in hand is over, given up by the client or not."""
        self.changed.set()
        self._in_flight -= 1
        if aborted:
            self._aborted += 1
        else:
            self._completed += 1

    def snapshot(self) -> Seen:
        """Everything counted so far."""
        faulted = sum(self._faults.values())
        return Seen(
            name=self._name,
            requests=self._requests,
            completed=self._completed,
            aborted=self._aborted,
            faulted=faulted,
            in_flight=self._in_flight,
            peak_in_flight=self._peak,
            connections=self._connections,
            by_path=dict(self._paths),
            by_model=dict(self._models),
            by_fault=dict(self._faults),
            since_script=SinceScript(
                seconds=round(time.monotonic() - self._mark, 3),
                requests=self._requests - self._mark_requests,
                faulted=faulted - self._mark_faulted,
            ),
            last=self._last,
        )
