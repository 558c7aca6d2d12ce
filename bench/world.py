"""The whole product on a real API server, for benchmarks that measure it from outside."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from nexus_devtools.backends import Script, SimulatedProcess
from nexus_devtools.controlplane import ControlPlane
from nexus_devtools.e2e import APPS, BACKENDS, MODEL, World, api_of
from nexus_devtools.product import Product


@contextmanager
def world(name: str) -> Iterator[World]:
    """Operator, two proxies, three simulated backends; nothing is applied yet."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="nexus-bench-")))
        plane = stack.enter_context(ControlPlane.start(name=f"bench-{name}-{os.getpid()}"))
        plane.apply_crds()
        plane.create_namespace("bench")
        stack.callback(plane.delete_namespace, "bench")
        product = Product(plane, "bench", folder, stack)
        product.install(*APPS)
        script = Script(headers_seconds=0.01, tokens=3)
        backends = {
            backend: stack.enter_context(
                SimulatedProcess(
                    name=backend, models=[MODEL], script=script, log=folder / f"{backend}.log"
                )
            )
            for backend in BACKENDS
        }
        operator = product.operator()
        proxies = {app: product.proxy(app, operator_url=operator.url) for app in APPS}
        yield World(
            product=product,
            operator=operator,
            proxies=proxies,
            backends=backends,
            api=api_of(product),
        )
