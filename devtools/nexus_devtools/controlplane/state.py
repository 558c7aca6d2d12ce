"""The state folder of one instance: where it listens, which programs it runs, whose it is.

``state.json`` is replaced as a whole, so a run that is killed at any moment leaves either the old
or the new one. The pid files lie beside it. Nothing here starts or ends a process.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from nexus_devtools.controlplane.errors import ControlPlaneError
from nexus_devtools.controlplane.processes import ProcessId

FILE = "state.json"
ETCD_PID = "etcd.pid"
APISERVER_PID = "kube-apiserver.pid"
PID_FILES = (APISERVER_PID, ETCD_PID)
"""In the order the processes are to be ended: the API server always before its etcd."""


@dataclass(frozen=True, slots=True)
class Ports:
    """The loopback ports of one instance."""

    apiserver: int
    etcd_client: int
    etcd_peer: int


@dataclass(frozen=True, slots=True)
class State:
    """One instance. ``owner`` is the process it belongs to: without it, this is nobody's.

    ``ready`` says that it has been up; until then the owner is starting it. An instance made by
    ``up`` outlives its command, so its owner is None once it is ready.
    """

    name: str
    ports: Ports
    programs: str
    owner: ProcessId | None = None
    ready: bool = False


def save(folder: Path, state: State) -> None:
    """Replace the state file in one step."""
    fresh = folder / f".{FILE}.{os.getpid()}"
    fresh.write_text(json.dumps(dataclasses.asdict(state), indent=2) + "\n")
    fresh.replace(folder / FILE)


def load(folder: Path) -> State | None:
    """The state of the instance in ``folder``, or None if there is none there."""
    try:
        content = (folder / FILE).read_text()
    except FileNotFoundError:
        return None
    try:
        fields = json.loads(content)
        return State(
            name=fields["name"],
            ports=Ports(**fields["ports"]),
            programs=fields["programs"],
            owner=_process(fields["owner"]),
            ready=fields["ready"],
        )
    except (ValueError, KeyError, TypeError) as error:
        raise ControlPlaneError(
            f"{folder / FILE} is damaged ({error!r}): end what *.pid there name, remove the folder"
        ) from error


def _process(fields: dict[str, object] | None) -> ProcessId | None:
    return None if fields is None else ProcessId(int(str(fields["pid"])), str(fields["started"]))


def load_all(root: Path) -> dict[Path, State]:
    """Every instance under ``root``."""
    folders = sorted(path.parent for path in root.glob(f"*/{FILE}"))
    found = {folder: load(folder) for folder in folders}
    return {folder: state for folder, state in found.items() if state is not None}


def remove(folder: Path, *, keep_logs: bool = False) -> None:
    """Remove the folder of an instance whose processes are gone, all but the logs if asked."""
    if not keep_logs:
        shutil.rmtree(folder, ignore_errors=True)
        return
    for path in folder.iterdir():
        if path.name == "logs":
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
