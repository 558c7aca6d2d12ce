"""Keys, Secrets and probes, with the real operator and two real proxies on a real API server.

The proxies read a folder of Secrets as the kubelet would mount it; `Keyring.sync` is the kubelet.
"""

from __future__ import annotations

import base64
import json
import secrets
import shutil
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from kubernetes.client import CoreV1Api, CustomObjectsApi
from kubernetes.client.exceptions import ApiException

from nexus_devtools.controlplane import ControlPlane
from nexus_devtools.e2e import api_of, eventually
from nexus_devtools.product import Operator, Product, Proxy
from nexus_devtools.schemas import assert_valid_status

APPS = ("app-one", "app-two")
ANSWER = {
    "id": "c",
    "object": "chat.completion",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Paris"}}],
    "usage": {"prompt_tokens": 1, "completion_tokens": 1},
}
Stored = dict[str, Any]


class Guarded:
    """A backend that may want a key, and whose health page says what the test wants."""

    def __init__(self) -> None:
        self.key = ""
        self.health = 200
        self.refused = self.served = 0
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                models = {"data": [{"id": "m"}]}
                allowed = self.path == "/health" or self.entitled()
                status = (server.health if self.path == "/health" else 200) if allowed else 401
                self.answer(status, models)

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["content-length"]))
                if self.entitled():
                    server.served += 1
                    self.answer(200, ANSWER)
                else:
                    server.refused += 1
                    self.answer(401, {"error": {"message": f"bad key {self.sent()}"}})

            def sent(self) -> str:
                return str(self.headers.get("authorization", "")).removeprefix("Bearer ")

            def entitled(self) -> bool:
                return not server.key or self.sent() == server.key

            def answer(self, status: int, body: Stored) -> None:
                content = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, format: str, *arguments: Any) -> None:
                """Says nothing."""

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http.server_address[1]}"

    def close(self) -> None:
        self.http.shutdown()
        self.http.server_close()


class Keyring:
    """The namespace's Secrets, and their mounted form."""

    def __init__(self, api: CoreV1Api, namespace: str, folder: Path) -> None:
        self.api, self.namespace, self.folder = api, namespace, folder

    def put(self, name: str, **data: str) -> None:
        body = {"metadata": {"name": name}, "stringData": data}
        try:
            self.api.delete_namespaced_secret(name, self.namespace)
        except ApiException as error:
            assert error.status == 404
        self.api.create_namespaced_secret(self.namespace, body)
        self.sync()

    def delete(self, name: str) -> None:
        self.api.delete_namespaced_secret(name, self.namespace)
        self.sync()

    def sync(self) -> None:
        found = self.api.list_namespaced_secret(self.namespace).items
        for folder in self.folder.iterdir():
            shutil.rmtree(folder)
        for secret in found:
            for key in secret.data or {}:
                path = self.folder / secret.metadata.name / key
                path.parent.mkdir(exist_ok=True)
                read = self.api.read_namespaced_secret(secret.metadata.name, self.namespace)
                path.write_bytes(base64.b64decode(read.data[key]))


