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
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

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
