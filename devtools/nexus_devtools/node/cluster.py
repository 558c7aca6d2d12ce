"""The cluster as a whole: up, joined where a run before was stopped, and down without a trace.

`up` may be said again at any time: what runs is left alone, what is missing is started. `down`
works on whatever is there, in the order that lets each part still clean up after itself.
"""

from __future__ import annotations

import datetime
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from nexus_devtools.controlplane.kubectl import Kubectl
from nexus_devtools.controlplane.processes import alive, end, launch, read_pid_file
from nexus_devtools.controlplane.programs import find_programs
from nexus_devtools.controlplane.progress import Progress
from nexus_devtools.controlplane.readiness import tail
from nexus_devtools.node import cgroups, components, configs, images, mounts, network, pki
from nexus_devtools.node.commands import run
from nexus_devtools.node.components import Process, Programs
from nexus_devtools.node.errors import NodeError
from nexus_devtools.node.layout import (
    MOST_NODES,
    NodePlace,
    is_root,
    places,
    site,
    state_folder,
)
from nexus_devtools.node.processes import end_all, naming
from nexus_devtools.node.programs import CONTAINERD, KUBERNETES, built, missing, runc

READY_SECONDS = 120.0
PODS_GONE_SECONDS = 60
GRACE_SECONDS = 5.0
DNS = Path(__file__).with_name("dns.yaml")


class Cluster:
    """One node or two, and the administrator's way in."""

    def __init__(self, nodes: int = 1) -> None:
        self.nodes = places(nodes)
        self.pki = pki.pki()

    @property
    def kubeconfig(self) -> Path:
        return self.pki.kubeconfig("admin")

    @property
    def kubectl(self) -> Kubectl:
        return Kubectl(find_programs() / "kubectl", self.kubeconfig, state_folder() / "cache")

    def up(self) -> None:
        """Start it, or complete what runs. Raises NodeError."""
        _check_machine()
        programs = Programs(find_programs(), built(KUBERNETES), built(CONTAINERD))
        archives = images.archives()
        with Progress("starting the cluster"):
            pki.complete(self.nodes, now=datetime.datetime.now(datetime.UTC))
            network.put_up(self.nodes)
            self._start_control_plane(programs)
            for place in self.nodes:
                self._start_node(place, programs, archives)
            self._wait_ready()

    def import_images(self, archives: dict[str, Path]) -> None:
        """Make images known to every node, replacing those of the same name."""
        folder = built(CONTAINERD)
        for place in self.nodes:
            for archive in archives.values():
                _ctr(folder, place, "images", "import", "--local", archive)

    def _start_control_plane(self, programs: Programs) -> None:
        first = self.nodes[0]
        _start(components.etcd(first, programs))
        server = components.apiserver(first, programs, self.pki)
        _start(server)
        self._wait("the API server", server, "get", "--raw", "/readyz")
        _start(components.controller_manager(first, programs, self.pki))
        _start(components.scheduler(first, programs, self.pki))

    def _start_node(self, place: NodePlace, programs: Programs, archives: dict[str, Path]) -> None:
        _write_configs(place, self.pki)
        cgroups.create(place)
        runtime = components.containerd(place, programs)
        _start(runtime)
        _until("containerd", runtime, lambda: _containerd_answers(programs.containerd, place))
        present = _ctr(programs.containerd, place, "images", "list", "-q").split()
        for name, archive in archives.items():
            if name not in present:
                _ctr(programs.containerd, place, "images", "import", "--local", archive)
        _start(components.kubelet(place, programs, self.pki))
        _start(components.kube_proxy(place, programs, self.pki))

    def _wait_ready(self) -> None:
        dns = DNS.read_text().replace("ADDRESS", site().dns_address)
        self.kubectl.run("apply", "-f", "-", input=dns, check=True)
        for place in self.nodes:
            kubelet = Process(f"kubelet-{place.number}", place, ())
            self._wait("the node", kubelet, "get", "node", place.name)
            wait = ("wait", "--for=condition=Ready", f"node/{place.name}", "--timeout=90s")
            self.kubectl.run(*wait, check=True)
        status = ("-n", "kube-system", "rollout", "status", "deployment/coredns", "--timeout=90s")
        self.kubectl.run(*status, check=True)

    def _wait(self, what: str, process: Process, *command: str) -> None:
        _until(what, process, lambda: self.kubectl.run(*command).returncode == 0)

    def down(self) -> None:
        """End it; nothing stays behind. What is not there is no error."""
        with Progress("ending the cluster"):
            for name in ("kube-controller-manager-1", "kube-scheduler-1"):
                _end(name)
            if alive(read_pid_file(_pid_file("kube-apiserver-1"))):
                self._delete_pods()
            for place in places(MOST_NODES):
                for name in ("kubelet", "kube-proxy", "containerd"):
                    _end(f"{name}-{place.number}")
                end_all(str(place.containerd))
            for name in ("kube-apiserver-1", "etcd-1"):
                _end(name)
            cgroups.remove()
            mounts.unmount(state_folder())
            network.take_down()
            shutil.rmtree(state_folder(), ignore_errors=True)

    def _delete_pods(self) -> None:
        timeout = f"--timeout={PODS_GONE_SECONDS}s"
        command = ("delete", "pods", "--all", "--all-namespaces", "--grace-period=1", timeout)
        self.kubectl.run(*command, timeout_seconds=PODS_GONE_SECONDS + 30)


