"""As many open files as the machine allows: a stream needs two descriptors, and the soft limit of
1,024 that most processes start with would end at 500 streams.

It raises the soft limit to the hard one and never touches that, and says how many clients fit below
it, so that the process never runs out: without descriptors no backend can be reached, no file read.
"""

from __future__ import annotations

import contextlib
import resource

RESERVED = 48  # files of Python, listeners, the API server, probes, scrapes of metrics
UNLIMITED = 1 << 20


def take_all() -> int:
    """Raise the soft limit; the limit in force afterwards (-1: none)."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # A system may allow less than it says (macOS): then what there is must do.
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return limit()


def limit() -> int:
    """The limit in force (-1: none)."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def clients_that_fit(limit: int) -> int:
    """How many client connections may be open at once under a limit of open files (-1: none)."""
    return UNLIMITED if limit < 0 else max(1, min(UNLIMITED, (limit - RESERVED) // 2))
