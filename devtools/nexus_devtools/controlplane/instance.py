"""One control plane of our own: claiming its name, starting and stopping its two processes."""

from __future__ import annotations

import datetime
import functools
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass, replace
from pathlib import Path

from nexus_devtools.controlplane import etcd, namespaces
from nexus_devtools.controlplane import state as files
from nexus_devtools.controlplane.admin import AdminClient
from nexus_devtools.controlplane.certificates import (
    Certificates,
    certificates_in,
    write_certificates,
)
from nexus_devtools.controlplane.cleanup import claims_of, destroy, end_process, sweep
from nexus_devtools.controlplane.components import apiserver_arguments, etcd_arguments
from nexus_devtools.controlplane.errors import ControlPlaneError
from nexus_devtools.controlplane.kubeconfig import admin_user, own_cluster, write_kubeconfig
from nexus_devtools.controlplane.paths import instance_folder, state_root
from nexus_devtools.controlplane.ports import choose_ports
from nexus_devtools.controlplane.processes import alive, identify, launch, read_pid_file
from nexus_devtools.controlplane.readiness import accepts_connections, wait_for
from nexus_devtools.controlplane.state import State

START_TIMEOUT_SECONDS = 90.0


@dataclass(frozen=True, slots=True)
class Instance:
    """A claimed name. ``attached``: its processes die with the one that starts them."""

    folder: Path
    state: State
    attached: bool = False

    @property
    def pki(self) -> Certificates:
        return certificates_in(self.folder / "pki")

    @property
    def kubeconfig(self) -> Path:
        return self.folder / "admin.kubeconfig"

    @property
    def programs(self) -> Path:
        return Path(self.state.programs)

    def log(self, pid_file: str) -> Path:
        """The log of the process with this pid file."""
        return self.folder / "logs" / f"{Path(pid_file).stem}.log"

    def runs(self, pid_file: str) -> bool:
        """Whether the process with this pid file is alive."""
        return alive(read_pid_file(self.folder / pid_file))

    def start(self) -> Instance:
        """Create certificates, start both processes, return once ``default`` exists."""
        try:
            write_certificates(self.folder / "pki", now=datetime.datetime.now(datetime.UTC))
            cluster = own_cluster(self.state.ports.apiserver, self.pki)
            write_kubeconfig(
                self.kubeconfig,
                cluster,
                user=admin_user(self.pki),
                user_name="nexus-admin",
                namespace="default",
            )
            self.start_etcd()
            self.start_apiserver()
        except BaseException as error:
            # Without its folder, a program not yet started (see launcher.py) ends by itself.
            destroy(self.folder, keep_logs=isinstance(error, ControlPlaneError))
            raise
        owner = self.state.owner if self.attached else None
        ready = replace(self.state, ready=True, owner=owner)
        files.save(self.folder, ready)
        return replace(self, state=ready)

    def start_etcd(self) -> None:
        """Start it on the port and the data it had; returns once it listens. No-op if it runs."""
        if self.runs(files.ETCD_PID):
            return
        arguments = etcd_arguments(
            self.programs / "etcd",
            data=self.folder / "etcd",
            ports=self.state.ports,
            pki=self.pki,
        )
        listens = functools.partial(accepts_connections, self.state.ports.etcd_client)
        self._launch(arguments, files.ETCD_PID, (listens,))

    def start_apiserver(self) -> None:
        """Start it on the port and the data it had; returns once it is ready. No-op if it runs."""
        if self.runs(files.APISERVER_PID):
            return
        arguments = apiserver_arguments(
            self.programs / "kube-apiserver", ports=self.state.ports, pki=self.pki
        )
        paths = ("/readyz", "/api/v1/namespaces/default")
        with self._admin() as client:
            answers = tuple(functools.partial(client.answers, path) for path in paths)
            self._launch(arguments, files.APISERVER_PID, answers)

    def stop_apiserver(self) -> None:
        """Stop it, leaving etcd with all data; returns once it is gone. No-op if it is not up."""
        end_process(self.folder, files.APISERVER_PID)

    def stop_etcd(self) -> None:
        """Stop it; the API server runs on without it. Returns once it is gone."""
        end_process(self.folder, files.ETCD_PID)

    def compact_etcd(self) -> None:
        """Have etcd forget all history."""
        etcd.compact(self.state.ports.etcd_client, self.pki)

    def create_namespace(self, name: str) -> None:
        """Create it, ready for pods and ServiceAccounts."""
        with self._admin() as client:
            namespaces.create(client, name)

    def delete_namespace(self, name: str) -> None:
        """Delete it with its contents; returns once it is gone."""
        with self._admin() as client:
            namespaces.delete(client, name)

    def destroy(self, *, keep_logs: bool = False) -> None:
        """End everything and remove the state folder."""
        with claims_of(self.folder.parent):
            destroy(self.folder, keep_logs=keep_logs)

    def _admin(self) -> AdminClient:
        return AdminClient(self.state.ports.apiserver, self.pki)

    def _launch(
        self, arguments: list[str], pid_file: str, conditions: Sequence[Callable[[], bool]]
    ) -> None:
        log = self.log(pid_file)
        process = launch(
            arguments, pid_file=self.folder / pid_file, log=log, die_with_parent=self.attached
        )
        for condition in conditions:
            wait_for(
                Path(arguments[0]).name,
                condition,
                # Not by the pid file: the process itself writes it, a moment later.
                running=lambda: alive(process),
                log=log,
                timeout_seconds=START_TIMEOUT_SECONDS,
            )


def find(name: str) -> Instance | None:
    """The instance of this name, whatever its condition."""
    folder = instance_folder(name)
    state = files.load(folder)
    return None if state is None else Instance(folder, state)


def find_all() -> list[Instance]:
    """Every instance of this user."""
    return [Instance(folder, state) for folder, state in files.load_all(state_root()).items()]


def claim(name: str, programs: Path, *, attached: bool) -> Instance:
    """Take the name, clean up what a killed run has left, choose ports; or return what is up.

    Only a detached claim can find an instance up; for an attached one that is an error.
    """
    folder = instance_folder(name)
    with claims_of(folder.parent):
        sweep(folder.parent)
        existing = find(name)
        if existing is not None and (existing.state.owner or existing.runs(files.ETCD_PID)):
            return _adopt(existing, attached=attached)
        if existing is not None:
            destroy(folder)
        shutil.rmtree(folder, ignore_errors=True)
        others = files.load_all(folder.parent).values()
        taken = {port for other in others for port in astuple(other.ports)}
        state = State(name, choose_ports(taken), str(programs), owner=identify(os.getpid()))
        folder.mkdir(mode=0o700)
        files.save(folder, state)
        return Instance(folder, state, attached)


def _adopt(existing: Instance, *, attached: bool) -> Instance:
    name, owner = existing.state.name, existing.state.owner
    if owner is not None:
        raise ControlPlaneError(
            f"the control plane {name!r} belongs to the running process {owner.pid}: "
            "take another name, or wait for it"
        )
    if attached:
        raise ControlPlaneError(
            f"the control plane {name!r} is up already: take another name, or end it with "
            f"python -m nexus_devtools.controlplane down --name {name}"
        )
    return existing
