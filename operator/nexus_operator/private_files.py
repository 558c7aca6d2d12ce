"""Keys and certificates that a library wants as files, kept where this user alone can read them.

Promises one folder per process, readable by its owner only and removed when the process ends, and
one file per content, so that reading the same credentials again adds nothing. It is not for
anything that should outlive the process.
"""

from __future__ import annotations

import atexit
import functools
import hashlib
import os
import shutil
import tempfile
from pathlib import Path


@functools.cache
def folder() -> Path:
    """The folder of this process, made at its first use with mode 0700."""
    made = Path(tempfile.mkdtemp(prefix="nexus-operator-"))
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    return made


def keep(content: bytes) -> str:
    """The path of a file with this content, mode 0600."""
    path = folder() / f"{hashlib.sha256(content).hexdigest()}.pem"
    if not path.exists():
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
    return str(path)
