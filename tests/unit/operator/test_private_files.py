"""Keys that need a file are nobody else's to read, and gone with the process."""

from __future__ import annotations

import stat
import subprocess
import sys
from pathlib import Path

from nexus_operator.private_files import folder, keep

PROGRAM = """
from nexus_operator.private_files import keep
print(keep(b"secret"))
"""


def test_only_the_owner_can_read_them() -> None:
    path = Path(keep(b"a key"))
    assert path.read_bytes() == b"a key"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(folder().stat().st_mode) == 0o700


def test_the_same_content_is_kept_once() -> None:
    assert keep(b"again") == keep(b"again")
    assert keep(b"again") != keep(b"another")


def test_they_are_gone_with_the_process() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True
    )
    path = Path(done.stdout.strip())
    assert not path.exists() and not path.parent.exists()
