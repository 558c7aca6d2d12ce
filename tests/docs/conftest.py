"""The API server of the documents: one of our own, whatever cluster is given, for pages install
and remove what is the whole cluster's.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from nexus_devtools.controlplane import ControlPlane
from nexus_devtools.controlplane.given import VARIABLES
from nexus_devtools.documents.worlds import Worlds


@pytest.fixture(scope="session")
def worlds() -> Iterator[Worlds]:
    """Worlds on it, with the kinds and the namespaces in place."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(VARIABLES[0], "")
        plane = ControlPlane.start(f"docs-{os.getpid()}")
    with plane:
        made = Worlds(plane)
        made.prepare()
        yield made
