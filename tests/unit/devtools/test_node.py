"""What the project's own node is told, and that it keeps within its names."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
import yaml

from nexus_devtools.node import able, cgroups, components, configs, mounts, pods
from nexus_devtools.node.components import Programs
from nexus_devtools.node.errors import NodeError
from nexus_devtools.node.layout import CGROUPS, VARIABLE, NodePlace, places, site, state_folder
from nexus_devtools.node.pki import pki

PROGRAMS = Programs(Path("/cp"), Path("/k8s"), Path("/ctd"))
FIRST, SECOND = places(2)


@pytest.fixture(autouse=True)
def state(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    return tmp_path


def flags(process: components.Process) -> dict[str, str]:
    return dict(each.removeprefix("--").split("=", 1) for each in process.command[1:])


def test_two_nodes_share_nothing_but_the_bridge() -> None:
    for attribute in ("name", "netns", "link", "address", "pods", "folder", "cgroup", "containerd"):
        assert getattr(FIRST, attribute) != getattr(SECOND, attribute), attribute
    assert all(len(place.link) < 16 for place in (FIRST, SECOND)), "a link's name has 15 letters"


def test_a_kubelet_keeps_to_its_folder_and_its_cgroup(state: Path) -> None:
    told = yaml.safe_load(configs.kubelet(SECOND, pki()))
    assert told["cgroupRoot"] == SECOND.cgroup
    for place in ("podLogsDir", "volumePluginDir", "resolvConf"):
        assert Path(told[place]).is_relative_to(SECOND.folder)
    assert told["containerRuntimeEndpoint"] == f"unix://{SECOND.containerd}"
    kubelet = flags(components.kubelet(SECOND, PROGRAMS, pki()))
    assert kubelet["root-dir"] == str(SECOND.folder / "kubelet")
    assert kubelet["kubeconfig"].endswith("node2.kubeconfig")
    assert state_folder().is_relative_to(state)


def test_every_component_knows_the_api_server_by_a_certificate_of_its_own() -> None:
    made = pki()
    processes = [
        components.controller_manager(FIRST, PROGRAMS, made),
        components.scheduler(FIRST, PROGRAMS, made),
        components.kubelet(FIRST, PROGRAMS, made),
        components.kube_proxy(FIRST, PROGRAMS, made),
    ]
    assert len({flags(process)["kubeconfig"] for process in processes}) == len(processes)
    server = flags(components.apiserver(FIRST, PROGRAMS, made))
    assert server["authorization-mode"] == "Node,RBAC"


def test_etcd_answers_nobody_but_its_node() -> None:
    told = flags(components.etcd(FIRST, PROGRAMS))
    assert told["listen-client-urls"].startswith("http://127.0.0.1:")
    assert told["listen-peer-urls"].startswith("http://127.0.0.1:")


def test_nothing_is_mounted_below_a_folder_nobody_knows(tmp_path: Path) -> None:
    assert mounts.below(tmp_path) == []
    if CGROUPS.is_dir():
        assert CGROUPS in mounts.below(CGROUPS.parent)


def test_pods_of_tests_mount_the_checkout_read_only() -> None:
    made, service = pods.simulated("sim-a", models=("m", "n"))
    (container,) = made["spec"]["containers"]
    assert all(mount["readOnly"] for mount in container["volumeMounts"])
    assert "--models=m,n" in container["command"]
    assert service["spec"]["selector"].items() <= made["metadata"]["labels"].items()


@pytest.mark.parametrize(
    ("platform", "root", "apt", "why"),
    [
        ("darwin", True, True, "a node needs Linux"),
        ("linux", False, True, "a node needs root"),
        ("linux", True, False, "there is no apt-get to install runc"),
        ("linux", True, True, ""),
    ],
)
def test_a_machine_that_can_have_no_node_is_told_why(
    monkeypatch: pytest.MonkeyPatch, *, platform: str, root: bool, apt: bool, why: str
) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(able, "is_root", lambda: root)
    monkeypatch.setattr(able, "succeeds", lambda *command: True)
    monkeypatch.setattr(cgroups, "hierarchies", list)
    monkeypatch.setattr(able, "missing", lambda for_tests: ["runc"])
    monkeypatch.setattr(shutil, "which", lambda name: "/usr/bin/apt-get" if apt else None)
    assert able.obstacle() == why


def test_clusters_of_different_numbers_share_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    places_of, folders = [], set()
    for number in ("", "1", "7"):
        monkeypatch.setenv(VARIABLE, number)
        places_of.append(NodePlace(1, site()))
        folders.add(state_folder())
    shared = ("name", "bridge", "host_address", "pod_range", "service_range", "dns_address")
    for attribute in shared:
        assert len({getattr(place.site, attribute) for place in places_of}) == 3, attribute
    for attribute in ("netns", "link", "address", "pods", "cgroup"):
        assert len({getattr(place, attribute) for place in places_of}) == 3, attribute
    assert len(folders) == 3
    monkeypatch.setenv(VARIABLE, "eight")
    with pytest.raises(NodeError, match="give a number from 0 to 7"):
        site()
