"""One bash for the commands of a page, so that what one exports the next one has.

Promises: a command's exit code and all it printed, within a deadline; what is started to go on is
ended by `close`, with everything else the shell left. It judges nothing.
"""

from __future__ import annotations

import contextlib
import os
import queue
import secrets
import signal
import subprocess
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx

GRACE_SECONDS = 10.0
POLL_SECONDS = 0.1


class ShellError(RuntimeError):
    """A command is late, or what was to go on did not."""


class Shell:
    """A bash in `folder`; a context manager that ends with `close`."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self._folder = folder
        self._number = 0
        self._mark = f"ended-{secrets.token_hex(8)}"
        self._process = subprocess.Popen(
            ["bash", "--noprofile", "--norc"],
            cwd=folder,
            env=dict(environment),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._lines: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()
        self._say("set -o pipefail")

    def run(self, text: str, *, seconds: float) -> tuple[int, str]:
        """Run a command to its end: exit code and output. Raises ShellError when it is late."""
        script = self._script(text)
        self._say(f". {script} </dev/null; printf '\\n%s %d\\n' {self._mark} $?")
        printed: list[str] = []
        deadline = time.monotonic() + seconds
        while True:
            line = self._next(deadline, text, printed)
            if line.startswith(self._mark):
                return int(line.split()[1]), "".join(printed).rstrip("\n")
            printed.append(line)

    def serve(self, text: str, *, url: str, seconds: float) -> None:
        """Start what goes on; returns once `url` answers 200. Raises ShellError if it does not."""
        script = self._script(text)
        log = script.with_suffix(".log")
        code, printed = self.run(f". {script} >{log} 2>&1 &", seconds=seconds)
        assert code == 0, printed
        deadline = time.monotonic() + seconds
        while not _answers(url):
            if time.monotonic() > deadline:
                raise ShellError(f"{text}: {url} does not answer 200; {log.read_text()[-2000:]}")
            time.sleep(POLL_SECONDS)

    def close(self) -> None:
        """End the shell and everything it started."""
        group = self._process.pid
        _signal(group, signal.SIGTERM)
        deadline = time.monotonic() + GRACE_SECONDS
        while _alive(group, self._process) and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
        _signal(group, signal.SIGKILL)
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(BrokenPipeError):
                assert pipe is not None
                pipe.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _script(self, text: str) -> Path:
        self._number += 1
        path = self._folder / f".command-{self._number}"
        path.write_text(f"{text}\n", "utf-8")
        return path

    def _say(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with contextlib.suppress(ValueError):  # closed under us
            for line in self._process.stdout:
                self._lines.put(line)

    def _next(self, deadline: float, text: str, printed: list[str]) -> str:
        try:
            return self._lines.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            said = "".join(printed)[-2000:]
            raise ShellError(f"{text}: not at its end in time; printed so far: {said}") from None


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, trust_env=False, timeout=2).status_code == httpx.codes.OK
    except httpx.HTTPError:
        return False


def _alive(group: int, leader: subprocess.Popen[str]) -> bool:
    leader.poll()
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def _signal(group: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, number)
