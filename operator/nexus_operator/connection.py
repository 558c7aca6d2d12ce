"""The operator's way to the API server, which follows its credentials as they are renewed.

Promises that after a 401, or a certificate that one of both sides does not take, the credentials
are read again (at most one reading at a time, and for certificates one each `AGAIN_SECONDS`), that
the request is then made once more if it cannot have been heard before, that requests under way keep
the connection they have, and that credentials which cannot be read leave those of before. How
credentials are found is `credentials`'; what is asked is `kube`'s.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import httpx

from nexus_operator.credentials import Credentials
from nexus_operator.problems import Problem
from nexus_operator.server_tls import Stamp, stamp

TIMEOUT = httpx.Timeout(10.0, read=30.0)
# Kept for a minute: a handshake for each renewal of the lease would be dear.
LIMITS = httpx.Limits(max_connections=100, max_keepalive_connections=20, keepalive_expiry=60.0)
AGAIN_SECONDS = 5.0
UNAUTHORIZED = 401

log = logging.getLogger(__name__)


class Connection:
    """`renew` finds credentials anew. `replaced` is called when more than a token has changed."""

    def __init__(
        self,
        credentials: Credentials,
        *,
        agent: str,
        renew: Callable[[], Credentials] | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.credentials = credentials
        self.replaced: Callable[[], None] = lambda: None
        self._agent = agent
        self._renew = renew
        self._transport = transport
        self._now = monotonic
        self._reading = asyncio.Lock()
        self._readings = 0
        self._trouble = ""
        self._distrusted = -AGAIN_SECONDS
        self._busy: Counter[httpx.AsyncClient] = Counter()
        self._open(credentials)

    async def close(self) -> None:
        """Closes every connection."""
        for client in {self._client, *self._busy}:
            await client.aclose()

    async def request(self, method: str, url: str, **given: Any) -> httpx.Response:
        """The answer of the API server; raises as httpx does."""
        readings = self._readings
        try:
            answer = await self._once(method, url, **given)
        except httpx.TransportError as error:
            renewed = distrusts(error) and await self._trusted_again(readings)
            if not renewed or not isinstance(error, httpx.ConnectError):
                raise
            return await self._once(method, url, **given)
        if answer.status_code == UNAUTHORIZED and await self._read_again(readings):
            return await self._once(method, url, **given)
        return answer

    async def _once(self, method: str, url: str, **given: Any) -> httpx.Response:
        client = self._client
        self._busy[client] += 1
        try:
            return await client.request(method, url, **given)
        finally:
            self._busy[client] -= 1
            if not self._busy[client]:
                del self._busy[client]
                if client is not self._client:
                    await client.aclose()

    async def _trusted_again(self, readings: int) -> bool:
        """As `_read_again`, but seldom: a server that nobody trusts is asked all the time."""
        if self._readings == readings and self._now() - self._distrusted < AGAIN_SECONDS:
            return False
        self._distrusted = self._now()
        return await self._read_again(readings)

    async def _read_again(self, readings: int) -> bool:
        """Takes over credentials that changed since `readings` of them; True if there are any."""
        async with self._reading:
            if self._readings != readings:
                return True
            try:
                fresh = await asyncio.to_thread(self._renew) if self._renew else self.credentials
                if not await self._take(fresh):
                    return False
            except (Problem, OSError, ssl.SSLError) as error:
                # Half written by who renews them, it may be: the next refusal has them read again.
                self._complain(str(error))
                return False
            self._readings += 1
            self._trouble = ""
            return True

    async def _take(self, fresh: Credentials) -> bool:
        """Uses these from now on; False if they are those of before."""
        files = files_of(fresh)
        same = files == self._files and replaceable(fresh) == replaceable(self.credentials)
        if not same:
            await self._replace(fresh)
        elif fresh == self.credentials:
            return False
        self.credentials = fresh
        self._client.headers.pop("Authorization", None)
        self._client.headers.update(fresh.headers())
        return True

    async def _replace(self, fresh: Credentials) -> None:
        before = self._client
        self._open(fresh)
        log.info("the credentials of %s changed: connecting anew", fresh.origin)
        self.replaced()
        if not self._busy[before]:
            del self._busy[before]
            await before.aclose()

    def _complain(self, trouble: str) -> None:
        if trouble != self._trouble:
            self._trouble = trouble
            log.warning("credentials that were refused cannot be renewed: %s", trouble)

    def _open(self, credentials: Credentials) -> None:
        basic = None
        if credentials.username and credentials.password:
            basic = httpx.BasicAuth(credentials.username, credentials.password)
        secure = credentials.server.startswith("https:") and self._transport is None
        files = files_of(credentials)
        self._client = httpx.AsyncClient(
            base_url=credentials.server,
            headers={"User-Agent": self._agent, **credentials.headers()},
            auth=basic,
            verify=credentials.ssl_context() if secure else True,
            proxy=credentials.proxy_url,
            transport=self._transport,
            limits=LIMITS,
            timeout=TIMEOUT,
            trust_env=False,
        )
        self._files = files


def distrusts(error: BaseException) -> bool:
    """Whether a certificate is behind an error, of theirs or of ours."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLError):
            return True
        cause = cause.__cause__ or cause.__context__
    return False


def files_of(credentials: Credentials) -> Stamp:
    """What tells the files of credentials from those that take their place."""
    found = (credentials.ca_path, credentials.certificate_path, credentials.key_path)
    try:
        return stamp(*found)
    except OSError:
        return ()


def replaceable(credentials: Credentials) -> tuple[object, ...]:
    """All but a token, which a connection that is there can take over."""
    return (
        credentials.server,
        credentials.ca_path,
        credentials.insecure,
        credentials.username,
        credentials.password,
        credentials.certificate_path,
        credentials.key_path,
        credentials.proxy_url,
    )
