"""A namespace with backends and applications, as a team would have it: what node tests drive.

Promises: every wait is on a condition with a deadline; what is sent to a container or its network
comes from the host, not through the API server. It is NOT the cluster: that is `cluster`.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from prometheus_client.parser import text_string_to_metric_families

from nexus_devtools.controlplane.kubectl import Kubectl
from nexus_devtools.node import containers, pods
from nexus_devtools.node.commands import run

WAIT_SECONDS = 90.0
APP_URL = "http://127.0.0.1:14800/v1"
ADMIN_URL = "http://127.0.0.1:14890"
ATTEMPTS = "nexus_proxy_backend_attempts_total"
_SHOPPER = ("-m", "nexus_devtools.node.shopper")


class Shopping:
    """An application's requests under way; `done()` waits for the last one."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def done(self) -> tuple[dict[str, int], dict[str, int]]:
        """Answers by status, and by backend."""
        output, _ = self._process.communicate(timeout=180)
        summary = json.loads(output)
        return summary["statuses"], summary["backends"]


class Shop:
    """One such namespace."""

    def __init__(self, kubectl: Kubectl, namespace: str) -> None:
        self._kubectl = kubectl
        self.namespace = namespace

    def run(self, *arguments: str | Path, **options: Any) -> str:
        """kubectl in this namespace; its output. A failure fails the test."""
        options.setdefault("check", True)
        return self._kubectl.run("-n", self.namespace, *arguments, **options).stdout

    def apply(self, *objects: Any) -> None:
        self.run("apply", "-f", "-", input=yaml.safe_dump_all(objects))

    def get(self, kind: str, name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.run("get", kind, name, "-o", "json"))
        return found

    def until(
        self, what: str, condition: Callable[[], bool], seconds: float = WAIT_SECONDS
    ) -> None:
        """Wait for it; AssertionError with `what` if it is late."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, what
            time.sleep(0.2)

    def state(self, backend: str) -> str:
        return str(self.get("llmbackend", backend).get("status", {}).get("state", ""))

    def models(self, backend: str) -> list[str]:
        status = self.get("llmbackend", backend).get("status", {})
        return [each["name"] for each in status.get("models", ())]

    def open_up(self, *names: str, **spec: Any) -> None:
        """Simulated backends of model `m`, known to the operator with their models."""
        for name in names:
            self.apply(*pods.simulated(name), self.backend(name, **spec))
        self.ready(*names)

    def backend(self, name: str, **spec: Any) -> dict[str, Any]:
        """The LLMBackend of a pod here, of model `m` unless `models` says else."""
        spec.setdefault("models", [{"name": "m"}])
        return pods.backend(name, namespace=self.namespace, **spec)

    def ready(self, *names: str) -> None:
        wait = ("wait", "--for=condition=Ready", f"--timeout={int(WAIT_SECONDS)}s")
        self.run(*wait, *(f"pod/{name}" for name in names))

    def app(self, name: str = "app", **options: Any) -> None:
        """An application with a sidecar; `options` are those of `pods.pod`."""
        labels = {"nexus.dev/inject": "true"}
        self.apply(pods.pod(name, ["/bin/sleep", "infinity"], labels=labels, **options))
        self.ready(name)

    def shopping(self, app: str, *, seconds: float, rate: float = 10.0) -> Shopping:
        """Requests of an application's own, under way once this returns."""
        asked = (*_SHOPPER, f"--seconds={seconds}", f"--rate={rate}")
        command = [str(self._kubectl.program), "-n", self.namespace]
        command += ["exec", app, "-c", "main", "--", pods.PYTHON, *asked]
        environment = {**os.environ, "KUBECONFIG": str(self._kubectl.kubeconfig)}
        return Shopping(_piped(command, environment))

    def shopping_behind(self, app: str, *, seconds: float, rate: float = 10.0) -> Shopping:
        """The same from the host in the application's network: no API server is needed."""
        asked = (*_SHOPPER, f"--url={APP_URL}", f"--seconds={seconds}", f"--rate={rate}")
        return Shopping(_piped([*self._beside(app), sys.executable, *asked], os.environ))

    def signal(self, number: signal.Signals, pod: str, container: str = "main") -> None:
        """To the container's processes, from the host: its first one ignores what its own send."""
        for pid in self.processes(pod, container):
            os.kill(pid, number)

    def processes(self, pod: str, container: str = "main") -> list[int]:
        """The container's processes, as the host numbers them."""
        return containers.processes(containers.identifier(self.get("pod", pod), container))

    def in_network(self, pod: str, *command: str) -> str:
        """A command of the host in the pod's network; its output."""
        return run(*self._beside(pod), *command)

    def _beside(self, pod: str) -> tuple[str, ...]:
        return ("nsenter", f"--net=/proc/{self.processes(pod)[0]}/ns/net")

    def script(self, backend: str, script: dict[str, Any]) -> None:
        """What a simulated backend does from now on."""
        url = f"http://{backend}:{pods.CONTROL_PORT}/_script"
        code = f"import httpx; print(httpx.post({url!r}, json={script!r}).raise_for_status())"
        self.run("exec", backend, "--", pods.PYTHON, "-c", code)

    def attempts(self, app: str) -> dict[str, int]:
        """What the application's proxy itself says it has asked each backend."""
        code = f"import httpx; print(httpx.get('{ADMIN_URL}/metrics').text)"
        text = self.in_network(app, sys.executable, "-c", code)
        return {
            sample.labels["agent_id"].partition("/")[2]: int(sample.value)
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == ATTEMPTS
        }

    def counted(self, *backends: str) -> int:
        """What the operator says they were asked in the last hour."""
        found = [self.get("llmbackend", name).get("status", {}) for name in backends]
        return sum(each.get("quality", {}).get("requests1h", 0) for each in found)

    def whole(
        self,
        backends: Sequence[str],
        apps: Sequence[str] = ("app",),
        *,
        apart: Mapping[str, int] | None = None,
    ) -> None:
        """Wait until the operator has counted what the proxies have: nothing lost, none twice.

        `apart`: attempts by backend that are no requests to the verdict, as refused keys are.
        """
        asked = [self.attempts(app) for app in apps]
        wanted = {
            name: sum(each.get(name, 0) for each in asked) - (apart or {}).get(name, 0)
            for name in backends
        }
        deadline = time.monotonic() + WAIT_SECONDS
        while (seen := {name: self.counted(name) for name in backends}) != wanted:
            assert time.monotonic() < deadline, f"the proxies asked {wanted}, counted are {seen}"
            time.sleep(0.2)


def _piped(command: Sequence[str], environment: Mapping[str, str]) -> subprocess.Popen[str]:
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
