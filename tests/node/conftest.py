"""The cluster of these tests: the project's own node with the product installed as a user would."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from nexus_devtools.controlplane.kubectl import Kubectl
from nexus_devtools.node import images, pods
from nexus_devtools.node.cluster import Cluster, running_nodes

REPOSITORY = Path(__file__).parents[2]
WAIT_SECONDS = 90.0


class Shop:
    """A namespace with backends and applications, as a team would have it."""

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

    def until(self, what: str, condition: Callable[[], bool]) -> None:
        """Wait for it; a condition that asks for what is not there yet is a False."""
        deadline = time.monotonic() + WAIT_SECONDS
        while not condition():
            assert time.monotonic() < deadline, what
            time.sleep(0.2)

    def state(self, backend: str) -> str:
        return str(self.get("llmbackend", backend).get("status", {}).get("state", ""))

    def models(self, backend: str) -> list[str]:
        status = self.get("llmbackend", backend).get("status", {})
        return [each["name"] for each in status.get("models", ())]

    def open_up(self, *names: str) -> None:
        """Simulated backends of model `m`, known to the operator with their models."""
        for name in names:
            self.apply(*pods.simulated(name), pods.backend(name, models=[{"name": "m"}]))
        self.ready(*names)

    def ready(self, *names: str) -> None:
        wait = ("wait", "--for=condition=Ready", f"--timeout={int(WAIT_SECONDS)}s")
        self.run(*wait, *(f"pod/{name}" for name in names))

    def app(self, name: str = "app") -> None:
        """An application with a sidecar."""
        labels = {"nexus.dev/inject": "true"}
        self.apply(pods.pod(name, ["/bin/sleep", "infinity"], labels=labels))
        self.ready(name)

    def shopping(self, app: str, *, seconds: float, rate: float = 10.0) -> Shopping:
        """Requests of an application's own, under way once this returns."""
        program = (pods.PYTHON, "-m", "nexus_devtools.node.shopper")
        asked = (f"--seconds={seconds}", f"--rate={rate}")
        return Shopping(self._popen("exec", app, "-c", "main", "--", *program, *asked))

    def signal(self, number: signal.Signals, pod: str, container: str = "main") -> None:
        """To the container's processes, from the host: its first one ignores what its own send."""
        status = self.get("pod", pod)["status"]
        every = (*status.get("initContainerStatuses", ()), *status["containerStatuses"])
        (one,) = (each for each in every if each["name"] == container)
        identifier = one["containerID"].split("//")[1]
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and _is_in(entry, identifier):
                os.kill(int(entry.name), number)

    def script(self, backend: str, script: dict[str, Any]) -> None:
        """What a simulated backend does from now on."""
        url = f"http://{backend}:{pods.CONTROL_PORT}/_script"
        code = f"import httpx; print(httpx.post({url!r}, json={script!r}).raise_for_status())"
        self.run("exec", backend, "--", pods.PYTHON, "-c", code)

    def _popen(self, *arguments: str) -> subprocess.Popen[str]:
        command = [str(self._kubectl.program), "-n", self.namespace, *arguments]
        environment = {**os.environ, "KUBECONFIG": str(self._kubectl.kubeconfig)}
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


def _is_in(process: Path, container: str) -> bool:
    try:
        return container in (process / "cgroup").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


class Shopping:
    """An application's requests under way; `done()` waits for the last one."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def done(self) -> tuple[dict[str, int], dict[str, int]]:
        """Answers by status, and by backend."""
        output, _ = self._process.communicate(timeout=180)
        summary = json.loads(output)
        return summary["statuses"], summary["backends"]


@pytest.fixture(scope="session")
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """The node, with the product as the README installs it. One that runs is used, and left."""
    found = running_nodes()
    made = Cluster(found or 1)
    manager = request.config.pluginmanager.getplugin("capturemanager")
    assert manager is not None
    with manager.global_and_fixture_disabled():
        made.up()
        made.import_images({**images.product_archives(), images.BASE_IMAGE: images.base_archive()})
    _install(made.kubectl)
    yield made
    if not found:
        made.down()


def _install(kubectl: Kubectl) -> None:
    overlay = REPOSITORY / "manifests" / "overlays" / "default"
    for command in (
        ("apply", "--server-side", "-f", REPOSITORY / "crds"),
        ("apply", "-k", overlay),
        ("-n", "nexus-system", "rollout", "restart", "deployment/nexus-operator"),
        ("-n", "nexus-system", "rollout", "status", "deployment/nexus-operator", "--timeout=90s"),
    ):
        kubectl.run(*command, check=True)


@pytest.fixture
def make_shop(cluster: Cluster) -> Iterator[Callable[[], Shop]]:
    """Makes namespaces whose service accounts may read the three kinds; they go with the test."""
    made: list[str] = []

    def make() -> Shop:
        name = f"shop-{secrets.token_hex(3)}"
        cluster.kubectl.run("create", "namespace", name, check=True)
        made.append(name)
        rights = cluster.kubectl.run("kustomize", REPOSITORY / "manifests" / "namespace").stdout
        moved = rights.replace("namespace: default", f"namespace: {name}")
        moved = moved.replace("serviceaccounts:default", f"serviceaccounts:{name}")
        cluster.kubectl.run("apply", "-f", "-", input=moved, check=True)
        return Shop(cluster.kubectl, name)

    yield make
    for name in made:
        cluster.kubectl.run("delete", "namespace", name, "--wait=false", check=True)


@pytest.fixture
def shop(make_shop: Callable[[], Shop]) -> Shop:
    """One such namespace."""
    return make_shop()


@pytest.fixture
def system(cluster: Cluster) -> Shop:
    """The operator's namespace."""
    return Shop(cluster.kubectl, "nexus-system")


def lines(text: str) -> Sequence[str]:
    return [line for line in text.splitlines() if line]
