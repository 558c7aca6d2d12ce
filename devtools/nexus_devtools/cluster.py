"""`make cluster-up` and `make cluster-down`: a cluster to try things on.

Promises one of three, and that the last line of `up` is the export to use it: the project's own
control plane (no root, no nodes), its own node (Linux, root: real pods), or a kind cluster where
Docker or Podman runs. It is NOT used by the tests, which take whatever `$KUBECONFIG` names or start
their own.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

from nexus_devtools.controlplane import ControlPlane, ControlPlaneError
from nexus_devtools.controlplane.paths import CRDS
from nexus_devtools.node.cluster import Cluster, remains
from nexus_devtools.node.errors import NodeError

NAME = "nexus"
KIND = "kind"
NODE = "node"
KINDS = ("", "controlplane", NODE, KIND)


class ClusterError(RuntimeError):
    """It cannot be done; the text says what to do."""


def up(kind: str) -> None:
    """Start it, with the custom resources in place."""
    if kind == KIND:
        _kind("create", "cluster", "--name", NAME)
        _run("kubectl", "--context", f"kind-{NAME}", "apply", "--server-side", "-f", str(CRDS))
        print(f"kubectl config use-context kind-{NAME}")
        return
    if kind == NODE:
        cluster = Cluster(int(os.environ.get("NODES") or 1))
        cluster.up()
        cluster.kubectl.run("apply", "--server-side", "-f", CRDS, check=True)
        print("make cluster-down CLUSTER=node ends it")
        print(
            f'export KUBECONFIG={cluster.kubeconfig} PATH="{cluster.kubectl.program.parent}:$PATH"'
        )
        return
    plane = ControlPlane.up(NAME)
    plane.apply_crds()
    print(f"{plane.server} is up (etcd and kube-apiserver; no nodes), with the custom resources")
    print("make cluster-down ends it")
    print(f'export KUBECONFIG={plane.kubeconfig} PATH="{plane.kubectl.parent}:$PATH"')


def down(kind: str) -> None:
    """End it; nothing stays behind."""
    if kind == KIND:
        _kind("delete", "cluster", "--name", NAME)
        return
    if kind == NODE:
        Cluster().down()
        left = remains()
        print("\n".join(left) if left else "the cluster is gone")
        return
    plane = ControlPlane.find(NAME)
    if plane is None:
        print("no cluster is up")
        return
    plane.down()
    print("the cluster is gone")


def _kind(*arguments: str) -> None:
    if shutil.which("docker") is None and shutil.which("podman") is None:
        raise ClusterError("kind needs Docker or Podman; without them: make cluster-up")
    if shutil.which(KIND) is None:
        raise ClusterError("kind is not installed: go install sigs.k8s.io/kind@latest")
    _run(KIND, *arguments)


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
