"""What the C library's allocator does with memory that large bodies leave behind.

By itself it gives the end of its heap back to the system again and again, and each body of a
megabyte begins with hundreds of page faults. Promises that up to `KEPT_BYTES` stay for the next
one, and that blocks beyond `LARGE_BYTES` still go back at once. Where the C library is not glibc
nothing happens.
"""

from __future__ import annotations

import contextlib
import ctypes

KEPT_BYTES = 32 * 1024 * 1024
LARGE_BYTES = 4 * 1024 * 1024
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of malloc.h


def keep_freed() -> None:
    """Keep what is freed, within bounds, from now on."""
    with contextlib.suppress(AttributeError, OSError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_TRIM_THRESHOLD, KEPT_BYTES)
        mallopt(_MMAP_THRESHOLD, LARGE_BYTES)
