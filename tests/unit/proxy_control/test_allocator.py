"""Memory of large bodies is used again."""

from __future__ import annotations

import subprocess
import sys
from platform import libc_ver

LOOK = """
import resource
from nexus_proxy.allocator import keep_freed

def bodies():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    made = [b"x" * 1_000_000 for _ in range(16)]
    del made
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

keep_freed()
bodies()
print(bodies())
"""
PAGES = 16 * 1_000_000 // 4096


def test_the_second_lot_of_large_bodies_touches_no_new_pages() -> None:
    command = [sys.executable, "-c", LOOK]
    faults = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    if libc_ver()[0] == "glibc":
        assert faults < PAGES / 20
