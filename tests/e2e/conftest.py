"""One whole product per test module: operator, two proxies, three backends, a real API server."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from nexus_devtools.backends import Script, SimulatedProcess
from nexus_devtools.controlplane import ControlPlane
from nexus_devtools.e2e import APPS, BACKENDS, MODEL, World, api_of
from nexus_devtools.product import Product


@pytest.fixture(scope="module")
def world(crds: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """The product at work in a namespace of its own; its processes end with the module."""
    folder: Path = tmp_path_factory.mktemp("product")
    namespace = f"e2e-{secrets.token_hex(4)}"
    crds.create_namespace(namespace)
    with ExitStack() as stack:
        stack.callback(crds.delete_namespace, namespace)
        product = Product(crds, namespace, folder, stack)
        product.install(*APPS)
        backends = {
            name: stack.enter_context(
                SimulatedProcess(
                    name=name,
                    models=[MODEL],
                    script=Script(headers_seconds=0.01, tokens=3),
                    log=folder / f"{name}.log",
                )
            )
            for name in BACKENDS
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
