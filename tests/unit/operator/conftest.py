"""A fake cluster for the operator's tests, and shorthands for the objects they are about.

`FakeCluster` adds to kmock what the operator relies on and kmock leaves out: UIDs, growing resource
versions, generations, a status of its own, conflicts, and the two reviews.
"""

from __future__ import annotations

import asyncio
import copy
import itertools
import threading
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import aiohttp.web
import attrs
import kmock
import pytest
from kmock import action
from kmock._internal import apps, rendering

from nexus_api import (
    LLMBackend,
    QualityPolicy,
    RoutingPolicy,
    decode_backend,
    decode_quality_policy,
    decode_routing_policy,
)
from nexus_api.meta import API_VERSION, KINDS, PLURALS

CREATED = "2026-11-24T00:00:00Z"
Stored = dict[str, Any]


@attrs.define(kw_only=True)
class FakeCluster(kmock.KubernetesEmulator):
    """`patches` records every PATCH as (path, body); `refuse` may answer one with a status code."""

    patches: list[tuple[str, Stored]] = attrs.field(factory=list, init=False)
    events: list[Stored] = attrs.field(factory=list, init=False)
    tokens: dict[str, Stored] = attrs.field(factory=dict, init=False)
    grants: set[tuple[str, str]] = attrs.field(factory=set, init=False)
    leases: dict[str, Stored] = attrs.field(factory=dict, init=False)
    reviews: list[str] = attrs.field(factory=list, init=False)
    refuse: Callable[[str], int | None] = attrs.field(default=lambda path: None, init=False)
    watches: int = attrs.field(default=0, init=False)
    _versions: Iterator[int] = attrs.field(factory=lambda: itertools.count(1), init=False)
    _head: int = attrs.field(default=0, init=False)

    def serve_kinds(self) -> None:
        """Declares our kinds, and what kopf waits for."""
        for kind in KINDS:
            plural = PLURALS[kind]
            self.resources[f"{plural}.v1alpha1.nexus.dev"] = {
                "kind": kind,
                "singular": kind.lower(),
                "namespaced": True,
                "verbs": {"get", "list", "watch", "patch"},
                "subresources": {"status"},
            }
        self.resources["v1/namespaces"] = {"kind": "Namespace", "namespaced": False}

    async def _handle(self, request: rendering.Request) -> aiohttp.web.StreamResponse:
        path = request.url.path
        code = self.refuse(path) if request.method is not None else None
        if code is not None:
            return self._answer(code, {"kind": "Status", "message": f"refused with {code}"})
        if path.endswith("/tokenreviews"):
            return self._review_token(request.data)
        if path.endswith("/subjectaccessreviews"):
            return self._review_access(request.data)
        if "/leases/" in path:
            return self._lease(request)
        if path.endswith("/events"):
            self.events.append(request.data)
            return self._answer(201, request.data)
        self.watches += request.action == action.WATCH
        if request.resource is not None and request.action == action.CREATE:
            self._complete(request)
        elif request.resource is not None and request.action == action.UPDATE and request.name:
            conflict = self._prepare_update(request, path)
            if conflict is not None:
                return conflict
        return await super()._handle(request)

    def _complete(self, request: rendering.Request) -> None:
        request.data.pop("status", None)
        request.data.setdefault("metadata", {}).update(
            uid=str(uuid.uuid4()),
            resourceVersion=self._bump(),
            generation=1,
            creationTimestamp=CREATED,
            namespace=request.namespace,
        )

    def _prepare_update(
        self, request: rendering.Request, path: str
    ) -> aiohttp.web.StreamResponse | None:
        body, is_status = request.data, request.subresource == "status"
        self.patches.append((path, copy.deepcopy(body)))
        key = (request.resource, request.namespace, request.name)
        if key not in self._objects or self._objects[key].deleted:
            return None
        current = self._objects[key].raw
        asked = body.get("metadata") or {}
        for name in ("uid", "resourceVersion"):
            if asked.get(name) not in (None, current["metadata"][name]):
                return self._answer(409, {"kind": "Status", "message": f"{name} has changed"})
        changes = {"metadata": {"resourceVersion": self._bump()}}
        if is_status:
            # One field manager owns all of it: what it does not apply any more is gone.
            changes["status"] = applied(current.get("status") or {}, body.get("status", {}))
        else:
            changes |= {name: body[name] for name in ("spec",) if name in body}
            changes["metadata"] |= {"generation": current["metadata"]["generation"] + 1}
            changes["metadata"] |= {
                k: v for k, v in asked.items() if k in ("labels", "annotations")
            }
        request.data.clear()
        request.data.update(changes)
        return None

    async def _serve_list(self, request: rendering.Request) -> rendering.Payload:
        body = await super()._serve_list(request)
        return {**body, "metadata": {"resourceVersion": str(self._head)}}  # type: ignore[dict-item]

    def _lease(self, request: rendering.Request) -> aiohttp.web.StreamResponse:
        path = request.url.path
        lease = self.leases.get(path)
        if request.method == "GET":
            return self._answer(200 if lease else 404, lease or {"message": "not found"})
        known = (lease or {}).get("metadata", {})
        asked = (request.data.get("metadata") or {}).get("resourceVersion")
        if asked not in (None, known.get("resourceVersion")):
            return self._answer(409, {"message": "it has changed"})
        lease = (lease or {}) | request.data | {"metadata": {"resourceVersion": self._bump()}}
        self.leases[path] = lease
        return self._answer(200, lease)

    def _review_token(self, body: Stored) -> aiohttp.web.StreamResponse:
        token = body["spec"]["token"]
        self.reviews.append(token)
        return self._answer(201, {"status": self.tokens.get(token, {"authenticated": False})})

    def _review_access(self, body: Stored) -> aiohttp.web.StreamResponse:
        attributes = body["spec"]["resourceAttributes"]
        assert attributes["verb"] == "report" and attributes["resource"] == "llmbackends"
        allowed = (body["spec"]["user"], attributes["namespace"]) in self.grants
        return self._answer(201, {"status": {"allowed": allowed}})

    def _bump(self) -> str:
        self._head = next(self._versions)
        return str(self._head)

    @staticmethod
    def _answer(status: int, body: Stored) -> aiohttp.web.Response:
        return aiohttp.web.json_response(body, status=status)


