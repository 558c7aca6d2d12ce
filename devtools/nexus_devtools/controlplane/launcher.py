"""Become another program, after writing the pid file that lets anybody end it later.

Run as a script: ``python launcher.py PID_FILE PARENT_PID KEEP PROGRAM ARGUMENT...``; the pid stays
the same across the exec. Since the process itself writes its pid file, and becomes the program
only while its parent lives, no moment exists at which a killed parent leaves a program that nobody
knows of. ``KEEP`` is ``detach`` or ``die-with-parent``: then the kernel kills the program when the
parent dies (Linux; elsewhere the next start of the instance does). Imports nothing of the project,
so it can run isolated.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

PR_SET_PDEATHSIG = 1
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def started(pid: int) -> str | None:
    """When the process ``pid`` started, as opaque text; None without one (a zombie is none)."""
    return _proc_started(pid) if BOOT_ID.exists() else _ps_started(pid)


def _proc_started(pid: int) -> str | None:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The command, in parentheses, may hold spaces and parentheses itself: count from its end.
    state, *fields = stat.rpartition(")")[2].split()
    if state in "ZX":
        return None
    # Ticks since boot, so the boot belongs to it: a state folder survives a reboot.
    return f"{BOOT_ID.read_text().strip()}/{fields[18]}"


def _ps_started(pid: int) -> str | None:
    command = ["ps", "-o", "stat=,lstart=", "-p", str(pid)]
    output = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    state, _, since = output.strip().partition(" ")
    return None if not state or state.startswith("Z") else since.strip()


def write_pid_file(path: Path, pid: int) -> None:
    """Write pid and start time, in one step."""
    fresh = path.with_name(f".{path.name}.{pid}")
    fresh.write_text(json.dumps({"pid": pid, "started": started(pid)}) + "\n")
    fresh.replace(path)


def main(arguments: list[str]) -> None:
    """Write the pid file, arm the parent death signal if asked, become the program."""
    pid_file, parent, keep, *program = arguments
    write_pid_file(Path(pid_file), os.getpid())
    if keep == "die-with-parent" and sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    # After both: a parent that died earlier sends no signal, and may have missed the pid file.
    if os.getppid() != int(parent):
        sys.exit("the process that started this one is gone")
    os.execv(program[0], program)


if __name__ == "__main__":
    main(sys.argv[1:])
