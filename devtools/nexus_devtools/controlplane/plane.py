"""The API of the tool: a real Kubernetes API server to test against, ours or a given one.

:meth:`ControlPlane.start` is the one place that decides which. There are no nodes, no scheduler
and no controllers in our own: objects are stored, validated and authorized for real, pods never
run.
"""

from __future__ import annotations

import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from nexus_devtools.controlplane import given, identities, instance, kubeconfig
from nexus_devtools.controlplane.errors import ControlPlaneError
from nexus_devtools.controlplane.kubectl import Kubectl
from nexus_devtools.controlplane.paths import CRDS
from nexus_devtools.controlplane.programs import find_programs


class Backing(Protocol):
    """What depends on whose API server it is."""

    def start_apiserver(self) -> None: ...
    def stop_apiserver(self) -> None: ...
    def start_etcd(self) -> None: ...
    def stop_etcd(self) -> None: ...
    def compact_etcd(self) -> None: ...
    def create_namespace(self, name: str) -> None: ...
    def delete_namespace(self, name: str) -> None: ...
    def destroy(self, *, keep_logs: bool = False) -> None: ...


class ControlPlane:
    """A running API server and the administrator's way in. A context manager that ends with
    ``down()``.
    """

    def __init__(
        self,
        *,
        name: str,
        backing: Backing,
        kubectl: Kubectl,
        cluster: kubeconfig.Cluster,
        ca_file: Path | None,
        log_folder: Path | None,
        ready_seconds: float,
    ) -> None:
        self.name = name
        self.server = cluster.server
        self.kubeconfig = kubectl.kubeconfig
        self.kubectl = kubectl.program
        self.kubectl_cache = kubectl.cache
        self.log_folder = log_folder
        self.ready_seconds = ready_seconds
        self._backing = backing
        self._kubectl = kubectl
        self._cluster = cluster
        self._ca_file = ca_file

    @classmethod
    def start(cls, name: str) -> ControlPlane:
        """The cluster the environment names, else a fresh one that dies with this process.

        Names must differ between instances that run at the same time. Raises ControlPlaneError.
        """
        path = given.given_kubeconfig()
        return cls._fresh(name, attached=True) if path is None else cls._connect(name, path)

    @classmethod
    def up(cls, name: str) -> ControlPlane:
        """One of our own that outlives this process until ``down``; joined if it is up already."""
        return cls._fresh(name, attached=False)

    @classmethod
    def find(cls, name: str) -> ControlPlane | None:
        """One of our own that is up, or None."""
        found = instance.find(name)
        return None if found is None or not found.state.ready else cls._of(found, 0.0)

    @classmethod
    def _fresh(cls, name: str, *, attached: bool) -> ControlPlane:
        programs = find_programs()
        began = time.monotonic()
        claimed = instance.claim(name, programs, attached=attached)
        if claimed.state.ready:
            claimed.start_apiserver()
        else:
            claimed = claimed.start()
        return cls._of(claimed, time.monotonic() - began)

    @classmethod
    def _of(cls, own: instance.Instance, ready_seconds: float) -> ControlPlane:
        return cls(
            name=own.state.name,
            backing=own,
            kubectl=Kubectl(own.programs / "kubectl", own.kubeconfig, own.folder / "kubectl-cache"),
            cluster=kubeconfig.own_cluster(own.state.ports.apiserver, own.pki),
            ca_file=own.pki.authority.certificate,
            log_folder=own.folder / "logs",
            ready_seconds=ready_seconds,
        )

    @classmethod
    def _connect(cls, name: str, path: Path) -> ControlPlane:
        began = time.monotonic()
        found = given.connect(path)
        return cls(
            name=name,
            backing=found,
            kubectl=found.kubectl,
            cluster=found.cluster,
            ca_file=found.ca_file,
            log_folder=None,
            ready_seconds=time.monotonic() - began,
        )

    @property
    def is_own(self) -> bool:
        """Whether the API server is ours: it can be stopped and holds only what we put there."""
        return self.log_folder is not None

    @property
    def ca_file(self) -> Path:
        """The PEM file of the CA that signed the API server's certificate."""
        if self._ca_file is None:
            raise ControlPlaneError(
                f"{self.server} has no CA of its own: use the system's trust store"
            )
        return self._ca_file

    def stop_apiserver(self) -> None:
        """Stop the API server; data and port are kept. Returns once it is gone."""
        self._backing.stop_apiserver()

    def start_apiserver(self) -> None:
        """Start it again on the same address; returns once it is ready."""
        self._backing.start_apiserver()

    def stop_etcd(self) -> None:
        """Stop etcd under the running API server; returns once it is gone."""
        self._backing.stop_etcd()

    def start_etcd(self) -> None:
        """Start etcd again with the data it had; returns once it listens."""
        self._backing.start_etcd()

    def compact_etcd(self) -> None:
        """Have etcd forget its history: watches from before can only be begun anew.

        An API server that runs on still remembers what it saw; one that starts later does not.
        """
        self._backing.compact_etcd()

    def down(self, *, keep_logs: bool = False) -> None:
        """End it and leave nothing behind (but ``log_folder``, if asked)."""
        self._backing.destroy(keep_logs=keep_logs)

    def run_kubectl(
        self,
        *arguments: str | Path,
        input: str | None = None,
        kubeconfig: Path | None = None,
        check: bool = False,
        timeout_seconds: float = 120.0,
    ) -> subprocess.CompletedProcess[str]:
        """Run kubectl as the administrator, or with another kubeconfig; output is captured as text.

        With ``check``, a failure is a ControlPlaneError with kubectl's message.
        """
        return self._kubectl.run(
            *arguments,
            input=input,
            kubeconfig=kubeconfig,
            check=check,
            timeout_seconds=timeout_seconds,
        )

    def create_namespace(self, name: str) -> None:
        """Create a namespace, ready for pods and ServiceAccounts to be put into it."""
        self._backing.create_namespace(name)

    def delete_namespace(self, name: str) -> None:
        """Delete a namespace with all that is in it (a given cluster finishes that by itself)."""
        self._backing.delete_namespace(name)

    def apply_crds(self) -> None:
        """Apply the project's custom resource definitions; returns once they are served."""
        self.run_kubectl("apply", "--server-side", "-f", CRDS, check=True)
        self.run_kubectl(
            "wait", "--for=condition=Established", "--timeout=60s", "-f", CRDS, check=True
        )

    def identity(
        self,
        namespace: str,
        service_account: str,
        audience: str | None = None,
        expiration_seconds: int = identities.DEFAULT_SECONDS,
    ) -> str:
        """A bearer token for the ServiceAccount, which is created if it does not exist.

        ``audience`` None is the API server's own. At least 600 seconds. It has the rights RBAC
        grants the ServiceAccount: by default none.
        """
        return identities.token(
            self._kubectl,
            namespace=namespace,
            service_account=service_account,
            audience=audience,
            expiration_seconds=expiration_seconds,
        )

    def write_kubeconfig(self, path: Path, namespace: str, service_account: str) -> Path:
        """Write a kubeconfig that is this ServiceAccount and nothing more; returns ``path``.

        Its context's namespace is the ServiceAccount's. The token lives for a day.
        """
        bearer = self.identity(namespace, service_account)
        kubeconfig.write_kubeconfig(
            path,
            self._cluster,
            user={"token": bearer},
            user_name=service_account,
            namespace=namespace,
        )
        return path

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.down()
