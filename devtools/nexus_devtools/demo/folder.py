"""Where a run of the demo keeps its logs, kubeconfigs and tokens.

Promises: one folder per run under the user's state folder, readable by the user alone; those of
runs that were killed are removed by the next. It is NOT kept after a run that went well.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path


class Folder:
    """The folder of this run."""

    def __init__(self, root: Path | None = None) -> None:
        self._root = root or _state_root()
        self.path = self._root / f"run-{os.getpid()}"

    def create(self) -> None:
        """Make it, and remove what killed runs left."""
        self._root.mkdir(parents=True, exist_ok=True, mode=0o700)
        for old in self._root.glob("run-*"):
            if not _runs(old.name.removeprefix("run-")):
                shutil.rmtree(old, ignore_errors=True)
        shutil.rmtree(self.path, ignore_errors=True)
        self.path.mkdir(mode=0o700)

    def log(self, name: str) -> Path:
        """The log file of a process."""
        return self.path / f"{name}.log"

    def secret(self, name: str, content: str) -> Path:
        """A file with a token in it."""
        path = self.path / name
        path.touch(mode=0o600)
        path.write_text(content)
        return path

    def remove(self, *, keep_logs: bool) -> bool:
        """Remove everything, or everything but the logs; whether there are logs to read."""
        if not keep_logs or not any(self.path.glob("*.log")):
            shutil.rmtree(self.path, ignore_errors=True)
            return False
        for path in self.path.iterdir():
            if path.is_file() and path.suffix != ".log":
                path.unlink()
        return True


def _state_root() -> Path:
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(base) / "nexus-kubernetes" / "demo"


def _runs(pid: str) -> bool:
    try:
        os.kill(int(pid), 0)
    except (ValueError, ProcessLookupError):
        return False
    except PermissionError:
        return True
    return True
