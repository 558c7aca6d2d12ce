"""The operator's intake as a proxy sees it: one report over HTTP, or why it was not taken.

Promises that a report is packed if it is large, that the token file is read again for each, and
that a refusal comes back as one line, without the token, and the time the operator asks for. It
keeps nothing and tries nothing again, but for an operator that does not unpack.
"""

from __future__ import annotations

import asyncio
import ssl
import zlib
from pathlib import Path

import httpx

from nexus_proxy.kube.client import read_token
from nexus_quality.report import Answer, InvalidReport, decode_answer

PATH = "/v1/outcomes"
TIMEOUT_SECONDS = 5.0
# From one report to the next, and less than the operator waits: a connection for each is dear.
KEEP_SECONDS = 60.0
PACK_BYTES = 1024
THREAD_BYTES = 64 * 1024
_GZIP_FORMAT = 16 + zlib.MAX_WBITS


class Undelivered(Exception):
    """The report was not taken; the message says why, in one line.

    `retry_after`: the seconds that the operator asks for, 0.0 if it does not.
    """

    def __init__(self, message: str, *, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class OperatorIntake:
    """Delivers reports to the operator over HTTP."""

    def __init__(
        self,
        url: str,
        token_file: Path | None,
        *,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._url = url.rstrip("/") + PATH
        self._token_file = token_file
        self._token: str | None = None  # as sent last
        self._unpacks = True
        self._http = httpx.AsyncClient(
            trust_env=False,
            timeout=TIMEOUT_SECONDS,
            transport=transport,
            limits=httpx.Limits(max_keepalive_connections=1, keepalive_expiry=KEEP_SECONDS),
            verify=_trust(url),
        )

    async def deliver(self, body: bytes) -> Answer:
        """Send one report. Raises Undelivered."""
        packs = self._unpacks and len(body) > PACK_BYTES
        response = await self._post(body, packed=packs)
        if packs and response.status_code == httpx.codes.UNSUPPORTED_MEDIA_TYPE:
            self._unpacks = False
            response = await self._post(body, packed=False)
        if response.status_code != httpx.codes.OK:
            raise Undelivered(self._refused(response), retry_after=_retry_after(response))
        try:
            return decode_answer(response.content)
        except InvalidReport as error:
            raise Undelivered(f"the answer of {self._url} is none: {error}") from None

    async def _post(self, body: bytes, *, packed: bool) -> httpx.Response:
        headers = {"content-type": "application/json"}
        self._token = token = read_token(self._token_file) if self._token_file else None
        if token:
            headers["authorization"] = f"Bearer {token}"
        if packed:
            headers["content-encoding"] = "gzip"
            body = await _packed(body)
        try:
            return await self._http.post(self._url, content=body, headers=headers)
        except httpx.TransportError as error:
            detail = " ".join(str(error).split()) or type(error).__name__
            raise Undelivered(f"cannot reach the operator at {self._url}: {detail}") from None

    def _refused(self, response: httpx.Response) -> str:
        told = f"the operator at {self._url} answered {response.status_code}"
        if response.status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
            source = self._token_file or "none (--report-token-file is not set)"
            return f"{told}: it does not accept the report token {source}"
        text = response.text
        if self._token:
            text = text.replace(self._token, "…")  # some error pages repeat the request
        return f"{told}: {' '.join(text.split())[:200]}"

    async def close(self) -> None:
        """Close the connection."""
        await self._http.aclose()


async def _packed(body: bytes) -> bytes:
    # zlib leaves the interpreter alone while it works: a large report must not hold up requests.
    return _gzip(body) if len(body) < THREAD_BYTES else await asyncio.to_thread(_gzip, body)


def _gzip(body: bytes) -> bytes:
    packer = zlib.compressobj(level=1, wbits=_GZIP_FORMAT)
    return packer.compress(body) + packer.flush()


def _retry_after(response: httpx.Response) -> float:
    hint = response.headers.get("retry-after", "")
    return float(hint) if hint.isascii() and hint.isdigit() and len(hint) < 6 else 0.0


def _trust(url: str) -> ssl.SSLContext:
    # Reading the system's trust store costs milliseconds and megabytes: only for TLS.
    if url.startswith("https:"):
        return ssl.create_default_context()
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
