"""`python -m nexus_devtools.node up [--nodes N]`, or `down`, `images`, `packages`, `remains`,
`possible`.
"""

from __future__ import annotations

import argparse
import sys

from nexus_devtools.controlplane.errors import ControlPlaneError
from nexus_devtools.node import images
from nexus_devtools.node.able import obstacle
from nexus_devtools.node.cluster import Cluster, remains, running_nodes
from nexus_devtools.node.commands import run
from nexus_devtools.node.errors import NodeError
from nexus_devtools.node.layout import MOST_NODES
from nexus_devtools.node.programs import missing


def main(arguments: list[str]) -> int:
    """0 done, 1 failed, 2 wrong usage."""
    parser = argparse.ArgumentParser(prog="python -m nexus_devtools.node", description=__doc__)
    parser.add_argument("verb", choices=tuple(_VERBS))
    parser.add_argument("--nodes", type=int, default=1, choices=range(1, MOST_NODES + 1))
    asked = parser.parse_args(arguments)
    try:
        return _VERBS[asked.verb](asked.nodes)
    except (NodeError, ControlPlaneError) as error:
        print(error, file=sys.stderr)
        return 1


def _up(nodes: int) -> int:
    cluster = Cluster(nodes)
    cluster.up()
    kubectl = cluster.kubectl.program.parent
    print(f'export KUBECONFIG={cluster.kubeconfig} PATH="{kubectl}:$PATH"')
    return 0


def _down(nodes: int) -> int:
    Cluster(nodes).down()
    left = remains()
    print("\n".join(left) if left else "the cluster is gone")
    return 1 if left else 0


def _images(nodes: int) -> int:
    """Build the product's images; a running cluster gets them."""
    archives = images.product_archives()
    up = running_nodes()
    if up:
        Cluster(up).import_images(archives)
    for name, archive in archives.items():
        print(f"{name}  {archive}")
    return 0


def _packages(nodes: int) -> int:
    """Install the Debian packages that a node and its tests need; none are missing: nothing."""
    packages = missing(for_tests=True)
    if packages:
        print(f"==> apt-get install {' '.join(packages)}", file=sys.stderr)
        run("apt-get", "update", "-qq")
        options = ("-y", "-qq", "--no-install-recommends")
        run("apt-get", "install", *options, *packages)
    return 0


def _possible(nodes: int) -> int:
    """Say why there can be no node here, in one line; 0 if there can."""
    found = obstacle()
    if found:
        print(f"the tests on a node are left out: {found}")
    return 1 if found else 0


def _remains(nodes: int) -> int:
    left = remains()
    print("\n".join(left) or "nothing")
    return 0


_VERBS = {
    "up": _up,
    "down": _down,
    "images": _images,
    "packages": _packages,
    "remains": _remains,
    "possible": _possible,
}

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
