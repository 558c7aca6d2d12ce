"""One whole product per test module: operator, two proxies, three backends, a real API server."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from nexus_devtools.controlplane import ControlPlane
from nexus_devtools.e2e import World, open_world


@pytest.fixture(scope="module")
def world(crds: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """The product at work in a namespace of its own; its processes end with the module."""
    namespace = f"e2e-{secrets.token_hex(4)}"
    with ExitStack() as stack:
        yield open_world(crds, namespace, tmp_path_factory.mktemp("product"), stack)
