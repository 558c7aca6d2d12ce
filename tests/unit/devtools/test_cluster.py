"""Which cluster `make cluster-up` starts on which machine, and what it says of it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import yaml

from nexus_devtools import cluster
from nexus_devtools.cluster import CONTROL_PLANE, KIND, KIND_CONFIG, NODE, Machine, choose

ALL = Machine(engine="docker", kind=True, linux=True, root=True, lacks=())


@pytest.mark.parametrize(
    ("machine", "chosen", "why"),
    [
        (ALL, KIND, "docker runs and kind is installed"),
        (replace(ALL, root=False, linux=False), KIND, "docker runs and kind is installed"),
        (replace(ALL, kind=False), NODE, "kind is not installed, and this is root on Linux"),
        (
            replace(ALL, engine=""),
            NODE,
            "neither Docker nor Podman runs, and this is root on Linux",
        ),
        (replace(ALL, engine="", root=False), CONTROL_PLANE, "and a node needs root"),
        (replace(ALL, engine="", linux=False), CONTROL_PLANE, "and a node needs Linux"),
        (
            replace(ALL, engine="", lacks=("runc", "buildah")),
            CONTROL_PLANE,
            "a node needs: apt-get install --no-install-recommends runc buildah",
        ),
    ],
)
def test_a_machine_gets_the_best_cluster_it_can_have(
    machine: Machine, chosen: str, why: str
) -> None:
    kind, reason = choose(machine)
    assert kind == chosen
    assert why in reason


def test_the_number_of_nodes_is_checked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NODES", "three")
    assert cluster.main(["up", NODE]) == 1
    assert capsys.readouterr().err == "NODES is 'three': give 1 or 2\n"


def test_a_word_that_is_no_kind_of_cluster_is_wrong_usage() -> None:
    assert cluster.main(["up", "minikube"]) == 2
    assert cluster.main(["restart"]) == 2


def test_kinds_configuration_is_of_kind_and_has_a_node_for_pods() -> None:
    told = yaml.safe_load(KIND_CONFIG.read_text())
    assert told["kind"] == "Cluster" and told["apiVersion"].startswith("kind.x-k8s.io/")
    assert [node["role"] for node in told["nodes"]] == ["control-plane", "worker"]
