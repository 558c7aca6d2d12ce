"""The fixtures of every test that needs a real API server; ``tests/conftest.py`` imports them.

One API server serves a whole test session; tests keep apart by namespace. ``KUBECONFIG`` and
``NEXUS_TEST_KUBECONFIG`` are honoured, see :meth:`ControlPlane.start`.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import sys
from collections.abc import Iterator

import pytest

from nexus_devtools.controlplane.plane import ControlPlane


def _uncaptured(config: pytest.Config) -> contextlib.AbstractContextManager[None]:
    # The first start builds for minutes: progress is for the person who waits, not for a report.
    manager = config.pluginmanager.getplugin("capturemanager")
    return contextlib.nullcontext() if manager is None else manager.global_and_fixture_disabled()


@pytest.fixture(scope="session")
def control_plane(request: pytest.FixtureRequest) -> Iterator[ControlPlane]:
    """The API server of this session."""
    with _uncaptured(request.config):
        plane = ControlPlane.start(f"pytest-{os.getpid()}")
        if not plane.is_own:
            print(f"\n==> testing against the given cluster {plane.server}", file=sys.stderr)
    with plane:
        yield plane


@pytest.fixture(scope="session")
def crds(control_plane: ControlPlane) -> ControlPlane:
    """The API server of this session, serving the project's custom resources."""
    control_plane.apply_crds()
    return control_plane


@pytest.fixture
def namespace(control_plane: ControlPlane) -> Iterator[str]:
    """A fresh namespace for this test, deleted with its contents afterwards."""
    name = f"test-{secrets.token_hex(4)}"
    control_plane.create_namespace(name)
    yield name
    control_plane.delete_namespace(name)
