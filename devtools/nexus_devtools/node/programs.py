"""The programs of a node that are built from Go modules, once per version of a module.

Kubernetes' own components in one binary, containerd, CoreDNS, the process that holds a pod's
namespaces, and for tests a Prometheus that finds pods. What Debian packages serve as they are
(runc, CNI plugins, iptables, buildah) is asked of the machine: `missing` says what is not there.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from nexus_devtools.controlplane.build import linker_flags
from nexus_devtools.controlplane.golang import find_go, go_environment
from nexus_devtools.controlplane.paths import cache_root
from nexus_devtools.controlplane.progress import Progress
from nexus_devtools.node.errors import NodeError
from nexus_devtools.node.layout import GO_MODULES, cache_folder

_CONTAINERD = "github.com/containerd/containerd/v2/cmd/"
CNI_FOLDER = Path("/usr/lib/cni")
# What a node needs of the machine, and the Debian package it is in.
NEEDED = {
    "ip": "iproute2",
    "nsenter": "util-linux",
    "iptables": "iptables",
    "conntrack": "conntrack",
    "runc": "runc",
    "buildah": "buildah",
    "mmdebstrap": "mmdebstrap",
}
CNI_PACKAGE = "containernetworking-plugins"
NEEDED_BY_TESTS = {"promtool": "prometheus"}


@dataclass(frozen=True, slots=True)
class GoProgram:
    """What is built from one module; `links` are further names of its only program; `tags`, with
    commas, choose what is built into it.
    """

    module: str
    packages: tuple[str, ...]
    programs: tuple[str, ...]
    links: tuple[str, ...] = ()
    tags: str = field(default="", repr=False)


KUBERNETES = GoProgram(
    "kubernetes",
    (".",),
    ("node",),
    ("kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy"),
)
CONTAINERD = GoProgram(
    "containerd",
    tuple(_CONTAINERD + name for name in ("containerd", "containerd-shim-runc-v2", "ctr")),
    ("containerd", "containerd-shim-runc-v2", "ctr"),
)
COREDNS = GoProgram("coredns", (".",), ("coredns",))
PAUSE = GoProgram("pause", (".",), ("pause",))
# Debian's has no Kubernetes in it, and this one nothing else to discover by.
PROMETHEUS = GoProgram(
    "prometheus",
    ("github.com/prometheus/prometheus/cmd/prometheus",),
    ("prometheus",),
    tags="remove_all_sd,enable_kubernetes_sd",
)
ALL = (CONTAINERD, COREDNS, PAUSE, KUBERNETES)


def missing(*, for_tests: bool = False) -> list[str]:
    """Debian packages of which this machine lacks something."""
    needed = NEEDED | (NEEDED_BY_TESTS if for_tests else {})
    packages = [package for program, package in needed.items() if shutil.which(program) is None]
    return packages + ([] if (CNI_FOLDER / "bridge").exists() else [CNI_PACKAGE])


def runc() -> Path:
    """The machine's runc."""
    found = shutil.which("runc")
    if found is None:
        raise NodeError("runc is not installed: apt install runc")
    return Path(found)


def built(program: GoProgram) -> Path:
    """The folder with the module's programs, built first if they are not there yet."""
    cache = cache_folder()
    folder = cache / f"{program.module}-{_key(program)}"
    if not folder.is_dir():
        cache.mkdir(parents=True, exist_ok=True)
        with (cache / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not folder.is_dir():
                _build(program, folder)
    return folder


def _key(program: GoProgram) -> str:
    digest = hashlib.sha256(f"{linker_flags()}\0{platform.machine()}\0{program}".encode())
    digest.update(program.tags.encode())
    for file in sorted((GO_MODULES / program.module).iterdir()):
        digest.update(f"\0{file.name}\0".encode() + file.read_bytes())
    return digest.hexdigest()[:16]


def _build(program: GoProgram, folder: Path) -> None:
    fresh = folder.with_name(f".{folder.name}.{os.getpid()}")
    fresh.mkdir()
    output = f"{fresh}/{program.programs[0]}" if program.packages == (".",) else f"{fresh}/"
    command = [str(find_go(cache_root())), "build", "-trimpath", "-mod=readonly"]
    command += ["-buildvcs=false", "-tags", program.tags, "-ldflags", linker_flags()]
    command += ["-o", output, *program.packages]
    try:
        with Progress(f"building {program.module} (once, some minutes)", announce=True):
            done = subprocess.run(
                command,
                cwd=GO_MODULES / program.module,
                env={**go_environment(), "CGO_ENABLED": "0"},
                capture_output=True,
                text=True,
                check=False,
            )
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise NodeError(f"{program.module} could not be built: {last}")
        for link in program.links:
            (fresh / link).symlink_to(program.programs[0])
        fresh.rename(folder)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
