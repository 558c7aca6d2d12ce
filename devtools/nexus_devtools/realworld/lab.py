"""The folder with the real clients and servers: made once, in the user's cache.

Promises: everything in it was pinned with a digest (`requirements/clients.txt` through pip,
`requirements/npm.txt` through npm), it appears complete under a name made from the pins, and two
processes may ask at once. It keeps to itself: the virtual environment of the repository is not
touched, so what these packages need decides no version there.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from nexus_devtools.controlplane.progress import Progress
from nexus_devtools.realworld.errors import RealWorldError
from nexus_devtools.realworld.npm import install, read_pins

REPOSITORY = Path(__file__).resolve().parents[3]
PYTHON_PINS = REPOSITORY / "requirements" / "clients.txt"
NPM_PINS = REPOSITORY / "requirements" / "npm.txt"
_COMPLETE = ".complete"


@dataclass(frozen=True, slots=True)
class Lab:
    """What is installed in `folder`."""

    folder: Path

    @property
    def python(self) -> Path:
        """A Python that imports LangChain, libcurl and the servers of PyPI."""
        return self.folder / "bin" / "python"

    @property
    def node(self) -> Path:
        """The Node.js that came as a wheel."""
        return self.folder / "bin" / "node"

    @property
    def npm(self) -> Sequence[str]:
        """The command line of npm."""
        return (str(self.folder / "bin" / "npm"),)

    def package(self, name: str) -> Path:
        """The folder of an npm package; its parent is a `node_modules`."""
        return self.folder / "node_modules" / name

    def environment(self) -> dict[str, str]:
        """What its processes see: no HTTP proxies, no keys, its own programs first."""
        kept = {k: os.environ[k] for k in ("LANG", "LC_ALL", "TZ", "HOME") if k in os.environ}
        path = os.pathsep.join((str(self.folder / "bin"), os.environ.get("PATH", "")))
        return kept | {"PATH": path, "PYTHONDONTWRITEBYTECODE": "1"}


def cache_folder() -> Path:
    """`$XDG_CACHE_HOME/nexus-kubernetes/realworld`, with the usual default."""
    given = os.environ.get("XDG_CACHE_HOME", "")
    base = Path(given) if given.startswith("/") else Path.home() / ".cache"
    return base / "nexus-kubernetes" / "realworld"


def key() -> str:
    """What names a lab: the pins, the Python and the kind of machine."""
    about = f"{sys.version_info[:2]}\0{sys.base_prefix}\0{sys.platform}\0{platform.machine()}"
    digest = hashlib.sha256(about.encode())
    for path in (PYTHON_PINS, NPM_PINS):
        digest.update(b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def ready_lab() -> Lab:
    """The lab of the present pins, installed first if it is not there. Raises RealWorldError."""
    cache = cache_folder()
    found = Lab(cache / key())
    if not (found.folder / _COMPLETE).exists():
        cache.mkdir(parents=True, exist_ok=True)
        with exclusive(cache / ".lock"):
            if not (found.folder / _COMPLETE).exists():
                _build(found)
    return found


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """One process at a time, by a lock on a file."""
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _build(fresh: Lab) -> None:
    # A virtual environment cannot be moved, so what marks it complete is written last.
    shutil.rmtree(fresh.folder, ignore_errors=True)
    with Progress("installing real clients and servers (once, about 150 MB)"):
        _run([sys.executable, "-m", "venv", str(fresh.folder)])
        pip = [str(fresh.python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        _run([*pip, "--require-hashes", "-r", str(PYTHON_PINS)])
        modules = fresh.folder / "node_modules"
        modules.mkdir()
        install(read_pins(NPM_PINS.read_text()), npm=fresh.npm, folder=modules)
    (fresh.folder / _COMPLETE).touch()


def _run(command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines() or ["it said nothing"]
        program = Path(command[0]).name
        raise RealWorldError(f"{program} failed ({said[-1]}): check the network and the disk space")
