"""Building etcd, kube-apiserver and kubectl, once per release and version of the Go module.

The result lies in ``<cache>/<hash of the module's files>/`` and appears there in one rename,
complete. Two builds at once do not collide: the second waits for the first and finds its result.
It does not choose between a build and somebody's own programs (``programs.py`` does).
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
from typing import IO

from nexus_devtools.controlplane.errors import ControlPlaneError
from nexus_devtools.controlplane.golang import find_go, go_environment
from nexus_devtools.controlplane.paths import GO_MODULE, cache_root
from nexus_devtools.controlplane.progress import Progress

COMPONENTS = ("etcd", "kube-apiserver", "kubectl")
BINARY = "controlplane"
NEEDED_BYTES = 5 << 30
_VERSION_PACKAGE = "k8s.io/component-base/version"


@dataclass(frozen=True, slots=True)
class Release:
    """A release of Kubernetes: its version, and the module's file that asks for it."""

    version: str
    module: str

    @property
    def files(self) -> tuple[str, str, str]:
        """What its build is made of."""
        return ("main.go", self.module, f"{Path(self.module).stem}.sum")


CURRENT = Release("v1.36.3", "go.mod")
OLDEST = Release("v1.30.14", "oldest.mod")


def linker_flags(release: Release = CURRENT) -> str:
    """Stripped, and with the version that the API server and kubectl report."""
    major, minor = release.version.removeprefix("v").split(".")[:2]
    values = {"gitVersion": release.version, "gitMajor": major, "gitMinor": minor}
    return " ".join(["-s -w", *(f"-X {_VERSION_PACKAGE}.{k}={v}" for k, v in values.items())])


def build_key(module: Path = GO_MODULE, release: Release = CURRENT) -> str:
    """What names a build: the module's files, the flags, the kind of machine."""
    flags = linker_flags(release)
    digest = hashlib.sha256(f"{flags}\0{sys.platform}\0{platform.machine()}".encode())
    for name in release.files:
        digest.update(f"\0{name}\0".encode() + (module / name).read_bytes())
    return digest.hexdigest()[:16]


def built_programs(release: Release = CURRENT) -> Path:
    """The folder with the three programs, built first if they are not there yet."""
    cache = cache_root()
    folder = cache / build_key(release=release)
    if not _complete(folder):
        cache.mkdir(parents=True, exist_ok=True)
        with _exclusive(cache / ".lock"):
            if not _complete(folder):
                _build(cache, folder, release)
    return folder


def _complete(folder: Path) -> bool:
    return all((folder / name).exists() for name in COMPONENTS)


@contextmanager
def _exclusive(path: Path) -> Iterator[None]:
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            with Progress("waiting for another build of the control plane", announce=True):
                fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _build(cache: Path, folder: Path, release: Release) -> None:
    # Whoever left these was killed: the lock is ours.
    for stale in cache.glob(".build-*"):
        shutil.rmtree(stale, ignore_errors=True)
    _check_disk(cache)
    go = find_go(cache)
    fresh = cache / f".build-{os.getpid()}"
    fresh.mkdir()
    try:
        packages = _download(go, release)
        _compile(go, fresh / BINARY, packages, release)
        for name in COMPONENTS:
            (fresh / name).symlink_to(BINARY)
        fresh.rename(folder)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _check_disk(cache: Path) -> None:
    free = shutil.disk_usage(cache).free
    if free < NEEDED_BYTES:
        raise ControlPlaneError(
            f"building the control plane needs {NEEDED_BYTES >> 30} GB of disk, {cache} has "
            f"{free / (1 << 30):.1f} GB: make room or point XDG_CACHE_HOME (and GOCACHE) elsewhere"
        )


def _download(go: Path, release: Release) -> int:
    """Fetch what the build needs and no more; returns how many packages that is."""
    with Progress("downloading the Go modules of the control plane (once, about 200 MB)"):
        answer = subprocess.run(
            [go, "list", "-deps", "-mod=readonly", f"-modfile={release.module}", "."],
            cwd=GO_MODULE,
            env=go_environment(),
            capture_output=True,
            text=True,
            check=False,
        )
    if answer.returncode != 0:
        raise ControlPlaneError(
            f"the Go modules could not be downloaded ({_last_line(answer.stderr.splitlines())}): "
            "check the network, or set GOPROXY"
        )
    return len(answer.stdout.splitlines())


def _compile(go: Path, binary: Path, packages: int, release: Release) -> None:
    title = (
        f"building etcd, kube-apiserver and kubectl {release.version} "
        "(once, about 6 minutes on 2 cores)"
    )
    command = [str(go), "build", "-v", "-trimpath", "-mod=readonly", "-buildvcs=false"]
    command += [f"-modfile={release.module}", "-ldflags", linker_flags(release)]
    command += ["-o", str(binary), "."]
    output: list[str] = []
    with (
        Progress(title, announce=True) as progress,
        subprocess.Popen(
            command, cwd=GO_MODULE, env=go_environment(), stderr=subprocess.PIPE, text=True
        ) as compiler,
    ):
        assert compiler.stderr is not None
        try:
            _follow(compiler.stderr, output, progress, packages)
            code = compiler.wait()
        except BaseException:
            # Ctrl-C: the compiler must not go on behind the prompt.
            compiler.terminate()
            raise
        if code != 0:
            raise ControlPlaneError(_failure(code, output))


def _follow(stream: IO[str], output: list[str], progress: Progress, packages: int) -> None:
    """Each line of ``go build -v`` is a package it has to compile, or a message."""
    for line in stream:
        output.append(line.rstrip())
        progress.detail = f"package {len(output)} of at most {packages}"


def _failure(code: int, output: list[str]) -> str:
    if code < 0:
        return (
            f"the Go compiler was ended by signal {-code}: "
            "if memory ran out, close other programs and run this again"
        )
    return f"the control plane could not be built: {_last_line(output)}"


def _last_line(lines: Sequence[str]) -> str:
    return ([line.strip() for line in lines if line.strip()] or ["no message"])[-1]
