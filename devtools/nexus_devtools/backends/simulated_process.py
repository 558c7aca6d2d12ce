"""A simulated backend as a process of its own, driven from synchronous code.

Promises: it listens when ``start`` returns and is gone when ``stop`` does; script and ledger are
reached over its control port. It is NOT needed in asynchronous tests: see ``SimulatedBackend``.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx
import msgspec

from nexus_devtools.backends.ledger import Seen
from nexus_devtools.backends.process import Child, ChildError
from nexus_devtools.backends.script import Script, script_to_json


class SimulatedProcess:
    """A simulated backend as a process: ``with SimulatedProcess(name="sim-a") as sim: sim.url``."""

    def __init__(
        self,
        *,
        name: str = "sim",
        models: Sequence[str] = ("sim-model",),
        script: Script | None = None,
        port: int = 0,
        log: Path | None = None,
    ) -> None:
        self.name = name
        self._folder = None if log else tempfile.TemporaryDirectory(prefix="nexus-simulated-")
        self._log = log or Path(self._folder.name if self._folder else ".") / f"{name}.log"
        self._command = (
            *(sys.executable, "-m", "nexus_devtools.backends.simulated"),
            *("--port", str(port), "--name", name, "--models", ",".join(models)),
            *("--script", script_to_json(script or Script()).decode()),
        )
        self._child: Child | None = None
        self._client: httpx.Client | None = None
        self.url = self.control_url = ""

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self) -> Self:
        """Start it and wait until it listens."""
        self._child = child = Child(self._command, log=self._log, name=self.name)
        try:
            self.url = "http://" + child.wait_for_line(r"^listening on (\S+)$")[1]
            self.control_url = "http://" + child.wait_for_line(r"^control on (\S+)$")[1]
            self._client = httpx.Client(base_url=self.control_url, trust_env=False)
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """End it; calling twice is fine."""
        if self._client is not None:
            self._client.close()
        if self._child is not None:
            self._child.stop()
        if self._folder is not None:
            self._folder.cleanup()

    @property
    def child(self) -> Child:
        """The process itself, for tests that kill it."""
        if self._child is None:
            raise ChildError(f"{self.name} is not started")
        return self._child

    def set(self, script: Script) -> None:
        """Behave like this from now on."""
        self._control("POST", "/_script", script_to_json(script))

    def seen(self) -> Seen:
        """What it has seen so far."""
        return msgspec.json.decode(self._control("GET", "/_seen", b""), type=Seen)

    def _control(self, method: str, path: str, content: bytes) -> bytes:
        if self._client is None:
            raise ChildError(f"{self.name} is not started")
        return self._client.request(method, path, content=content).raise_for_status().content
