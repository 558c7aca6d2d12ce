"""Where the tool keeps things: binaries in the user's cache, instances in the user's state folder.

Follows the XDG base directory rules. It creates nothing; callers do.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from nexus_devtools.controlplane.errors import ControlPlaneError

REPOSITORY = Path(__file__).resolve().parents[3]
GO_MODULE = REPOSITORY / "devtools" / "controlplane"
CRDS = REPOSITORY / "crds"
GO_REQUIREMENTS = REPOSITORY / "requirements" / "go.txt"

_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?")


def _base(variable: str, default: str) -> Path:
    given = os.environ.get(variable, "")
    # The specification says: a relative path is invalid and to be ignored.
    root = Path(given) if given.startswith("/") else Path.home() / default
    return root / "nexus-kubernetes" / "controlplane"


def cache_root() -> Path:
    """The folder of built binaries and of Go itself, one subfolder per version."""
    return _base("XDG_CACHE_HOME", ".cache")


def state_root() -> Path:
    """The folder that holds one subfolder per running instance."""
    return _base("XDG_STATE_HOME", ".local/state")


def instance_folder(name: str) -> Path:
    """The state folder of the instance ``name``; an unusable name is refused."""
    if not _NAME.fullmatch(name):
        raise ControlPlaneError(
            f"{name!r} is no name for a control plane: use 1 to 40 characters out of a-z, 0-9 and -"
        )
    return state_root() / name
