"""The operator's own client of the API server, beside kopf's.

Promises six kinds of request and no other: read our three kinds, apply their `/status`, ask
TokenReview and SubjectAccessReview, create Events, hold a Lease, and read a Secret by its name,
which takes a Role of the user's. A status write is a forced
server-side apply that carries UID and resourceVersion, so it can neither hit a namesake nor
overwrite what it has not seen. Of our kinds it writes nothing but `/status`, and it never retries
what may have been heard: callers know what still matters.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Mapping
from email.utils import parsedate_to_datetime
from typing import Any

import httpx

from nexus_api.meta import API_VERSION, GROUP, VERSION
from nexus_operator.connection import Connection
from nexus_operator.credentials import Credentials

FIELD_MANAGER = "nexus-operator"
LEASE_VERSION = "coordination.k8s.io/v1"
APPLY = "application/apply-patch+yaml"
PAGE = 200


class ApiError(Exception):
    """An answer of the API server that is no success; `status` is its HTTP code."""

    def __init__(self, status: int, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(f"{message} ({status})")
        self.status = status
        self.message = message
        self.retry_after = retry_after


class Kube:
    """Everything that is asked of the API server; `renew` finds credentials anew."""

    def __init__(
        self,
        credentials: Credentials,
        *,
        renew: Callable[[], Credentials] | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self.connection = Connection(
            credentials, agent=FIELD_MANAGER, renew=renew, transport=transport
        )
        self.server_time: float | None = None

    @property
    def credentials(self) -> Credentials:
        """Those in force."""
        return self.connection.credentials

    async def close(self) -> None:
        """Closes every connection."""
        await self.connection.close()

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

    async def get_secret(self, namespace: str, name: str) -> dict[str, Any]:
        """A core/v1 Secret. `ApiError` 403: nobody bound a Role for its name."""
        return await self._call("GET", f"/api/v1/namespaces/{namespace}/secrets/{name}")

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
        answer = await self.connection.request(
            method, url, params=params, headers=sent, content=content
        )
        if "date" in answer.headers:
            self.server_time = parsedate_to_datetime(answer.headers["date"]).timestamp()
        if answer.is_success:
            return dict(answer.json())
        raise _error(answer)


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