class World:
    """An operator, two proxies, and what a person sees of them."""

    def __init__(self, plane: ControlPlane, namespace: str, folder: Path, stack: ExitStack) -> None:
        self.plane, self.namespace = plane, namespace
        product = Product(plane, namespace, folder, stack)
        product.install(*APPS)
        self.objects: CustomObjectsApi = api_of(product)
        mounted = folder / "mounted"
        mounted.mkdir()
        self.keys = Keyring(CoreV1Api(self.objects.api_client), namespace, mounted)
        self.operator: Operator = product.operator()
        arguments = ("--credentials-dir", str(mounted))
        self.proxies: list[Proxy] = [
            product.proxy(app, *arguments, operator_url=self.operator.url) for app in APPS
        ]

    def kubectl(self, *arguments: str, input: str | None = None) -> str:
        scope = f"--namespace={self.namespace}"
        return self.plane.run_kubectl(*arguments, scope, input=input, check=True).stdout

    def backend(self, name: str, url: str, **spec: Any) -> None:
        thing = {
            "apiVersion": "nexus.dev/v1alpha1",
            "kind": "LLMBackend",
            "metadata": {"name": name},
            "spec": {"url": url, "type": "vllm", "models": [{"name": "m"}], **spec},
        }
        self.kubectl("apply", "--server-side", "-f", "-", input=json.dumps(thing))

    def clear(self) -> None:
        self.kubectl("delete", "llmbackends", "--all")

    def get(self, name: str) -> Stored:
        found: Stored = json.loads(self.kubectl("get", "llmb", name, "--output=json"))
        if "status" in found:
            assert_valid_status("LLMBackend", found["status"])
        return found

    def condition(self, name: str, kind: str) -> tuple[str, str, str]:
        conditions = self.get(name).get("status", {}).get("conditions", [])
        found = next((c for c in conditions if c["type"] == kind), None)
        return (found["status"], found["reason"], found["message"]) if found else ("", "", "")

    def until(self, name: str, kind: str, status: str, reason: str, seconds: float = 40.0) -> str:
        """Waits for a condition; returns its message."""
        seen = eventually(
            lambda: self.condition(name, kind),
            lambda found: found[:2] == (status, reason),
            what=f"{name}: {kind}={status} {reason}",
            seconds=seconds,
        )
        return seen[2]

    def state(self, name: str) -> str:
        return str(self.get(name).get("status", {}).get("state", ""))

    def ask(self, proxy: Proxy, model: str = "m") -> httpx.Response:
        body = {"model": model, "messages": [{"role": "user", "content": "Capital of France?"}]}
        return httpx.post(f"{proxy.url}/v1/chat/completions", json=body, trust_env=False)

    def served(self) -> list[int]:
        """One request through each proxy: the statuses."""
        return [self.ask(proxy).status_code for proxy in self.proxies]

    def explained(self, proxy: Proxy, backend: str) -> Stored:
        body = {"model": "m", "messages": [{"role": "user", "content": "?"}]}
        answer = httpx.post(f"{proxy.admin_url}/v1/explain", json=body, trust_env=False).json()
        entries = [c for leg in answer["legs"] for c in leg["candidates"]]
        found: Stored = next(entry for entry in entries if entry["backend"] == backend)
        return found

    def events(self, name: str) -> list[tuple[str, str, str]]:
        found = json.loads(self.kubectl("get", "events", "--output=json"))["items"]
        return [
            (event["type"], event["reason"], event["message"])
            for event in found
            if event["involvedObject"]["name"] == name
        ]


