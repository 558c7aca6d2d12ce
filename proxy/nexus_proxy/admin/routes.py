"""The administrative paths and what they answer: a table of small functions.

`/healthz` says that the process runs, `/readyz` that it can route; `/v1/stats` and `/v1/explain`
answer loopback peers only, since they tell who the backends are. Nothing here changes routing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from nexus_proxy.admin.server import AdminRequest, AdminResponse
from nexus_proxy.envelope import error_body
from nexus_proxy.routing.endpoint import Endpoint
from nexus_proxy.routing.explain import explain
from nexus_proxy.routing.request import BadRequest, analyze
from nexus_proxy.routing.router import Router

Handler = Callable[[AdminRequest], AdminResponse]


class AdminRoutes:
    """Answers administrative requests; `draining` makes the proxy not ready."""

    def __init__(
        self,
        *,
        router: Router,
        registry: CollectorRegistry,
        stats: Callable[[], Mapping[str, Any]],
        clock: Callable[[], float],
        waits_for: Callable[[], str],
    ) -> None:
        """`waits_for`: what there must be before the proxy can serve, "" if nothing lacks."""
        self.draining = False
        self._router = router
        self._registry = registry
        self._stats = stats
        self._clock = clock
        self._waits_for = waits_for
        self._routes: dict[str, tuple[str, bool, Handler]] = {
            "/healthz": ("GET", False, self._healthz),
            "/readyz": ("GET", False, self._readyz),
            "/metrics": ("GET", False, self._metrics),
            "/v1/stats": ("GET", True, self._stats_json),
            "/v1/explain": ("POST", True, self._explain),
        }

    def answer(self, request: AdminRequest) -> AdminResponse:
        """The answer to any request."""
        route = self._routes.get(request.path)
        if route is None:
            known = ", ".join(self._routes)
            return _error(404, f"no such path: there are {known}")
        method, local_only, handler = route
        if request.method != method and not (method == "GET" and request.method == "HEAD"):
            return _error(405, f"{request.path} takes {method}")
        if local_only and not request.local:
            return _error(403, f"{request.path} answers loopback clients only")
        return handler(request)

    def _healthz(self, request: AdminRequest) -> AdminResponse:
        return AdminResponse(200, b"ok\n", "text/plain")

    def _readyz(self, request: AdminRequest) -> AdminResponse:
        if self.draining:
            return AdminResponse(503, b"draining\n", "text/plain")
        if lacking := self._waits_for():
            return AdminResponse(503, f"{lacking}\n".encode(), "text/plain")
        return AdminResponse(200, b"ok\n", "text/plain")

    def _metrics(self, request: AdminRequest) -> AdminResponse:
        return AdminResponse(200, generate_latest(self._registry), CONTENT_TYPE_PLAIN_0_0_4)

    def _stats_json(self, request: AdminRequest) -> AdminResponse:
        return AdminResponse(200, msgspec.json.encode(self._stats()))

    def _explain(self, request: AdminRequest) -> AdminResponse:
        try:
            call = analyze(_endpoint(request.body), request.body)
        except BadRequest as error:
            return AdminResponse(400, error_body(400, error.message, param=error.param))
        explanation = explain(self._router, call, self._clock())
        return AdminResponse(200, msgspec.json.format(msgspec.json.encode(explanation)))


class _Kind(msgspec.Struct):
    messages: msgspec.Raw = msgspec.Raw()
    prompt: msgspec.Raw = msgspec.Raw()
    input: msgspec.Raw = msgspec.Raw()


def _endpoint(body: bytes) -> Endpoint:
    """The endpoint a body is for, by its fields: the body is all that is sent here."""
    try:
        kind = msgspec.json.decode(body, type=_Kind)
    except msgspec.DecodeError:
        return Endpoint.CHAT
    if kind.prompt:
        return Endpoint.COMPLETIONS
    return Endpoint.RESPONSES if kind.input and not kind.messages else Endpoint.CHAT


def _error(status: int, message: str) -> AdminResponse:
    return AdminResponse(status, error_body(status, message))
