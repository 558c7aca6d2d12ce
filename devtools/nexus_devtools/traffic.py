"""Steady traffic behind the back of a test that changes the world meanwhile.

Promises one request after the other through each proxy, at a modest pace, each counted with its
status and the backend that served it, until it is ended. It is NOT a load generator.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

import httpx

PAUSE_SECONDS = 0.04
NONE = "-"


class Traffic:
    """A context manager: it flows inside. `urls`: base URLs of proxies, by name."""

    def __init__(self, urls: Mapping[str, str], model: str) -> None:
        self._body: dict[str, Any] = {
            "model": model,
            "messages": [{"role": "user", "content": "Still there?"}],
        }
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._statuses: Counter[int] = Counter()
        self._served: Counter[str] = Counter()
        self.failed: list[str] = []
        """What a client got that was no 200, in words."""
        self._threads = [
            threading.Thread(target=self._flow, args=(url,), name=f"traffic to {name}", daemon=True)
            for name, url in urls.items()
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    @property
    def requests(self) -> int:
        """How many were answered so far, however."""
        with self._lock:
            return self._statuses.total()

    def served(self, backend: str) -> int:
        """How many a backend served so far."""
        with self._lock:
            return self._served[backend]

    def served_in(self, backend: str, seconds: float) -> int:
        """How many a backend serves in the next seconds."""
        before = self.served(backend)
        time.sleep(seconds)
        return self.served(backend) - before

    def _flow(self, url: str) -> None:
        with httpx.Client(base_url=url, trust_env=False, timeout=10) as client:
            while not self._stop.wait(PAUSE_SECONDS):
                try:
                    answer = client.post("/v1/chat/completions", json=self._body)
                except httpx.TransportError as error:
                    self._count(0, NONE, f"{error!r}")
                else:
                    name = answer.headers.get("x-nexus-backend", NONE)
                    self._count(answer.status_code, name, answer.text[:300])

    def _count(self, status: int, backend: str, text: str) -> None:
        with self._lock:
            self._statuses[status] += 1
            self._served[backend] += 1
            if status != httpx.codes.OK:
                self.failed.append(f"{status} from {backend}: {text}")
