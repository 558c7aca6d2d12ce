"""As many open files as the machine allows: a stream needs two descriptors, and the soft limit of
1,024 that most processes start with would end at 500 streams.

It raises the soft limit to the hard one and never touches that.
"""

from __future__ import annotations

import contextlib
import resource


def take_all() -> int:
    """Raise the soft limit; the limit in force afterwards (-1: none)."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # A system may allow less than it says (macOS): then what there is must do.
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]
