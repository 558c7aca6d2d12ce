"""An API server that lives in the operator's process: an httpx transport over dictionaries.

Promises what the operator asks of a real one (its group, lists, status applies with conflicts, a
Lease, both reviews, Events), an answer after `LATENCY_SECONDS`, and a watch event for each write.
It validates nothing and keeps nothing; a real API server is measured by `--real`.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Callable, Mapping
from typing import Any

import httpx

from nexus_api.meta import BACKEND_PLURAL, KINDS, PLURALS

LATENCY_SECONDS = 0.005
Stored = dict[str, Any]


class FakeApi(httpx.AsyncBaseTransport):
    """`wrote` is called with each status as it is asked for, `changed` with what is stored."""

    def __init__(
        self,
        backends: list[Stored],
        *,
        wrote: Callable[[str], None],
        changed: Callable[[str, Stored], None],
    ) -> None:
        self._backends = {self._path(one): one for one in backends}
        self._wrote = wrote
        self._changed = changed
        self._versions = itertools.count(len(backends) + 1)
        self._lease: Stored = {}

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Answers as an API server would."""
        body = json.loads(request.content) if request.content else {}
        path = request.url.path
        if path.endswith("/status"):
            self._wrote(body["metadata"]["uid"])
        await asyncio.sleep(LATENCY_SECONDS)
        status, answer = self._answer(request.method, path, body)
        return httpx.Response(status, json=answer, request=request)

    def _answer(self, method: str, path: str, body: Stored) -> tuple[int, Stored]:
        if path.endswith("/tokenreviews"):
            return 201, {"status": _reviewed(body["spec"]["token"])}
        if path.endswith("/subjectaccessreviews"):
            return 201, {"status": {"allowed": True}}
        if "/leases/" in path:
            return self._held(method, body)
        if path.endswith("/events"):
            return 201, {}
        if path.endswith("/status"):
            return self._apply(path.removesuffix("/status"), body)
        if path.endswith("/v1alpha1"):
            return 200, {"resources": [{"name": PLURALS[kind]} for kind in KINDS]}
        if path.endswith("/version"):
            return 200, {"gitVersion": "v1.36.0"}
        items = list(self._backends.values()) if path.endswith(BACKEND_PLURAL) else []
        return 200, {"items": items, "metadata": {}}

    def _apply(self, path: str, body: Stored) -> tuple[int, Stored]:
        known = self._backends[path]
        if known["metadata"]["resourceVersion"] != body["metadata"]["resourceVersion"]:
            return 409, {"message": "it changed"}
        metadata = known["metadata"] | {"resourceVersion": str(next(self._versions))}
        stored = known | {"metadata": metadata, "status": body["status"]}
        self._backends[path] = stored
        asyncio.get_running_loop().call_soon(self._changed, BACKEND_PLURAL, stored)
        return 200, stored

    def _held(self, method: str, body: Stored) -> tuple[int, Stored]:
        if method != "GET":
            version = {"resourceVersion": str(next(self._versions))}
            self._lease = self._lease | body
            self._lease["metadata"] = self._lease.get("metadata", {}) | version
        return (200, self._lease) if self._lease else (404, {"message": "not found"})

    @staticmethod
    def _path(one: Mapping[str, Any]) -> str:
        metadata = one["metadata"]
        where = f"/apis/nexus.dev/v1alpha1/namespaces/{metadata['namespace']}"
        return f"{where}/{BACKEND_PLURAL}/{metadata['name']}"


def _reviewed(token: str) -> Stored:
    return {
        "authenticated": True,
        "audiences": ["nexus-operator"],
        "user": {
            "username": "system:serviceaccount:scale:app",
            "uid": "scale",
            "groups": ["system:serviceaccounts"],
            "extra": {
                "authentication.kubernetes.io/pod-name": [token],
                "authentication.kubernetes.io/pod-uid": [token],
            },
        },
    }
