"""One whole product per test module: operator, two proxies, three backends, a real API server."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager

import pytest

from nexus_devtools.controlplane import ControlPlane
from nexus_devtools.e2e import World, open_world
from nexus_devtools.gate import Gate

Away = AbstractContextManager[None]


@pytest.fixture(scope="module")
def gate(crds: ControlPlane) -> Iterator[Gate | None]:
    """The way to an API server that is not ours, and so cannot be stopped; None to one that is."""
    if crds.is_own:
        yield None
        return
    with Gate(crds) as gate:
        yield gate


@pytest.fixture(scope="module")
def world(
    crds: ControlPlane, gate: Gate | None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    """The product at work in a namespace of its own; its processes end with the module."""
    namespace = f"e2e-{secrets.token_hex(4)}"
    folder = tmp_path_factory.mktemp("product")
    with ExitStack() as stack:
        if gate is None:
            yield open_world(crds, namespace, folder, stack)
        else:
            yield open_world(crds, namespace, folder, stack, way=gate.lead)


@pytest.fixture
def api_server_away(crds: ControlPlane, gate: Gate | None) -> Callable[[], Away]:
    """A context in which the API server is stopped, or one that is not ours out of reach."""

    @contextmanager
    def away() -> Iterator[None]:
        stop, start = (
            (crds.stop_apiserver, crds.start_apiserver) if gate is None else (gate.shut, gate.open)
        )
        stop()
        try:
            yield
        finally:
            start()

    return away
