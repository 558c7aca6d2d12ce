"""Which etcd, kube-apiserver and kubectl are used: those of ``$KUBEBUILDER_ASSETS``, else our own
build.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from nexus_devtools.controlplane.build import COMPONENTS, built_programs
from nexus_devtools.controlplane.errors import ControlPlaneError

VARIABLE = "KUBEBUILDER_ASSETS"


def find_programs() -> Path:
    """The folder that holds all three programs."""
    given = os.environ.get(VARIABLE)
    if not given:
        return built_programs()
    folder = Path(given).expanduser().resolve()
    missing = [name for name in COMPONENTS if not os.access(folder / name, os.X_OK)]
    if missing:
        raise ControlPlaneError(
            f"${VARIABLE} is {folder}, where {', '.join(missing)} cannot be run: "
            f"point it at a folder with {', '.join(COMPONENTS)}, or unset it to have them built"
        )
    return folder


def find_kubectl() -> Path:
    """A kubectl for a cluster that is not ours: the user's own first."""
    own = None if os.environ.get(VARIABLE) else shutil.which("kubectl")
    return Path(own) if own else find_programs() / "kubectl"
