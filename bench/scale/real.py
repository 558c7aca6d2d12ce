"""A real API server with all the objects of the measurement, and a watcher of what is written.

Promises one backend and one pod with a report token per number, the operator's own rights for its
kubeconfig, and counts from the API server's metrics of what was asked of it. It measures nothing
but when a watch event came.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
from bench.scale.plan import NAMESPACE, Size, manifest

from nexus_api.meta import BACKEND_PLURAL, GROUP, VERSION
from nexus_devtools.controlplane import ControlPlane
from nexus_devtools.product import RBAC, REPORT_AUDIENCE
from nexus_operator.credentials import from_kubeconfig

AT_ONCE = 16
ATTEMPTS = 5
ACCOUNT = "app"
TOKEN_SECONDS = 7200
READS = frozenset({"GET", "LIST", "WATCH"})
BACKENDS = f"/apis/{GROUP}/{VERSION}/namespaces/{NAMESPACE}/{BACKEND_PLURAL}"
CORE = f"/api/v1/namespaces/{NAMESPACE}"
_COUNTED = re.compile(r"^apiserver_request_total\{(.*)\} ([0-9.e+]+)$", re.MULTILINE)
_LABEL = re.compile(r'(\w+)="([^"]*)"')
Stored = dict[str, Any]
Writes = Counter[str]


class Cluster:
    """The API server as its administrator sees it. `seen`: (uid, seconds) of each status event."""

    def __init__(self, plane: ControlPlane, folder: Path) -> None:
        self.plane = plane
        self.kubeconfig = folder / "operator.kubeconfig"
        self.uids: list[str] = []
        self.tokens: list[str] = []
        self.seen: list[tuple[str, float]] = []
        credentials = from_kubeconfig([plane.kubeconfig])
        self._http = httpx.AsyncClient(
            base_url=credentials.server,
            headers=credentials.headers(),
            verify=credentials.ssl_context(),
            timeout=60.0,
            trust_env=False,
        )

    async def fill(self, size: Size) -> None:
        """Creates backends, pods, tokens, and what the operator may do."""
        self.plane.apply_crds()
        self.plane.create_namespace(NAMESPACE)
        self.plane.run_kubectl("apply", "-k", RBAC / "operator", check=True)
        self.plane.write_kubeconfig(self.kubeconfig, "nexus-system", "nexus-operator")
        account = {"metadata": {"name": ACCOUNT}}
        await self._post(f"{CORE}/serviceaccounts", account)
        self.uids = await self._all(size.backends, self._backend)
        self.tokens = await self._all(size.reporters, self._token)

    async def writes(self) -> Writes:
        """What the API server was asked to change so far, by verb and resource."""
        counted: Writes = Counter()
        for labels, number in _COUNTED.findall(await self._metrics()):
            told = dict(_LABEL.findall(labels))
            if told["verb"] not in READS:
                name = "/".join(filter(None, (told["resource"], told["subresource"])))
                counted[f"{told['verb']} {name}"] += int(float(number))
        return counted

    async def _metrics(self) -> str:
        """The page; on a busy machine a connection may be cut in the midst of it."""
        for _ in range(ATTEMPTS):
            with contextlib.suppress(httpx.TransportError):
                return (await self._http.get("/metrics")).text
        raise RuntimeError("the API server does not show its metrics")

    async def watch(self, changed: Callable[[Mapping[str, Any]], None]) -> None:
        """Passes on each backend as it changes, until cancelled."""
        version = (await self._http.get(BACKENDS)).json()["metadata"]["resourceVersion"]
        asked = {"watch": "1", "resourceVersion": version, "timeoutSeconds": "3600"}
        async with self._http.stream("GET", BACKENDS, params=asked, timeout=None) as events:
            async for line in events.aiter_lines():
                stored = json.loads(line)["object"]
                self.seen.append((stored["metadata"]["uid"], time.monotonic()))
                changed(stored)

    async def close(self) -> None:
        """Closes the connections."""
        await self._http.aclose()

    async def _backend(self, number: int) -> str:
        document = manifest(number)
        document["metadata"] = {"name": document["metadata"]["name"]}
        return str((await self._post(BACKENDS, document))["metadata"]["uid"])

    async def _token(self, number: int) -> str:
        pod = f"pod-{number:04d}"
        containers = [{"name": "app", "image": "example.invalid/never-run"}]
        spec = {"serviceAccountName": ACCOUNT, "containers": containers}
        await self._post(f"{CORE}/pods", {"metadata": {"name": pod}, "spec": spec})
        bound = {"kind": "Pod", "apiVersion": "v1", "name": pod}
        asked = {
            "audiences": [REPORT_AUDIENCE],
            "expirationSeconds": TOKEN_SECONDS,
            "boundObjectRef": bound,
        }
        answer = await self._post(f"{CORE}/serviceaccounts/{ACCOUNT}/token", {"spec": asked})
        return str(answer["status"]["token"])

    async def _post(self, path: str, body: Stored) -> Stored:
        answer = await self._http.post(path, json=body)
        if answer.status_code >= httpx.codes.BAD_REQUEST:
            raise RuntimeError(f"POST {path}: {answer.status_code} {answer.text[:200]}")
        return dict(answer.json())

    async def _all(self, count: int, make: Callable[[int], Awaitable[str]]) -> list[str]:
        turns = asyncio.Semaphore(AT_ONCE)

        async def one(number: int) -> str:
            async with turns:
                return await make(number)

        return list(await asyncio.gather(*map(one, range(count))))


@asynccontextmanager
async def cluster(size: Size, folder: Path) -> AsyncIterator[Cluster]:
    """An API server of our own, filled; it is gone afterwards."""
    with ControlPlane.start(name="bench-scale") as plane:
        found = Cluster(plane, folder)
        try:
            await found.fill(size)
            yield found
        finally:
            await found.close()
