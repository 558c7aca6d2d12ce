"""What a process costs while something happens to it: CPU, memory, and how long its loop is deaf.

A stall is the time between two turns of a heartbeat that wants one every few milliseconds: by the
wall, which a busy machine lengthens, and in CPU time of the thread, which it does not.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

BEAT_SECONDS = 0.002
PAGE_BYTES = 4096
MEGABYTE = 1 << 20


class Heartbeat:
    """Beats from `start` on; `reset` begins a new measurement."""

    def __init__(self) -> None:
        self.longest_wall = self.longest_cpu = 0.0
        self._wall = self._cpu = 0.0

    def start(self) -> None:
        """To be called within the loop that is watched."""
        self._loop = asyncio.get_running_loop()
        self._wall, self._cpu = time.monotonic(), time.thread_time()
        self._loop.call_later(BEAT_SECONDS, self._beat)

    def reset(self) -> None:
        """Forgets what was."""
        self.longest_wall = self.longest_cpu = 0.0

    def _beat(self) -> None:
        wall, cpu = time.monotonic(), time.thread_time()
        self.longest_wall = max(self.longest_wall, wall - self._wall - BEAT_SECONDS)
        self.longest_cpu = max(self.longest_cpu, cpu - self._cpu)
        self._wall, self._cpu = wall, cpu
        self._loop.call_later(BEAT_SECONDS, self._beat)


def resident_megabytes() -> float:
    """Resident memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE_BYTES / MEGABYTE
