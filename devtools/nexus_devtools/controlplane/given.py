"""A cluster somebody else runs: found by kubeconfig, used as it is, never started or stopped."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from nexus_devtools.controlplane.errors import ControlPlaneError
from nexus_devtools.controlplane.kubeconfig import Cluster, parse_minified
from nexus_devtools.controlplane.kubectl import Kubectl
from nexus_devtools.controlplane.programs import find_kubectl

VARIABLES = ("NEXUS_TEST_KUBECONFIG", "KUBECONFIG")


def given_kubeconfig() -> Path | None:
    """The kubeconfig the environment asks to be used for tests and demo, if any.

    ``NEXUS_TEST_KUBECONFIG`` goes before ``KUBECONFIG``; set but empty, it asks for a control
    plane of our own whatever ``KUBECONFIG`` says.
    """
    for variable in VARIABLES:
        if variable not in os.environ:
            continue
        value = os.environ[variable]
        if not value:
            return None
        if os.pathsep in value:
            raise ControlPlaneError(f"${variable} names several files: name the one to be used")
        path = Path(value).expanduser().resolve()
        if not path.is_file():
            raise ControlPlaneError(
                f"${variable} is {path}, which does not exist: correct or unset it"
            )
        return path
    return None


@dataclass(frozen=True, slots=True)
class GivenCluster:
    """What was found out about it, and the folder of ours for its CA and kubectl's cache."""

    kubectl: Kubectl
    cluster: Cluster
    folder: tempfile.TemporaryDirectory[str]
    ca_file: Path | None

    def start_apiserver(self) -> None:
        self._refuse("started")

    def stop_apiserver(self) -> None:
        self._refuse("stopped")

    def start_etcd(self) -> None:
        self._refuse("started")

    def stop_etcd(self) -> None:
        self._refuse("stopped")

    def compact_etcd(self) -> None:
        self._refuse("compacted")

    def create_namespace(self, name: str) -> None:
        self.kubectl.run("create", "namespace", name, check=True)

    def delete_namespace(self, name: str) -> None:
        """Begin its deletion; the cluster's controller finishes it."""
        self.kubectl.run("delete", "namespace", name, "--wait=false", check=True)

    def destroy(self, *, keep_logs: bool = False) -> None:
        """Forget it; the cluster goes on."""
        self.folder.cleanup()

    def _refuse(self, verb: str) -> None:
        raise ControlPlaneError(
            f"{self.cluster.server} is not ours and cannot be {verb}: unset "
            f"{' and '.join(VARIABLES)} to have a control plane of our own"
        )


def connect(kubeconfig: Path) -> GivenCluster:
    """Look at the cluster of the kubeconfig's current context, which must answer."""
    folder = tempfile.TemporaryDirectory(prefix="nexus-kubernetes-")
    kubectl = Kubectl(find_kubectl(), kubeconfig, Path(folder.name) / "kubectl-cache")
    try:
        view = kubectl.run("config", "view", "--minify", "--flatten", "--raw", check=True)
        cluster = parse_minified(view.stdout)
        kubectl.run("get", "--raw", "/readyz", "--request-timeout=15s", check=True)
    except ControlPlaneError as error:
        folder.cleanup()
        raise ControlPlaneError(
            f"the cluster of {kubeconfig} cannot be used ({error}): correct it, or unset "
            f"{' and '.join(VARIABLES)} to have a control plane of our own"
        ) from error
    ca_file = None
    if cluster.authority is not None:
        ca_file = Path(folder.name) / "ca.crt"
        ca_file.write_bytes(cluster.authority)
    return GivenCluster(kubectl, cluster, folder, ca_file)