def remains() -> list[str]:
    """Everything of the cluster that is on the machine: empty after `down`."""
    found = [f"process {pid}" for pid in naming(f"{state_folder()}/")]
    found += [f"mount {point}" for point in mounts.below(state_folder())]
    found += [f"cgroup {tree}" for tree in cgroups.trees()]
    found += network.remains()
    if state_folder().exists():
        found.append(f"folder {state_folder()}")
    rules = run("iptables-save") if is_root() else ""
    return found + [f"rule {line}" for line in rules.splitlines() if "KUBE-" in line]


def running_nodes() -> int:
    """How many nodes are up; 0 without a cluster."""
    return sum(
        alive(read_pid_file(_pid_file(f"kubelet-{place.number}"))) for place in places(MOST_NODES)
    )


def _check_machine() -> None:
    if not is_root():
        raise NodeError("a node needs root on Linux: run this as root, or CLUSTER=controlplane")
    packages = missing()
    if packages:
        raise NodeError(f"apt-get install -y --no-install-recommends {' '.join(packages)}")


def _write_configs(place: NodePlace, made: pki.ClusterPki) -> None:
    for folder in ("cni", "kubelet", "containerd"):
        (place.folder / folder).mkdir(parents=True, exist_ok=True)
    (place.folder / "containerd.toml").write_text(configs.containerd(place, runc()))
    (place.folder / "cni" / "10-bridge.conflist").write_text(configs.network(place))
    (place.folder / "kubelet.yaml").write_text(configs.kubelet(place, made))
    (place.folder / "resolv.conf").write_text("")


def _containerd_answers(programs: Path, place: NodePlace) -> bool:
    try:
        _ctr(programs, place, "version")
    except NodeError:
        return False
    return True


def _ctr(programs: Path, place: NodePlace, *arguments: str | Path) -> str:
    return run(programs / "ctr", "--address", place.containerd, "-n", "k8s.io", *arguments)


def _pid_file(name: str) -> Path:
    return state_folder() / f"{name}.pid"


def _log(name: str) -> Path:
    return state_folder() / "logs" / f"{name}.log"


def _start(process: Process) -> None:
    if alive(read_pid_file(_pid_file(process.name))):
        return
    command: Sequence[str] = (
        shutil.which("nsenter") or "nsenter",
        *network.inside(process.place)[1:],
        *process.command,
    )
    launch(command, pid_file=_pid_file(process.name), log=_log(process.name))


def _until(what: str, process: Process, condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise NodeError(f"{what} is not ready; {tail(_log(process.name))}")
        time.sleep(0.2)


def _end(name: str) -> None:
    end(read_pid_file(_pid_file(name)), grace_seconds=GRACE_SECONDS)
    _pid_file(name).unlink(missing_ok=True)
