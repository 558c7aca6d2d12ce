"""Ending instances: what belongs to one, and which ones nobody owns any more.

Used by ``down`` and, for runs that were killed, by every later start. It judges by the process
table alone, which is a parameter.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nexus_devtools.controlplane import state as files
from nexus_devtools.controlplane.processes import SYSTEM, ProcessTable, alive, end, read_pid_file
from nexus_devtools.controlplane.state import State

# It stops listening at once, but would wait a minute for open watches to end.
APISERVER_GRACE_SECONDS = 2.0
ETCD_GRACE_SECONDS = 2.0
_GRACE = {files.APISERVER_PID: APISERVER_GRACE_SECONDS, files.ETCD_PID: ETCD_GRACE_SECONDS}


@contextmanager
def claims_of(root: Path) -> Iterator[None]:
    """Hold the lock under which names, ports and the remains of others are decided upon."""
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (root / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def end_process(folder: Path, pid_file: str, table: ProcessTable = SYSTEM) -> None:
    """End one process of the instance and remove its pid file."""
    end(read_pid_file(folder / pid_file), grace_seconds=_GRACE[pid_file], table=table)
    (folder / pid_file).unlink(missing_ok=True)


def destroy(folder: Path, *, keep_logs: bool = False, table: ProcessTable = SYSTEM) -> None:
    """End what runs of the instance, the API server first, and remove its folder."""
    for pid_file in files.PID_FILES:
        end_process(folder, pid_file, table)
    files.remove(folder, keep_logs=keep_logs)


def is_orphan(state: State, table: ProcessTable = SYSTEM) -> bool:
    """Whether the instance has an owner that is gone. One made by ``up`` has none and is no
    orphan.
    """
    return state.owner is not None and not alive(state.owner, table)


def sweep(root: Path, table: ProcessTable = SYSTEM) -> list[str]:
    """Destroy every orphan under ``root``; returns their names. The caller holds the lock."""
    orphans = {f: s for f, s in files.load_all(root).items() if is_orphan(s, table)}
    for folder in orphans:
        destroy(folder, table=table)
    return [state.name for state in orphans.values()]
