"""Child processes of tests, bench and demo: started, awaited, and ended by pid.

Promises: a child dies with its parent, its output goes to a file, ``stop`` leaves nothing behind,
and a child that ends early is reported with its last lines. It is NOT for use from several threads:
the tether ends a child when the thread that started it ends.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx
import msgspec

from nexus_devtools.backends.ledger import Seen
from nexus_devtools.backends.script import Script, script_to_json

_TETHER = (sys.executable, "-S", "-E", str(Path(__file__).with_name("tether.py")))


class ChildError(RuntimeError):
    """A child ended or stayed silent instead of becoming ready."""


class Child:
    """One process in a session of its own, so that Ctrl-C in terminals reaches only the parent."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        log: Path,
        name: str | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name or Path(command[0]).name
        self.log = log
        self._stopped = False
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                [*_TETHER, str(os.getpid()), *command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=None if environment is None else dict(environment),
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """The exit code, None while it runs."""
        return self._process.poll()

    def wait_for_line(self, pattern: str, *, seconds: float = 20.0) -> re.Match[str]:
        """Wait until a line of its output matches; raises ``ChildError`` if it ends or is late."""
        compiled = re.compile(pattern, re.MULTILINE)
        deadline = time.monotonic() + seconds
        while True:
            ended = self.exit_code is not None
            match = compiled.search(self.log.read_text(errors="replace"))
            if match:
                return match
            if ended:
                raise ChildError(f"{self.name} ended with code {self.exit_code}: {self.tail()}")
            if time.monotonic() > deadline:
                raise ChildError(f"{self.name} was not ready after {seconds:g} s: {self.tail()}")
            time.sleep(0.02)

    def tail(self, lines: int = 5) -> str:
        """The last lines of its output, or where to look."""
        text = "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])
        return f"{text or '(no output)'} [{self.log}]"

    def kill(self) -> None:
        """SIGKILL, for tests of a sudden death."""
        self._process.kill()
        self._process.wait()

    def stop(self, *, grace_seconds: float = 5.0) -> int:
        """SIGTERM, then SIGKILL to the whole session after the grace; returns the exit code."""
        if not self._stopped:
            self._stopped = True
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(grace_seconds)
            # What it started itself shares its session: pids of a group cannot be reused before.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
        return self._process.wait()


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
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """End it; calling twice is fine."""
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
        answer = httpx.post(f"{self.control_url}/_script", content=script_to_json(script))
        answer.raise_for_status()

    def seen(self) -> Seen:
        """What it has seen so far."""
        answer = httpx.get(f"{self.control_url}/_seen").raise_for_status()
        return msgspec.json.decode(answer.content, type=Seen)
