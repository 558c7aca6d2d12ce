"""Starting and ending processes that outlive the one who started them, by identity and never by
name.

A pid alone says little: it is used again. A :class:`ProcessId` therefore carries the time the
process started, and nothing here signals a pid whose start time differs. It supervises nothing and
restarts nothing.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from nexus_devtools.controlplane import launcher

POLL_SECONDS = 0.02
# Linux sends the parent death signal when the starting thread ends, so that thread never does.
_SPAWNER = ThreadPoolExecutor(max_workers=1, thread_name_prefix="controlplane-spawner")


@dataclass(frozen=True, slots=True)
class ProcessId:
    """A process for good: ``started`` is opaque text that no later process of this pid shares."""

    pid: int
    started: str


class ProcessTable(Protocol):
    """What is asked of the operating system; tests have their own."""

    def started(self, pid: int) -> str | None:
        """When the process started, or None if there is none (a zombie is none)."""

    def signal(self, pid: int, number: int) -> None:
        """Send a signal; a process that is gone by now is no error."""


class SystemProcesses:
    """The process table of this machine."""

    def started(self, pid: int) -> str | None:
        _reap(pid)
        return launcher.started(pid)

    def signal(self, pid: int, number: int) -> None:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return


def _reap(pid: int) -> None:
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return


SYSTEM = SystemProcesses()


def identify(pid: int, table: ProcessTable = SYSTEM) -> ProcessId | None:
    """The identity of the process that has ``pid`` now, or None."""
    started = table.started(pid)
    return None if started is None else ProcessId(pid, started)


def alive(process: ProcessId | None, table: ProcessTable = SYSTEM) -> bool:
    """Whether this very process still runs."""
    return process is not None and table.started(process.pid) == process.started


def end(
    process: ProcessId | None,
    *,
    grace_seconds: float,
    table: ProcessTable = SYSTEM,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Ask the process to stop, and kill it when the grace is over; returns once it is gone."""
    if process is None or not alive(process, table):
        return
    table.signal(process.pid, signal.SIGTERM)
    deadline = clock() + grace_seconds
    killed = False
    while alive(process, table):
        if not killed and clock() >= deadline:
            table.signal(process.pid, signal.SIGKILL)
            killed = True
        sleep(POLL_SECONDS)


def read_pid_file(path: Path) -> ProcessId | None:
    """The process a pid file names, which may be long gone; None without a (complete) file."""
    try:
        fields = json.loads(path.read_text())
        return ProcessId(int(fields["pid"]), str(fields["started"]))
    except FileNotFoundError:
        return None


def launch(
    arguments: Sequence[str | Path],
    *,
    pid_file: Path,
    log: Path,
    die_with_parent: bool = False,
) -> ProcessId | None:
    """Start a program in a session of its own, its output appended to ``log``.

    ``die_with_parent``: the kernel kills it when this process dies, however it dies. Returns None
    if it ended at once.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    log.touch(mode=0o600)
    keep = "die-with-parent" if die_with_parent else "detach"
    command = [sys.executable, "-I", "-S", launcher.__file__, str(pid_file), str(os.getpid()), keep]
    command += [str(argument) for argument in arguments]
    return identify(_SPAWNER.submit(_spawn, command, log).result())


def _spawn(command: list[str], log: Path) -> int:
    # posix_spawn, not Popen: nobody keeps a handle on the process, its pid file does.
    return os.posix_spawn(
        command[0],
        command,
        dict(os.environ),
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(log), os.O_WRONLY | os.O_APPEND, 0o600),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
        setsid=True,
        setsigmask=(),
    )
