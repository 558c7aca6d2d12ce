"""The real model's server as a process of its own.

Promises: the model is loaded when ``start`` returns, and the process is gone when ``stop`` does. It
is NOT the server: that is ``model_server``.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx

from nexus_devtools.backends.process import Child, ChildError


class ModelProcess:
    """The real model as a process: ``with ModelProcess(log=file) as model: model.url``."""

    def __init__(self, *, log: Path, port: int = 0) -> None:
        module = "nexus_devtools.backends.model_server"
        self._command = (sys.executable, "-m", module, "--port", str(port))
        self._log = log
        self._child: Child | None = None
        self.url = ""

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self, *, seconds: float = 60.0) -> Self:
        """Start it and wait until the model is loaded (about two seconds on two cores)."""
        self._child = child = Child(self._command, log=self._log, name="model-server")
        try:
            self.url = "http://" + child.wait_for_line(r"^listening on (\S+)$", seconds=seconds)[1]
            wait_until_loaded(self.url, seconds=seconds)
        except BaseException:
            self.stop()
            raise
        return self

    @property
    def child(self) -> Child:
        """The process itself."""
        if self._child is None:
            raise ChildError("the model server is not started")
        return self._child

    def stop(self) -> None:
        """End it; calling twice is fine."""
        if self._child is not None:
            self._child.stop()


def wait_until_loaded(url: str, *, seconds: float) -> None:
    """Wait until a llama.cpp server has done with answering 503 while it loads its model."""
    deadline = time.monotonic() + seconds
    with httpx.Client(base_url=url, trust_env=False) as client:
        while client.get("/health").status_code == httpx.codes.SERVICE_UNAVAILABLE:
            if time.monotonic() > deadline:
                raise ChildError(f"the model at {url} was not loaded after {seconds:g} s")
            time.sleep(0.05)
