"""``python tether.py PARENT_PID COMMAND...``: a process that dies with its parent.

Promises: the command runs in place of this process and gets SIGTERM (Linux) the moment the parent
with that pid is gone, however it went. It is NOT a supervisor: it starts nothing twice.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> int:
    """Tie this process to its parent, then become the command; returns only if it cannot."""
    if len(arguments) < 2:
        print("usage: tether PARENT_PID COMMAND [ARGUMENT...]", file=sys.stderr)
        return 2
    parent, command = int(arguments[0]), arguments[1:]
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    # The parent may have died before the kernel knew of our wish.
    if os.getppid() != parent:
        return 1
    try:
        os.execvp(command[0], command)
    except OSError as error:
        print(f"cannot run {command[0]}: {error.strerror}", file=sys.stderr)
        return 127


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
