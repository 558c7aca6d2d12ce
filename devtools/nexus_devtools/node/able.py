"""Whether this machine can have a node at all: root on Linux, with namespaces and cgroups.

It starts and installs nothing; what Debian packages lack is no obstacle where apt-get is there.
"""

from __future__ import annotations

import os
import shutil
import sys

from nexus_devtools.node import cgroups
from nexus_devtools.node.commands import succeeds
from nexus_devtools.node.layout import CGROUPS, is_root
from nexus_devtools.node.programs import missing


def obstacle() -> str:
    """Why it cannot, in a few words; empty if it can."""
    if sys.platform != "linux":
        return "a node needs Linux"
    if not is_root():
        return "a node needs root"
    if not succeeds("unshare", "--mount", "--net", "true"):
        return "namespaces cannot be made here (is this a container without privileges?)"
    if not CGROUPS.is_dir() or any(_read_only(root) for root in cgroups.hierarchies()):
        return f"{CGROUPS} cannot be written to (is this a container without privileges?)"
    lacks = missing(for_tests=True)
    if lacks and shutil.which("apt-get") is None:
        return f"there is no apt-get to install {', '.join(lacks)}"
    return ""


def _read_only(folder: os.PathLike[str]) -> bool:
    return bool(os.statvfs(folder).f_flag & os.ST_RDONLY)
