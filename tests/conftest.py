"""What all tests share: the real API server of a session, and the markers that go with the
folders.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import settings

from nexus_devtools.controlplane.pytest_fixtures import control_plane, crds, namespace

__all__ = ["control_plane", "crds", "namespace"]

# How long an example takes says more of the machine than of the code.
settings.register_profile("nexus", settings.default, deadline=None)
settings.load_profile("nexus")

TESTS = Path(__file__).parent
MARKED_FOLDERS = {TESTS / name: name for name in ("apiserver", "clients", "e2e", "node")}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark each test of these folders, so that ``-m "not apiserver"`` leaves none
    over.
    """
    for item in items:
        for folder, marker in MARKED_FOLDERS.items():
            if folder in item.path.parents:
                item.add_marker(marker)
