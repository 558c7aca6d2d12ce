"""What is mounted below a folder, and unmounting it."""

from __future__ import annotations

import os
from pathlib import Path

from nexus_devtools.node.commands import run


def below(folder: Path) -> list[Path]:
    """Mount points in the folder, the innermost first."""
    found = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        path = Path(line.split()[4].encode().decode("unicode_escape"))
        if path.is_relative_to(folder):
            found.append(path)
    return sorted(found, key=lambda path: -len(path.parts))


def unmount(folder: Path) -> None:
    """Unmount all of it; several mounts may lie on one point."""
    while points := below(folder):
        for point in points:
            if os.path.ismount(point):
                run("umount", "--lazy", point)
