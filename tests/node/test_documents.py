"""The commands of README and docs that need pods, as a reader types them, on the node."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from nexus_devtools.documents import Player, Shell
from nexus_devtools.documents.table import NODE, WORLDS, in_world
from nexus_devtools.documents.worlds import checkout, environment
from nexus_devtools.e2e import eventually
from nexus_devtools.node.cluster import Cluster
from nexus_devtools.product import REPOSITORY, free_address

# A verdict ends by its own clock, and a roll-out by the node's.
SECONDS = 400.0
LEAVES = "docs/upgrade.md"
PAGES = [page for page in WORLDS if page != LEAVES and in_world(REPOSITORY, page, NODE)]


@pytest.fixture
def player(cluster: Cluster, tmp_path: Path) -> Iterator[Player]:
    """A person at a shell with the cluster's kubeconfig."""
    programs = (cluster.kubectl.program.parent, Path(sys.executable).parent)
    kubeconfig = {"KUBECONFIG": str(cluster.kubeconfig)}
    ports = {8080: int(free_address().rpartition(":")[2])}
    with ExitStack() as stack:
        given = environment(tmp_path, *programs, **kubeconfig)
        shell = stack.enter_context(Shell(checkout(tmp_path), given))
        yield Player(shell=shell, repository=REPOSITORY, ports=ports, seconds=SECONDS)


@pytest.mark.parametrize("page", PAGES)
def test_every_command_of_the_page_does_what_the_page_wants(
    page: str, player: Player, cluster: Cluster
) -> None:
    try:
        assert player.play(in_world(REPOSITORY, page, NODE)) > 0
    finally:
        gone = ("delete", "namespace", "tour", "--ignore-not-found", "--wait=false")
        cluster.kubectl.run(*gone, check=True)


def test_the_product_is_upgraded_and_removed_as_its_page_says(
    player: Player, cluster: Cluster, install: Callable[[], None]
) -> None:
    try:
        assert player.play(in_world(REPOSITORY, LEAVES, NODE)) > 0
        left = cluster.kubectl.run("get", "crds", "-o", "name", check=True).stdout
        assert "nexus.dev" not in left
        assert cluster.kubectl.run("get", "namespace", "nexus-system").returncode != 0
    finally:
        install()
        injects_again(cluster)


def injects_again(cluster: Cluster) -> None:
    """The API server that has seen the policies go, and was not started anew, puts a sidecar in."""
    asked = ("run", "asked", "--image=any", "--labels=nexus.dev/inject=true", "--dry-run=server")

    def injected() -> str:
        answer = cluster.kubectl.run(*asked, "-o", "jsonpath={.spec.initContainers[0].name}")
        return answer.stdout or answer.stderr

    eventually(injected, lambda said: said == "nexus-proxy", what="a sidecar is injected again")
