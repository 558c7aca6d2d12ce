"""The whole product on a real API server, for benchmarks that measure it from outside."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from nexus_devtools.controlplane import ControlPlane
from nexus_devtools.e2e import World, open_world


@contextmanager
def world(name: str) -> Iterator[World]:
    """Operator, two proxies, three simulated backends; nothing is applied yet."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="nexus-bench-")))
        plane = stack.enter_context(ControlPlane.start(name=f"bench-{name}-{os.getpid()}"))
        plane.apply_crds()
        yield open_world(plane, "bench", folder, stack)
