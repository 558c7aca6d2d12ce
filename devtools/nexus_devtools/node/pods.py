"""Pods for tests that run this checkout's own Python: simulated backends, the model, applications.

They mount the checkout and its interpreter from the host, so nothing has to be built to change
them. Only on the project's own node, where the host is this machine.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nexus_devtools.backends.weights import weights
from nexus_devtools.controlplane.paths import REPOSITORY
from nexus_devtools.node.commands import run
from nexus_devtools.node.errors import NodeError
from nexus_devtools.node.images import BASE_IMAGE

PYTHON = str(REPOSITORY / ".venv" / "bin" / "python")
PORT = 8000
CONTROL_PORT = 8001
OPENMP = "libgomp.so.1"
MOUNTED = {"checkout": str(REPOSITORY), "python": sys.base_prefix}


def simulated(
    name: str, *, models: Sequence[str] = ("m",), script: str = "{}", node: str | None = None
) -> list[Any]:
    """A simulated backend and its Service, scripted through its control port."""
    ports = (f"--port={PORT}", f"--control-port={CONTROL_PORT}")
    command = [PYTHON, "-m", "nexus_devtools.backends.simulated", "--host=0.0.0.0", *ports]
    command += [f"--name={name}", f"--models={','.join(models)}", f"--script={script}"]
    return [pod(name, command, ready="/health", node=node), service(name)]


def model(name: str) -> list[Any]:
    """A real, small language model and its Service; weights and OpenMP are the host's."""
    command = [PYTHON, "-m", "nexus_devtools.backends.model_server", "--host=0.0.0.0"]
    made = pod(name, [*command, f"--port={PORT}"], ready="/health")
    (container,) = made["spec"]["containers"]
    container["env"].append({"name": "LD_LIBRARY_PATH", "value": "/opt/openmp"})
    more = {
        "/tmp/nexus-kubernetes/models": weights().parent,
        f"/opt/openmp/{OPENMP}": _library(OPENMP),
    }
    for number, (inside, outside) in enumerate(more.items()):
        mount = {"name": f"model-{number}", "mountPath": inside, "readOnly": True}
        container["volumeMounts"].append(mount)
        volume = {"name": f"model-{number}", "hostPath": {"path": str(outside)}}
        made["spec"]["volumes"].append(volume)
    return [made, service(name)]


def _library(name: str) -> Path:
    """Where the host has it, which llama.cpp needs as well as a pod."""
    for line in run("/sbin/ldconfig", "-p").splitlines():
        if line.split()[:1] == [name]:
            return Path(line.split(" => ")[1]).resolve()
    raise NodeError(f"{name} is not on this machine: apt install libgomp1")


def guarded(name: str, key: str) -> list[Any]:
    """A backend that wants a key, and its Service."""
    command = [PYTHON, "-m", "nexus_devtools.node.guarded", f"--port={PORT}", f"--key={key}"]
    return [pod(name, command, ready="/health"), service(name)]


def pod(
    name: str,
    command: Sequence[str],
    *,
    ready: str | None = None,
    labels: Mapping[str, str] | None = None,
    annotations: Mapping[str, str] | None = None,
    restart: str = "Always",
    node: str | None = None,
) -> dict[str, Any]:
    """One container with this command; `ready`: the path that says so on PORT."""
    container: dict[str, Any] = {
        "name": "main",
        "image": BASE_IMAGE,
        "imagePullPolicy": "Never",
        "command": list(command),
        "env": [
            {"name": "PYTHONDONTWRITEBYTECODE", "value": "1"},
            {"name": "XDG_CACHE_HOME", "value": "/tmp"},
        ],
        "volumeMounts": [
            {"name": each, "mountPath": path, "readOnly": True} for each, path in MOUNTED.items()
        ],
    }
    if ready:
        container["readinessProbe"] = {
            "httpGet": {"path": ready, "port": PORT},
            "periodSeconds": 1,
            "timeoutSeconds": 2,
        }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "labels": {"app": name, **(labels or {})},
            "annotations": dict(annotations or {}),
        },
        "spec": {
            "restartPolicy": restart,
            "automountServiceAccountToken": False,
            "terminationGracePeriodSeconds": 2,
            "nodeSelector": {"kubernetes.io/hostname": node} if node else {},
            "containers": [container],
            "volumes": [
                {"name": each, "hostPath": {"path": path}} for each, path in MOUNTED.items()
            ],
        },
    }


def service(name: str) -> dict[str, Any]:
    """The Service in front of the pods of this name, ready or not yet reachable by it."""
    ports = {"http": PORT, "control": CONTROL_PORT}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {
            "selector": {"app": name},
            "publishNotReadyAddresses": True,
            "ports": [{"name": each, "port": port} for each, port in ports.items()],
        },
    }


def backend(name: str, *, namespace: str = "", **spec: Any) -> dict[str, Any]:
    """The LLMBackend of a pod of this name; without the namespace only its own pods find it.

    The operator, which is elsewhere, probes by the whole name.
    """
    host = f"{name}.{namespace}.svc" if namespace else name
    plain = {"url": f"http://{host}:{PORT}", "type": "vllm"}
    return {
        "apiVersion": "nexus.dev/v1alpha1",
        "kind": "LLMBackend",
        "metadata": {"name": name},
        "spec": {**plain, **spec},
    }


def policy(**spec: Any) -> dict[str, Any]:
    """The QualityPolicy of a namespace whose figures and recoveries are awaited by a test."""
    recovery = {"baseExclusionSeconds": 3, "maxExclusionSeconds": 12, "slowStartSeconds": 2}
    return {
        "apiVersion": "nexus.dev/v1alpha1",
        "kind": "QualityPolicy",
        "metadata": {"name": "default"},
        "spec": {"metricsIntervalSeconds": 1, "recovery": recovery, **spec},
    }
