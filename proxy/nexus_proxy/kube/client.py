"""A minimal API server client: GET, and GET as a stream, with the credentials of an `Access`.

The token file is read again for every request, so a rotated token needs no restart. Proxies of the
environment are not used. It knows nothing of kinds; what a status code means to a watch is
`reflector`'s business.
"""

from __future__ import annotations

import ssl
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import httpx

from nexus_proxy.kube.kubeconfig import Access, ConfigError

CONNECT_SECONDS = 5.0
READ_SECONDS = 30.0
SILENT_WATCH_SECONDS = 70.0


class ServerClock:
    """The API server's wall clock, from its `Date` headers; the local one until the first of
    them.
    """

    def __init__(self, *, now: float, local: float) -> None:
        self._offset = local - now

    def observe(self, date: str | None, now: float) -> None:
        """Take in a Date header that arrived at `now` (this proxy's clock)."""
        if date:
            try:
                self._offset = parsedate_to_datetime(date).timestamp() - now
            except ValueError:
                return

    def at(self, now: float) -> float:
        """Epoch seconds at the API server."""
        return self._offset + now


class KubeClient:
    """Requests to one API server."""

    def __init__(
        self, access: Access, *, transport: httpx.AsyncBaseTransport | None = None
    ) -> None:
        self.access = access
        self._extensions = {"sni_hostname": access.server_name} if access.server_name else {}
        self._http = httpx.AsyncClient(
            base_url=access.server,
            transport=transport,
            verify=_context(access) if transport is None else True,
            trust_env=False,
            timeout=httpx.Timeout(READ_SECONDS, connect=CONNECT_SECONDS),
            limits=httpx.Limits(max_connections=8, max_keepalive_connections=4),
            headers={"accept": "application/json", "user-agent": "nexus-proxy"},
        )

    async def get(self, path: str, params: Mapping[str, str]) -> httpx.Response:
        """GET a whole response, whatever its status. Raises httpx.TransportError."""
        return await self._http.get(
            path, params=params, headers=self._headers(), extensions=self._extensions
        )

    @asynccontextmanager
    async def stream(self, path: str, params: Mapping[str, str]) -> AsyncIterator[httpx.Response]:
        """GET a response that stays open; silence of 70 s raises httpx.ReadTimeout."""
        extensions: dict[str, Any] = {
            **self._extensions,
            "timeout": httpx.Timeout(SILENT_WATCH_SECONDS, connect=CONNECT_SECONDS).as_dict(),
        }
        async with self._http.stream(
            "GET", path, params=params, headers=self._headers(), extensions=extensions
        ) as response:
            yield response

    def _headers(self) -> dict[str, str]:
        token = read_token(self.access.token_file) if self.access.token_file else self.access.token
        return {"authorization": f"Bearer {token}"} if token and token.isprintable() else {}

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()


def read_token(path: Path) -> str | None:
    """The token in a file, None while there is none (something else in its place is none)."""
    try:
        token = path.read_text("ascii").strip()
    except (OSError, UnicodeDecodeError):
        return None
    # What no header can carry would be told, as it is, by the error of whoever tries.
    return token if token and token.isprintable() else None


def _context(access: Access) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cadata=access.ca_pem)
    except ssl.SSLError:
        raise ConfigError(f"{access.source}: the certificate authority is not PEM") from None
    if access.insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if access.certificate_pem and access.key_pem:
        _load_pair(context, access)
    return context


def _load_pair(context: ssl.SSLContext, access: Access) -> None:
    # The ssl module takes a client certificate from files only.
    with tempfile.TemporaryDirectory(prefix="nexus-proxy-") as folder:
        pair = Path(folder) / "client.pem"
        pair.touch(mode=0o600)
        pair.write_text(f"{access.key_pem}\n{access.certificate_pem}\n")
        try:
            context.load_cert_chain(pair)
        except ssl.SSLError:
            raise ConfigError(f"{access.source}: client certificate and key do not fit") from None
