"""The operator's own client of the API server, beside kopf's.

Promises five kinds of request and no other: read our three kinds, apply their `/status`, ask
TokenReview and SubjectAccessReview, create Events, hold a Lease. A status write is a forced
server-side apply that carries UID and resourceVersion, so it can neither hit a namesake nor
overwrite what it has not seen. Of our kinds it writes nothing but `/status`, and it never retries:
callers know what still matters.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from email.utils import parsedate_to_datetime
from typing import Any

import httpx

from nexus_api.meta import API_VERSION, GROUP, VERSION
from nexus_operator.credentials import Credentials

FIELD_MANAGER = "nexus-operator"
LEASE_VERSION = "coordination.k8s.io/v1"
APPLY = "application/apply-patch+yaml"
PAGE = 200
TIMEOUT = httpx.Timeout(10.0, read=30.0)


class ApiError(Exception):
    """An answer of the API server that is no success; `status` is its HTTP code."""

    def __init__(self, status: int, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(f"{message} ({status})")
        self.status = status
        self.message = message
        self.retry_after = retry_after


class Kube:
    """One authenticated connection pool; `renew` is called after a 401 for fresh credentials."""

    def __init__(
        self,
        credentials: Credentials,
        *,
        renew: Callable[[], Credentials] | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._renew = renew
        self._transport = transport
        self.credentials = credentials
        self.server_time: float | None = None
        self._client = self._connect(credentials)

    async def close(self) -> None:
        """Closes every connection."""
        await self._client.aclose()

    async def version(self) -> dict[str, Any]:
        """The API server's version."""
        return await self._call("GET", "/version")

    async def served_plurals(self) -> set[str]:
        """Names of the kinds of our group that are served; empty without the CRDs."""
        try:
            answer = await self._call("GET", f"/apis/{GROUP}/{VERSION}")
        except ApiError as error:
            if error.status == 404:
                return set()
            raise
        return {item["name"] for item in answer.get("resources", ())}

    async def pages(
        self, plural: str, namespace: str | None, *, names_only: bool = False
    ) -> AsyncIterator[list[dict[str, Any]]]:
        """Every object of a kind, page by page, as of one moment; metadata alone if asked."""
        headers = {}
        if names_only:
            headers["Accept"] = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
        params: dict[str, str] = {"limit": str(PAGE)}
        while True:
            url = collection(plural, namespace)
            answer = await self._call("GET", url, params=params, headers=headers)
            yield answer.get("items") or []
            params["continue"] = (answer.get("metadata") or {}).get("continue") or ""
            if not params["continue"]:
                return

    async def get(self, plural: str, namespace: str, name: str) -> dict[str, Any]:
        """One object."""
        return await self._call("GET", f"{collection(plural, namespace)}/{name}")

    async def apply_status(
        self, *, plural: str, kind: str, metadata: Mapping[str, str], status: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Applies `status`; `metadata` has namespace, name, uid and resourceVersion.

        Returns the object as stored. `ApiError` 409: it changed, or is another object by now.
        """
        body = {"apiVersion": API_VERSION, "kind": kind, "metadata": metadata, "status": status}
        url = f"{collection(plural, metadata['namespace'])}/{metadata['name']}/status"
        return await self._call(
            "PATCH",
            url,
            params={"fieldManager": FIELD_MANAGER, "force": "true"},
            headers={"Content-Type": APPLY},
            body=body,
        )

    async def review_token(self, token: str, audience: str) -> dict[str, Any]:
        """The status of a TokenReview."""
        spec = {"token": token, "audiences": [audience]}
        return await self._create_review("authentication", "TokenReview", "tokenreviews", spec)

    async def review_access(self, spec: Mapping[str, Any]) -> dict[str, Any]:
        """The status of a SubjectAccessReview."""
        kind, plural = "SubjectAccessReview", "subjectaccessreviews"
        return await self._create_review("authorization", kind, plural, spec)

    async def create_event(self, namespace: str, event: Mapping[str, Any]) -> None:
        """Creates a core/v1 Event."""
        await self._call("POST", f"/api/v1/namespaces/{namespace}/events", body=event)

    async def get_lease(self, namespace: str, name: str) -> dict[str, Any]:
        """A Lease."""
        return await self._call("GET", lease_address(namespace, name))

    async def create_lease(self, namespace: str, name: str) -> dict[str, Any]:
        """A Lease that is there from now on, created without a holder if it was not.

        By server-side apply: only a request that names what it creates can be allowed by name.
        """
        body = {
            "apiVersion": LEASE_VERSION,
            "kind": "Lease",
            "metadata": {"namespace": namespace, "name": name},
        }
        url, headers = lease_address(namespace, name), {"Content-Type": APPLY}
        params = {"fieldManager": FIELD_MANAGER}
        return await self._call("PATCH", url, params=params, headers=headers, body=body)

    async def put_lease(
        self, namespace: str, name: str, lease: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Writes a Lease. `ApiError` 409: it is not any more as it was read."""
        params = {"fieldManager": FIELD_MANAGER}
        return await self._call("PUT", lease_address(namespace, name), params=params, body=lease)

    async def _create_review(
        self, group: str, kind: str, plural: str, spec: Mapping[str, Any]
    ) -> dict[str, Any]:
        version = f"{group}.k8s.io/v1"
        body = {"apiVersion": version, "kind": kind, "spec": spec}
        answer = await self._call("POST", f"/apis/{version}/{plural}", body=body)
        return dict(answer.get("status") or {})

    def _connect(self, credentials: Credentials) -> httpx.AsyncClient:
        basic = None
        if credentials.username and credentials.password:
            basic = httpx.BasicAuth(credentials.username, credentials.password)
        secure = credentials.server.startswith("https:") and self._transport is None
        return httpx.AsyncClient(
            base_url=credentials.server,
            headers={"User-Agent": FIELD_MANAGER, **credentials.headers()},
            auth=basic,
            verify=credentials.ssl_context() if secure else True,
            proxy=credentials.proxy_url,
            transport=self._transport,
            timeout=TIMEOUT,
            trust_env=False,
        )

    async def _call(
        self,
        method: str,
        url: str,
        *,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        content = None if body is None else json.dumps(body).encode()
        sent = {"Content-Type": "application/json", "Accept": "application/json"}
        sent.update(headers or {})
        answer = await self._client.request(
            method, url, params=params, headers=sent, content=content
        )
        if answer.status_code == 401 and await self._renewed():
            answer = await self._client.request(
                method, url, params=params, headers=sent, content=content
            )
        if "date" in answer.headers:
            self.server_time = parsedate_to_datetime(answer.headers["date"]).timestamp()
        if answer.is_success:
            return dict(answer.json())
        raise _error(answer)

    async def _renewed(self) -> bool:
        """Takes over credentials that changed meanwhile; True if there are any."""
        fresh = await asyncio.to_thread(self._renew) if self._renew else self.credentials
        if fresh == self.credentials:
            return False
        self.credentials = fresh
        self._client.headers.pop("Authorization", None)
        self._client.headers.update(fresh.headers())
        return True


def collection(plural: str, namespace: str | None) -> str:
    """The address of all objects of a kind in a namespace, None for all."""
    where = f"/namespaces/{namespace}" if namespace else ""
    return f"/apis/{GROUP}/{VERSION}{where}/{plural}"


def lease_address(namespace: str, name: str) -> str:
    """The address of a Lease."""
    return f"/apis/{LEASE_VERSION}/namespaces/{namespace}/leases/{name}"


def _error(answer: httpx.Response) -> ApiError:
    try:
        message = str(answer.json().get("message") or answer.reason_phrase)
    except (ValueError, AttributeError):
        message = answer.text[:200] or answer.reason_phrase
    hint = answer.headers.get("retry-after", "")
    wait = float(hint) if hint.isdecimal() else None
    return ApiError(answer.status_code, " ".join(message.split()), retry_after=wait)
