"""List, then watch, for ever: keeps one store equal to what the API server has.

Lists come in pages; a watch resumes from the last resource version it saw (bookmarks included), and
a version that the server has forgotten (410, as a status or as an ERROR event) leads to a new list.
A watch that stays silent for 70 s is dead and resumed. Whatever else fails is retried with growing,
jittered pauses, and said in one line that names what to do. It never writes, and it gives up only
when cancelled.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import msgspec

from nexus_api.meta import GROUP, PLURALS, VERSION
from nexus_api.pace import paced
from nexus_proxy.kube.client import KubeClient, ServerClock
from nexus_proxy.kube.store import Store

PAGE_LIMIT = "250"
WATCH_SECONDS = (300, 600)
RECONNECT_FLOOR_SECONDS = 0.1
BACKOFF_FIRST_SECONDS = 0.2
KINDS = ",".join(f"{plural}.{GROUP}" for plural in PLURALS.values())
BACKOFF_MOST_SECONDS = paced(30.0)

_log = logging.getLogger("nexus.proxy.kube")


class Gone(Exception):
    """The resource version, or the list's continue token, is too old: list again."""


class Refused(Exception):
    """The API server answered with an error; the message says what to do."""

    def __init__(self, message: str, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class _ListMeta(msgspec.Struct, rename="camel"):
    resource_version: str
    continue_: str = msgspec.field(default="", name="continue")


class _Page(msgspec.Struct):
    metadata: _ListMeta
    items: list[dict[str, Any]] | None = None


class _ItemMeta(msgspec.Struct, rename="camel", frozen=True):
    resource_version: str = ""


class _Item(msgspec.Struct):
    metadata: _ItemMeta = _ItemMeta()
    code: int = 0
    message: str = "the watch failed"


class _Event(msgspec.Struct):
    type: str
    object: msgspec.Raw


_page = msgspec.json.Decoder(_Page).decode
_watched = msgspec.json.Decoder(_Event).decode
_item = msgspec.json.Decoder(_Item).decode
_object = msgspec.json.Decoder(dict[str, Any]).decode


class Reflector:
    """Keeps one store current from one namespace."""

    def __init__(
        self,
        client: KubeClient,
        store: Store[Any],
        *,
        namespace: str,
        clock: Callable[[], float],
        server_clock: ServerClock,
        random: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        on_restart: Callable[[], None] = lambda: None,
    ) -> None:
        self._client = client
        self._store = store
        self._namespace = namespace
        self._path = f"/apis/{GROUP}/{VERSION}/namespaces/{namespace}/{store.plural}"
        self._clock = clock
        self._server_clock = server_clock
        self._random = random
        self._sleep = sleep
        self._on_restart = on_restart
        self._version: str | None = None
        self._failures = 0
        self._trouble = ""

    async def run(self) -> None:
        """List and watch until cancelled."""
        while True:
            pause = RECONNECT_FLOOR_SECONDS
            try:
                if self._version is None:
                    await self._list()
                pause = await self._watch()
            except Gone:
                self._version = None
            except httpx.ReadTimeout:
                _log.info("%s: the watch was silent for too long, resuming", self._store.plural)
            except (httpx.TransportError, msgspec.DecodeError) as error:
                pause = self._failed(self._unreachable(error))
            except Refused as refused:
                pause = max(self._failed(str(refused)), refused.retry_after)
            self._on_restart()
            await self._sleep(pause)

    def _failed(self, trouble: str) -> float:
        """Note a failure and return the pause before the next attempt, in seconds."""
        if trouble != self._trouble:
            self._trouble = trouble
            _log.warning("%s: %s", self._store.plural, trouble)
        grown = BACKOFF_FIRST_SECONDS * 2.0 ** min(self._failures, 16)
        self._failures += 1
        return min(grown, BACKOFF_MOST_SECONDS) * (0.5 + 0.5 * self._random())

    def _worked(self) -> None:
        self._failures = 0
        if self._trouble:
            self._trouble = ""
            _log.info("%s: the API server answers again", self._store.plural)

    def _unreachable(self, error: Exception) -> str:
        access = self._client.access
        detail = " ".join(str(error).split()) or type(error).__name__
        return f"cannot reach the API server {access.server} (from {access.source}): {detail}"

    async def _list(self) -> None:
        items: list[dict[str, Any]] = []
        token = ""
        while True:
            params = {"limit": PAGE_LIMIT, **({"continue": token} if token else {})}
            response = await self._client.get(self._path, params)
            self._check(response)
            page = _page(response.content)
            items += page.items or []
            token = page.metadata.continue_
            if not token:
                break
        self._version = page.metadata.resource_version
        self._worked()
        self._store.replace(items)

    async def _watch(self) -> float:
        """Follow a watch to its end; returns the pause before the next, in seconds."""
        shortest, longest = WATCH_SECONDS
        params = {
            "watch": "1",
            "allowWatchBookmarks": "true",
            "resourceVersion": self._version or "",
            "timeoutSeconds": str(int(shortest + self._random() * (longest - shortest))),
        }
        async with self._client.stream(self._path, params) as response:
            if response.status_code != httpx.codes.OK:
                await response.aread()
            self._check(response)
            told = False
            async for line in response.aiter_lines():
                if line:
                    self._event(line)
                    self._worked()
                    told = True
        # A watch that ends without a word, again and again, must not become a busy loop.
        return RECONNECT_FLOOR_SECONDS if told else self._failed(self._trouble)

    def _event(self, line: str) -> None:
        event = _watched(line)
        item = _item(event.object)
        if event.type == "ERROR":
            raise Gone if item.code == httpx.codes.GONE else Refused(item.message)
        self._version = item.metadata.resource_version
        if event.type != "BOOKMARK":
            self._store.apply(event.type, _object(event.object))

    def _check(self, response: httpx.Response) -> None:
        self._server_clock.observe(response.headers.get("date"), self._clock())
        status = response.status_code
        if status == httpx.codes.OK:
            return
        if status == httpx.codes.GONE:
            raise Gone
        explain = _EXPLANATIONS.get(status)
        detail = _message(response)
        told = (
            explain.format(plural=self._store.plural, namespace=self._namespace) if explain else ""
        )
        raise Refused(
            f"{told or f'the API server answered {status}'}: {detail}", _retry_after(response)
        )


_EXPLANATIONS: dict[int, str] = {
    httpx.codes.UNAUTHORIZED: "the API server does not accept the token, which is read again "
    "before each attempt; check the service account or the kubeconfig",
    httpx.codes.FORBIDDEN: "no right to list and watch {plural}.nexus.dev in {namespace}; to grant "
    "it: kubectl -n {namespace} create role nexus-proxy --verb=get,list,watch "
    f"--resource={KINDS}; "
    "kubectl -n {namespace} create rolebinding nexus-proxy --role=nexus-proxy "
    "--group=system:serviceaccounts:{namespace}",
    httpx.codes.NOT_FOUND: "the API server does not know {plural}.nexus.dev: install the CRDs with "
    "kubectl apply --server-side -f crds/",
}


def _message(response: httpx.Response) -> str:
    try:
        status = msgspec.json.decode(response.content)
    except msgspec.DecodeError:
        return response.reason_phrase
    return str(status.get("message", "")) if isinstance(status, dict) else response.reason_phrase


def _retry_after(response: httpx.Response) -> float:
    value = response.headers.get("retry-after", "")
    return min(float(value), BACKOFF_MOST_SECONDS) if value.isdigit() else 0.0