@pytest.fixture(scope="module")
def product(crds: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """One product for all tests of this module; the slowest part is its start."""
    namespace = f"keys-{secrets.token_hex(4)}"
    crds.create_namespace(namespace)
    with ExitStack() as stack:
        stack.callback(crds.delete_namespace, namespace)
        yield World(crds, namespace, tmp_path_factory.mktemp("keys"), stack)


@pytest.fixture
def world(product: World) -> Iterator[World]:
    """The product without any backend, before and after."""
    yield product
    product.clear()


@pytest.fixture
def servers() -> Iterator[list[Guarded]]:
    """Four backends' servers."""
    made = [Guarded() for _ in range(4)]
    yield made
    for server in made:
        server.close()


AUTH = {"secretRef": {"name": "provider", "key": "api-key"}}


def test_a_wrong_key_stalls_the_backend_and_the_right_one_brings_it_back(
    world: World, servers: list[Guarded]
) -> None:
    guarded, spare = servers[:2]
    guarded.key = "right"
    world.keys.put("provider", **{"api-key": "wrong"})
    world.backend("guarded", guarded.url, auth=AUTH)
    world.backend("spare", spare.url)
    for name in ("guarded", "spare"):
        world.until(name, "Healthy", "True", "ProbeSucceeded")
    statuses: list[int] = []

    def seen() -> tuple[str, str, str]:
        statuses.extend(world.served())
        return world.condition("guarded", "Stalled")

    eventually(lambda: world.served(), lambda s: s == [200, 200], what="routed")
    stalled = eventually(seen, lambda found: found[0] == "True", what="stalled", seconds=40)
    assert stalled[1] == "CredentialsRejected"
    assert stalled[2].startswith(
        "The backend answers 401 or 403 to the key in Secret provider, key api-key: "
    )
    assert stalled[2].endswith(
        " refusals in a row, 3 suffice; put a valid key into Secret provider, or change spec.auth"
    )
    assert set(statuses) == {200}, "a client must not see what is said of our key"
    assert guarded.refused <= 8  # three at each proxy, and what was under way

    before = world.get("guarded")
    assert before["status"]["state"] == "Excluded"
    assert before["status"]["exclusion"]["rule"] == "CredentialsRejected"
    assert "untilTime" not in before["status"]["exclusion"]
    assert world.condition("guarded", "Ready") == ("False", "Excluded", stalled[2])
    assert world.condition("guarded", "WithinPolicy") == ("False", *stalled[1:])
    told = ("Warning", "CredentialsRejected", stalled[2])
    eventually(lambda: world.events("guarded"), lambda events: told in events, what="Event")
    assert stalled[2] in world.operator.child.tail(200)
    for proxy in world.proxies:
        entry = eventually(
            lambda proxy=proxy: world.explained(proxy, "guarded"),  # type: ignore[misc]
            lambda entry: "suggested_action" in entry,
            what="explained",
        )
        assert entry["tier"] == "Out"
        assert (
            entry["suggested_action"] == "put a valid key into Secret provider, or change spec.auth"
        )
    refused = guarded.refused
    assert world.served() * 3 == [200, 200] * 3
    assert guarded.refused == refused

    world.keys.put("provider", **{"api-key": "right"})
    world.until("guarded", "Stalled", "False", "NothingToMend")
    assert world.state("guarded") == "Active"
    after = world.get("guarded")
    assert after["metadata"]["generation"] == before["metadata"]["generation"]
    assert after["status"]["verdictGeneration"] == before["status"]["verdictGeneration"]
    assert "exclusion" not in after["status"]
    world.kubectl("delete", "llmb", "spare")
    eventually(lambda: world.served(), lambda s: s == [200, 200], what="served again", seconds=15)
    assert guarded.served and guarded.refused == refused


def test_a_missing_secret_and_a_missing_key_are_named_and_waited_for(
    world: World, servers: list[Guarded]
) -> None:
    guarded = servers[0]
    guarded.key = "right"
    world.keys.put("vault", other="x")
    auth = {"secretRef": {"name": "vault", "key": "api-key"}}
    world.backend("locked", guarded.url, auth=auth)
    said = world.until("locked", "Stalled", "True", "SecretKeyNotFound")
    assert said == "Secret vault has no key api-key; add key api-key to Secret vault"
    assert world.condition("locked", "Ready") == ("False", "Excluded", said)
    refusal = world.ask(world.proxies[0])
    assert refusal.status_code == 503
    (reason,) = refusal.json()["error"]["context"]["rejection_reasons"]
    assert reason["reason"] == "Secret vault has no key api-key"

    world.keys.put("vault", **{"api-key": "right"})
    world.until("locked", "Stalled", "False", "NothingToMend")
    assert world.state("locked") == "Active"
    assert world.served() == [200, 200]

    world.keys.delete("vault")
    said = world.until("locked", "Stalled", "True", "SecretNotFound")
    assert said == "Secret vault not found; create Secret vault with key api-key"
    assert ("Warning", "SecretNotFound", said) in world.events("locked")
    assert world.served() == [503, 503]


def test_a_backend_whose_probe_path_is_wrong_stays_in_service_while_requests_succeed(
    world: World, servers: list[Guarded]
) -> None:
    busy, idle = servers[:2]
    check = {"periodSeconds": 1, "failureThreshold": 2}
    world.backend("busy", busy.url, healthCheck=check)
    world.backend("idle", idle.url, healthCheck=check, models=[{"name": "other"}])
    eventually(lambda: world.served(), lambda s: s == [200, 200], what="routed")
    for name in ("busy", "idle"):
        world.until(name, "Healthy", "True", "ProbeSucceeded")
    busy.health = idle.health = 500
    states: set[str] = set()

    def seen() -> tuple[str, str, str]:
        assert world.served() == [200, 200]
        states.add(world.state("busy"))
        return world.condition("busy", "Healthy")

    said = eventually(seen, lambda found: found[1] == "ProbeDisagrees", what="it disagrees")
    assert said[0] == "Unknown"
    assert said[2] == (
        "Probes fail (GET /health answers 500), but requests succeeded within the last 2 s, so it"
        " stays in service; correct spec.healthCheck.path, or look at the network between operator"
        " and backend"
    )
    assert states == {"Active"}
    message = world.until("idle", "Healthy", "False", "ProbeFailed")
    assert "(GET /health answers 500), and no request succeeded within the last 2 s" in message
    assert world.state("idle") == "Unhealthy"
    assert world.condition("idle", "Ready")[:2] == ("False", "Unhealthy")
    idle.health = 200
    world.until("idle", "Healthy", "True", "ProbeSucceeded")
    assert world.state("idle") == "Active"


def test_when_most_probes_fail_together_the_prober_is_suspected_and_nobody_is_out(
    world: World, servers: list[Guarded]
) -> None:
    names = [f"b{number}" for number in range(len(servers))]
    check = {"periodSeconds": 1, "failureThreshold": 3}
    for name, server in zip(names, servers, strict=True):
        world.backend(name, server.url, healthCheck=check)
    for name in names:
        world.until(name, "Healthy", "True", "ProbeSucceeded")
    for server in servers[:3]:
        server.health = 503
    for name in names[:3]:
        said = world.until(name, "Healthy", "Unknown", "ProberSuspect")
        assert "but 3 of 4 backends, more than half, began to fail" in said
        assert world.state(name) == "Active"
    assert world.condition(names[3], "Healthy")[:2] == ("True", "ProbeSucceeded")
    metrics = httpx.get(f"{world.operator.url}/metrics", trust_env=False).text
    assert "nexus_operator_prober_suspect_backends 3.0" in metrics
    assert all(event[1] != "Unhealthy" for name in names for event in world.events(name))
    servers[0].health = servers[1].health = 200
    world.until(names[2], "Healthy", "False", "ProbeFailed")
    assert world.state(names[2]) == "Unhealthy"
    assert [world.state(name) for name in names[:2]] == ["Active", "Active"]


def test_where_a_role_lets_it_the_operator_asks_with_the_key_and_finds_the_models(
    world: World, servers: list[Guarded]
) -> None:
    server = servers[0]
    server.key = "right"
    world.keys.put("vault", **{"api-key": "right"})
    auth = {"secretRef": {"name": "vault", "key": "api-key"}}

    def create(name: str) -> None:
        thing = {
            "apiVersion": "nexus.dev/v1alpha1",
            "kind": "LLMBackend",
            "metadata": {"name": name},
            "spec": {"url": server.url, "type": "lmstudio", "auth": auth},
        }
        thing["spec"]["healthCheck"] = {"periodSeconds": 1}  # type: ignore[index]
        world.kubectl("apply", "--server-side", "-f", "-", input=json.dumps(thing))

    create("closed")
    said = world.until("closed", "Healthy", "True", "AliveUnauthenticated")
    assert said == (
        "GET /v1/models answers 401 without a key: alive; its models are unknown: "
        "write spec.models, or let nexus-operator read Secret vault"
    )
    assert world.served() == [404, 404]
    subject = "--serviceaccount=nexus-system:nexus-operator"
    rights = ("--verb=get", "--resource=secrets", "--resource-name=open")
    world.kubectl("create", "role", "nexus-probe", *rights)
    world.kubectl("create", "rolebinding", "nexus-probe", "--role=nexus-probe", subject)
    world.keys.put("open", **{"api-key": "right"})
    auth["secretRef"]["name"] = "open"
    create("open")
    world.until("open", "Healthy", "True", "ProbeSucceeded")
    assert [model["name"] for model in world.get("open")["status"]["models"]] == ["m"]
    for proxy in world.proxies:
        eventually(
            lambda proxy=proxy: world.ask(proxy).status_code,  # type: ignore[misc]
            lambda status: status == 200,
            what="the model is served",
        )
    assert world.condition("closed", "Healthy")[:2] == ("True", "AliveUnauthenticated")
    assert "right" not in json.dumps(world.get("open"))
