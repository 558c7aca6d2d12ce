"""What the end-to-end tests share: the world they run in, and waiting on conditions.

Promises: every wait is on a condition with a deadline, and a failure says what was seen last. It
is NOT the product: it drives it through kubectl, HTTP and the OpenAI client only.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, cast

import yaml
from kubernetes.client import CustomObjectsApi
from kubernetes.config import new_client_from_config
from openai import APIStatusError, OpenAI

from nexus_api.meta import BACKEND_PLURAL, GROUP, VERSION
from nexus_devtools.backends import Script, SimulatedProcess
from nexus_devtools.controlplane import ControlPlane
from nexus_devtools.product import Operator, Product, Proxy

APPS = ("app-one", "app-two")
BACKENDS = ("alpha", "beta", "gamma")
MODEL = "sim-model"
POLL_SECONDS = 0.05
PROMPT = Script(headers_seconds=0.01, tokens=3)

T = TypeVar("T")


def eventually(
    probe: Callable[[], T], accept: Callable[[T], bool], *, what: str, seconds: float = 20.0
) -> T:
    """Poll `probe` until `accept` says yes; AssertionError with the last value seen if late."""
    deadline = time.monotonic() + seconds
    while True:
        seen = probe()
        if accept(seen):
            return seen
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not within {seconds:g} s; last seen: {seen!r}")
        time.sleep(POLL_SECONDS)


@dataclass(slots=True)
class Tally:
    """What clients saw: statuses by number, and the backends that served."""

    statuses: dict[int, int] = field(default_factory=dict)
    served_by: dict[str, int] = field(default_factory=dict)

    @property
    def failures(self) -> int:
        """Answers that were no success."""
        return sum(n for status, n in self.statuses.items() if status != 200)

    @property
    def requests(self) -> int:
        """All answers."""
        return sum(self.statuses.values())

    def count(self, status: int, backend: str) -> None:
        """Note one answer."""
        self.statuses[status] = self.statuses.get(status, 0) + 1
        self.served_by[backend] = self.served_by.get(backend, 0) + 1


@dataclass(slots=True, kw_only=True)
class World:
    """A product at work."""

    product: Product
    operator: Operator
    proxies: Mapping[str, Proxy]
    backends: Mapping[str, SimulatedProcess]
    api: CustomObjectsApi

    def kubectl(self, *arguments: str, input: str | None = None) -> str:
        """kubectl in the world's namespace, as the person who administers it."""
        return self.product.plane.run_kubectl(
            "-n", self.product.namespace, *arguments, input=input, check=True
        ).stdout

    def apply(self, *documents: Mapping[str, Any]) -> None:
        """kubectl apply."""
        self.kubectl("apply", "-f", "-", input=yaml.safe_dump_all(documents))

    def get(self, name: str) -> dict[str, Any]:
        """One LLMBackend as the official Kubernetes client sees it."""
        found = self.api.get_namespaced_custom_object(
            GROUP, VERSION, self.product.namespace, BACKEND_PLURAL, name
        )
        return cast(dict[str, Any], found)

    def state(self, name: str) -> str:
        """The state of a backend, "" before the operator said anything."""
        return str(self.get(name).get("status", {}).get("state", ""))

    def wait_for_state(self, name: str, state: str, *, seconds: float = 20.0) -> None:
        """Wait until a backend is in a state."""
        eventually(
            lambda: self.state(name), lambda s: s == state, what=f"{name} {state}", seconds=seconds
        )

    def client(self, app: str) -> OpenAI:
        """The real OpenAI client, without retries of its own."""
        return OpenAI(base_url=f"{self.proxies[app].url}/v1", api_key="unused", max_retries=0)

    def send(self, requests: int, *, stream: bool = False, parallel: int = 4) -> Tally:
        """Send requests through both proxies in turn."""
        tally = Tally()
        with ThreadPoolExecutor(parallel) as pool:
            clients = [self.client(app) for app in APPS]
            jobs = [pool.submit(_ask, clients[i % len(APPS)], stream) for i in range(requests)]
            for job in jobs:
                tally.count(*job.result())
        for client in clients:
            client.close()
        return tally

    def send_until(
        self, done: Callable[[], bool], *, what: str, seconds: float, stream: bool = False
    ) -> Tally:
        """Keep traffic flowing until a condition holds; AssertionError if it takes too long."""
        whole = Tally()
        deadline = time.monotonic() + seconds
        while not done():
            if time.monotonic() > deadline:
                raise AssertionError(f"{what}: not within {seconds:g} s of traffic ({whole})")
            part = self.send(8, stream=stream)
            for status, n in part.statuses.items():
                whole.statuses[status] = whole.statuses.get(status, 0) + n
            for backend, n in part.served_by.items():
                whole.served_by[backend] = whole.served_by.get(backend, 0) + n
        return whole


def _ask(client: OpenAI, stream: bool) -> tuple[int, str]:
    messages = [{"role": "user", "content": "What is the capital of France?"}]
    try:
        raw = client.chat.completions.with_raw_response.create(
            model=MODEL,
            messages=messages,  # type: ignore[arg-type]
            stream=stream,
        )
        answer: Any = raw.parse()
        if stream:
            for _ in answer:
                pass
    except APIStatusError as error:
        return error.status_code, error.response.headers.get("x-nexus-backend", "-")
    return raw.status_code, raw.headers.get("x-nexus-backend", "-")


def open_world(
    plane: ControlPlane,
    namespace: str,
    folder: Path,
    stack: ExitStack,
    *,
    settings: Mapping[str, str] | None = None,
    way: Callable[[Path], None] = lambda kubeconfig: None,
    operator: Sequence[str] = (),
    proxy: Sequence[str] = (),
) -> World:
    """Operator, two proxies and three simulated backends in a namespace of their own.

    Nothing is applied yet; `stack` ends the processes and deletes the namespace. `settings` and
    `way` are the product's; `operator` and `proxy` are flags of its own and of the proxies'.
    """
    plane.create_namespace(namespace)
    stack.callback(plane.delete_namespace, namespace)
    product = Product(plane, namespace, folder, stack, settings or {}, way)
    product.install(*APPS)
    backends = {name: stack.enter_context(_simulated(name, folder)) for name in BACKENDS}
    running = product.operator(*operator)
    return World(
        product=product,
        operator=running,
        proxies={app: product.proxy(app, *proxy, operator_url=running.url) for app in APPS},
        backends=backends,
        api=api_of(product),
    )


def _simulated(name: str, folder: Path) -> SimulatedProcess:
    return SimulatedProcess(name=name, models=[MODEL], script=PROMPT, log=folder / f"{name}.log")


def api_of(product: Product) -> CustomObjectsApi:
    """The official Kubernetes client, as the person who administers the cluster."""
    client = new_client_from_config(  # type: ignore[no-untyped-call]
        config_file=str(product.plane.kubeconfig)
    )
    return CustomObjectsApi(client)


def backend(name: str, url: str, **spec: Any) -> dict[str, Any]:
    """An LLMBackend manifest."""
    return {
        "apiVersion": "nexus.dev/v1alpha1",
        "kind": "LLMBackend",
        "metadata": {"name": name},
        "spec": {"url": url, "type": "vllm", "healthCheck": {"periodSeconds": 1}, **spec},
    }


def policy(name: str, **spec: Any) -> dict[str, Any]:
    """A QualityPolicy manifest."""
    return {
        "apiVersion": "nexus.dev/v1alpha1",
        "kind": "QualityPolicy",
        "metadata": {"name": name},
        "spec": spec,
    }
