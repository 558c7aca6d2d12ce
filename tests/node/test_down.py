"""`make cluster-up` and `make cluster-down`: the way in is said last, and nothing stays behind."""

from __future__ import annotations

import subprocess
import sys

import pytest

from nexus_devtools.node.cluster import Cluster, remains
from nexus_devtools.node.inventory import inventory
from nexus_devtools.node.layout import MOST_CLUSTERS, VARIABLE


def cluster_tool(verb: str) -> list[str]:
    command = (sys.executable, "-m", "nexus_devtools.cluster", verb, "node")
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=900)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_cluster_comes_up_twice_said_and_goes_without_a_trace(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Beside the cluster of the other tests, from what was built for it.
    monkeypatch.setenv(VARIABLE, str(MOST_CLUSTERS - 1))
    before = inventory()
    try:
        said = cluster_tool("up")
        assert cluster_tool("up") == said
        assert said[-1].startswith("export KUBECONFIG=")
        asked = f"{said[-1]}; kubectl get nodes -o name; kubectl get llmbackends"
        seen = subprocess.run(["bash", "-c", asked], capture_output=True, text=True, check=True)
        assert seen.stdout == "node/node1\n"
        assert inventory() - before, "there is something to be left behind"
    finally:
        assert cluster_tool("down") == ["ended: node"]
    assert inventory() - before == set()
    assert remains() == []
    assert cluster_tool("down") == ["no cluster is up"]
