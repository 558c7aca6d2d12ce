"""`make cluster-up` and `make cluster-down`: a cluster to try things on.

Promises one of three, says which and why, and that the last line of `up` is the export to use it: a
kind cluster where Docker or Podman runs, the project's own node (Linux, root: real pods), or the
control plane alone (no nodes). It is NOT used by the tests, which take whatever `$KUBECONFIG` names
or start their own.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from nexus_devtools.controlplane import ControlPlane, ControlPlaneError
from nexus_devtools.controlplane.paths import CRDS, REPOSITORY, state_root
from nexus_devtools.node.cluster import Cluster, remains
from nexus_devtools.node.errors import NodeError
from nexus_devtools.node.layout import is_root
from nexus_devtools.node.programs import missing

NAME = "nexus"
KIND = "kind"
NODE = "node"
CONTROL_PLANE = "controlplane"
KINDS = ("", CONTROL_PLANE, NODE, KIND)
KIND_CONFIG = REPOSITORY / "devtools" / "kind" / "cluster.yaml"
PRODUCT = ("nexus-operator", "nexus-proxy")


class ClusterError(RuntimeError):
    """It cannot be done; the text says what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What there is to run a cluster on; `lacks` are Debian packages that a node needs."""

    engine: str
    kind: bool
    linux: bool
    root: bool
    lacks: tuple[str, ...]


def look() -> Machine:
    """This machine."""
    engines = ("docker", "podman")
    return Machine(
        engine=next((each for each in engines if _answers(each, "info")), ""),
        kind=shutil.which(KIND) is not None,
        linux=sys.platform == "linux",
        root=is_root(),
        lacks=tuple(missing()),
    )


def choose(machine: Machine) -> tuple[str, str]:
    """Which kind of cluster, and why."""
    if machine.engine and machine.kind:
        return KIND, f"{machine.engine} runs and kind is installed"
    lacking = "kind is not installed" if machine.engine else "neither Docker nor Podman runs"
    if not machine.linux:
        return CONTROL_PLANE, f"{lacking}, and a node needs Linux"
    if not machine.root:
        return CONTROL_PLANE, f"{lacking}, and a node needs root"
    if machine.lacks:
        install = f"apt-get install --no-install-recommends {' '.join(machine.lacks)}"
        return CONTROL_PLANE, f"{lacking}, and a node needs: {install}"
    return NODE, f"{lacking}, and this is root on Linux"


def up(kind: str) -> None:
    """Start it, with the custom resources in place."""
    if not kind:
        kind, why = choose(look())
        print(f"CLUSTER={kind}: {why}")
    _UP[kind]()


def _node_up() -> None:
    told = os.environ.get("NODES") or "1"
    if told not in ("1", "2"):
        raise ClusterError(f"NODES is {told!r}: give 1 or 2")
    cluster = Cluster(int(told))
    cluster.up()
    cluster.kubectl.run("apply", "--server-side", "-f", CRDS, check=True)
    print("a whole Kubernetes is up, with the custom resources; it has the product's images")
    _use(cluster.kubeconfig, cluster.kubectl.program.parent)


def _control_plane_up() -> None:
    plane = ControlPlane.up(NAME)
    plane.apply_crds()
    print(f"{plane.server} is up (etcd and kube-apiserver; no nodes), with the custom resources")
    _use(plane.kubeconfig, plane.kubectl.parent)


def _kind_up() -> None:
    engine = _engine()
    kubeconfig = _kind_kubeconfig()
    kubeconfig.parent.mkdir(parents=True, exist_ok=True)
    if NAME in _kind_clusters():
        _run(KIND, "export", "kubeconfig", "--name", NAME, "--kubeconfig", str(kubeconfig))
    else:
        config = ("--config", str(KIND_CONFIG), "--kubeconfig", str(kubeconfig))
        _run(KIND, "create", "cluster", "--name", NAME, *config)
    for target in PRODUCT:
        _run(engine, "build", "--target", target, "-t", target, str(REPOSITORY))
        _run(KIND, "load", "docker-image", target, "--name", NAME)
    apply = ("apply", "--server-side", "-f", str(CRDS))
    _run("kubectl", "--kubeconfig", str(kubeconfig), *apply)
    _use(kubeconfig)


def _use(kubeconfig: Path, kubectl: Path | None = None) -> None:
    print("make cluster-down ends it")
    path = f' PATH="{kubectl}:$PATH"' if kubectl else ""
    print(f"export KUBECONFIG={kubeconfig}{path}")


def down(kind: str) -> None:
    """End it, or without a kind whatever of them is up; nothing stays behind."""
    ended = [each for each in ((kind,) if kind else tuple(_DOWN)) if _DOWN[each]()]
    print(f"ended: {', '.join(ended)}" if ended else "no cluster is up")


def _node_down() -> bool:
    if not is_root() or shutil.which("ip") is None or not remains():
        return False
    Cluster().down()
    left = remains()
    if left:
        raise ClusterError("still there: " + "; ".join(left))
    return True


def _control_plane_down() -> bool:
    plane = ControlPlane.find(NAME)
    if plane is not None:
        plane.down()
    return plane is not None


def _kind_down() -> bool:
    if shutil.which(KIND) is None or NAME not in _kind_clusters():
        return False
    _run(KIND, "delete", "cluster", "--name", NAME)
    _kind_kubeconfig().unlink(missing_ok=True)
    return True


_UP = {KIND: _kind_up, NODE: _node_up, CONTROL_PLANE: _control_plane_up}
_DOWN = {KIND: _kind_down, NODE: _node_down, CONTROL_PLANE: _control_plane_down}


def _engine() -> str:
    machine = look()
    if not machine.engine:
        raise ClusterError("kind needs Docker or Podman, running; without them: make cluster-up")
    if not machine.kind:
        raise ClusterError("kind is not installed: go install sigs.k8s.io/kind@latest")
    return machine.engine


def _kind_clusters() -> list[str]:
    done = subprocess.run([KIND, "get", "clusters"], capture_output=True, text=True, check=False)
    return done.stdout.split()


def _kind_kubeconfig() -> Path:
    return state_root().parent / "kind.kubeconfig"


def _answers(*command: str) -> bool:
    if shutil.which(command[0]) is None:
        return False
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _run(*command: str) -> None:
    code = subprocess.run(command, check=False).returncode
    if code:
        raise ClusterError(f"{' '.join(command)} ended with code {code}")


def main(arguments: list[str]) -> int:
    """`up|down [controlplane|node|kind]`; 2 for wrong usage, 1 for what failed."""
    verb, kind = [*arguments, "", ""][:2]
    if verb not in ("up", "down") or kind not in KINDS:
        print(
            "usage: python -m nexus_devtools.cluster up|down [controlplane|node|kind]",
            file=sys.stderr,
        )
        return 2
    try:
        (up if verb == "up" else down)(kind)
    except (ClusterError, ControlPlaneError, NodeError) as error:
        print(f"{error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