def applied(current: Stored, wanted: Stored) -> Stored:
    """The merge patch that makes `current` exactly `wanted`."""
    patch: Stored = dict.fromkeys(current)
    for name, value in wanted.items():
        before = current.get(name)
        both = isinstance(before, dict) and isinstance(value, dict)
        patch[name] = applied(before, value) if both else value  # type: ignore[arg-type]
    return patch


@pytest.fixture
def cluster() -> Iterator[tuple[FakeCluster, str]]:
    """A fake cluster that serves our kinds, and its address.

    It has a thread and an event loop of its own: kopf, when it stops, ends every task of its loop.
    """
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="fake cluster")
    thread.start()
    handler = FakeCluster()
    handler.serve_kinds()
    server = apps.Server(handler)

    async def enter() -> str:
        await handler.__aenter__()
        await server.__aenter__()
        return str(server.url).rstrip("/")

    async def leave() -> None:
        await server.__aexit__(None, None, None)
        await handler.__aexit__(None, None, None)

    try:
        yield handler, asyncio.run_coroutine_threadsafe(enter(), loop).result(10)
        asyncio.run_coroutine_threadsafe(leave(), loop).result(10)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


def metadata(name: str, namespace: str, **more: Any) -> Stored:
    """Object metadata as the API server gives it."""
    return {
        "name": name,
        "namespace": namespace,
        "uid": f"uid-{name}",
        "resourceVersion": "1",
        "generation": 1,
        "creationTimestamp": CREATED,
    } | more


@pytest.fixture
def backend() -> Callable[..., LLMBackend]:
    """Builds an LLMBackend: `backend("a", labels={...}, status={...}, suspend=True)`."""

    def build(
        name: str = "a",
        *,
        namespace: str = "shop",
        labels: dict[str, str] | None = None,
        status: Stored | None = None,
        meta: Stored | None = None,
        **spec: Any,
    ) -> LLMBackend:
        return decode_backend(
            {
                "metadata": metadata(name, namespace, labels=labels or {}, **(meta or {})),
                "spec": {"url": "http://llm.example:8000", "type": "vllm"} | spec,
                "status": status or {},
            }
        )

    return build


@pytest.fixture
def quality_policy() -> Callable[..., QualityPolicy]:
    """Builds a QualityPolicy: `quality_policy("a", created=..., errorRateThreshold="5%")`."""

    def build(
        name: str = "p", *, created: str = CREATED, status: Stored | None = None, **spec: Any
    ) -> QualityPolicy:
        meta = metadata(name, "shop", creationTimestamp=created)
        return decode_quality_policy({"metadata": meta, "spec": spec, "status": status or {}})

    return build


@pytest.fixture
def routing_policy() -> Callable[..., RoutingPolicy]:
    """Builds a RoutingPolicy: `routing_policy("a", created=...)`."""

    def build(
        name: str = "r", *, created: str = CREATED, status: Stored | None = None, **spec: Any
    ) -> RoutingPolicy:
        meta = metadata(name, "shop", creationTimestamp=created)
        return decode_routing_policy({"metadata": meta, "spec": spec, "status": status or {}})

    return build


def manifest(kind: str, name: str, **spec: Any) -> Stored:
    """An object to create."""
    return {"apiVersion": API_VERSION, "kind": kind, "metadata": {"name": name}, "spec": spec}
