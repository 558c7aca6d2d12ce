"""What is mounted below a folder, and unmounting it."""

from __future__ import annotations

from pathlib import Path

from nexus_devtools.node.commands import run


def below(folder: Path) -> list[Path]:
    """Mount points in the folder, the innermost first; one for each of several on one point."""
    found = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        path = Path(line.split()[4].encode().decode("unicode_escape"))
        if path.is_relative_to(folder):
            found.append(path)
    return sorted(found, key=lambda path: -len(path.parts))


def unmount(folder: Path) -> None:
    """Unmount all of it."""
    for point in below(folder):
        run("umount", "--lazy", point)
