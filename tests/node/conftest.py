"""The cluster of these tests: the project's own node with the product installed as a user would."""

from __future__ import annotations

import fcntl
import os
import secrets
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from nexus_devtools.controlplane.kubectl import Kubectl
from nexus_devtools.node import images
from nexus_devtools.node.cluster import Cluster, running_nodes
from nexus_devtools.node.layout import MOST_NODES, cache_folder, site
from nexus_devtools.node.shop import Shop

REPOSITORY = Path(__file__).parents[2]
# For those who run one test again and again: what runs is neither built nor installed anew.
AS_IT_IS = "NEXUS_NODE_AS_IT_IS"
# The operator stays on the first node: tests take the second one away.
FIRST_NODE = '{"spec":{"template":{"spec":{"nodeSelector":{"kubernetes.io/hostname":"node1"}}}}}'


@pytest.fixture(scope="session")
def alone() -> Iterator[None]:
    """Two sessions do not use one cluster at a time: the second waits."""
    cache_folder().mkdir(parents=True, exist_ok=True)
    with (cache_folder() / f".{site().name}.session").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@pytest.fixture(scope="session")
def cluster(request: pytest.FixtureRequest, alone: None) -> Iterator[Cluster]:
    """Two nodes, with the product as the README installs it. What runs is used, and left."""
    found = running_nodes()
    made = Cluster(MOST_NODES)
    if found and os.environ.get(AS_IT_IS):
        yield made
        return
    manager = request.config.pluginmanager.getplugin("capturemanager")
    assert manager is not None
    with manager.global_and_fixture_disabled():
        made.up()
        made.import_images({**images.product_archives(), images.BASE_IMAGE: images.base_archive()})
    _install(made.kubectl)
    yield made
    if not found:
        made.down()


def _install(kubectl: Kubectl) -> None:
    overlay = REPOSITORY / "manifests" / "overlays" / "default"
    for command in (
        ("apply", "--server-side", "-f", REPOSITORY / "crds"),
        ("apply", "-k", overlay),
        ("-n", "nexus-system", "patch", "deployment", "nexus-operator", "-p", FIRST_NODE),
        ("-n", "nexus-system", "rollout", "restart", "deployment/nexus-operator"),
        ("-n", "nexus-system", "rollout", "status", "deployment/nexus-operator", "--timeout=90s"),
    ):
        kubectl.run(*command, check=True)


@pytest.fixture
def install(cluster: Cluster) -> Callable[[], None]:
    """Installs the product as it was, for who has taken it away."""
    return lambda: _install(cluster.kubectl)


@pytest.fixture
def make_shop(cluster: Cluster) -> Iterator[Callable[..., Shop]]:
    """Makes namespaces whose service accounts may read the three kinds; they go with the test."""
    made: list[str] = []

    def make(name: str = "") -> Shop:
        name = name or f"shop-{secrets.token_hex(3)}"
        cluster.kubectl.run("create", "namespace", name, check=True)
        made.append(name)
        rights = cluster.kubectl.run("kustomize", REPOSITORY / "manifests" / "namespace").stdout
        moved = rights.replace("namespace: default", f"namespace: {name}")
        moved = moved.replace("serviceaccounts:default", f"serviceaccounts:{name}")
        cluster.kubectl.run("apply", "-f", "-", input=moved, check=True)
        return Shop(cluster.kubectl, name)

    yield make
    for name in set(made):
        cluster.kubectl.run("delete", "namespace", name, "--wait=false", check=True)


@pytest.fixture
def shop(make_shop: Callable[..., Shop]) -> Shop:
    """One such namespace."""
    return make_shop()


@pytest.fixture
def system(cluster: Cluster) -> Shop:
    """The operator's namespace."""
    return Shop(cluster.kubectl, "nexus-system")


def lines(text: str) -> Sequence[str]:
    return [line for line in text.splitlines() if line]
