"""The page's addresses: a document, its two assets and an icon, the feed, and two details.

Promises GET and HEAD only, relative addresses throughout, so that any prefix in front will do, and
a policy for the browser under which nothing runs, loads or embeds but these files. It asks for no
credentials and sets no cookie.
"""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path
from typing import Final

import msgspec
from aiohttp import web

from nexus_operator.page.board import Board
from nexus_operator.page.feed import BEAT_SECONDS

WRITE_SECONDS: Final = BEAT_SECONDS
ASSETS: Final = Path(__file__).parent / "assets"
FILES: Final = {
    "/": ("index.html", "text/html"),
    "/page/page.css": ("page.css", "text/css"),
    "/page/page.js": ("page.js", "text/javascript"),
    "/page/icon.svg": ("icon.svg", "image/svg+xml"),
}
CONTENT_SECURITY_POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "connect-src 'self'",
        "img-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
HEADERS: Final = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
FRESH: Final = {"Cache-Control": "no-store"}
AGAIN: Final = {"Retry-After": "5"}
ELSEWHERE: Final = frozenset({"cross-site", "same-site"})


class Page:
    """`mount` adds it to a server; the board ends with that server."""

    def __init__(self, board: Board) -> None:
        self._board = board

    def mount(self, app: web.Application) -> None:
        """Adds the addresses. Whoever listens is let go before the server waits for them."""
        for path, (name, kind) in FILES.items():
            app.router.add_get(path, _File(name, kind).answer)
        app.router.add_get("/page/events", self._events)
        app.router.add_get("/page/backend", self._backend)
        app.router.add_get("/page/policy", self._policy)
        app.on_startup.append(self._open)
        app.on_shutdown.append(self._close)

    async def _open(self, _: web.Application) -> None:
        self._board.feed.open()

    async def _close(self, _: web.Application) -> None:
        await self._board.close()

    async def _backend(self, request: web.Request) -> web.Response:
        return _found(request, self._board.detail(*_named(request)), "LLMBackend")

    async def _policy(self, request: web.Request) -> web.Response:
        return _found(request, await self._board.matches(*_named(request)), "QualityPolicy")

    async def _events(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={**HEADERS, **FRESH, "X-Accel-Buffering": "no"})
        response.content_type, response.charset = "text/event-stream", "utf-8"
        if request.method == "HEAD":
            await response.prepare(request)
            return response
        # Another site's page cannot read the feed, but it could take the places of those who can.
        if request.headers.get("Sec-Fetch-Site") in ELSEWHERE:
            return _refused(403, "the feed is for the operator's own page")
        listener = await self._board.join()
        if listener is None:
            return _refused(503, "too many pages are open: close one, or wait", AGAIN)
        try:
            await response.prepare(request)
            while (said := await listener.next()) is not None:
                async with asyncio.timeout(WRITE_SECONDS):
                    await response.write(said)
        except TimeoutError:
            if request.transport is not None:
                request.transport.abort()
        except ConnectionError:
            pass  # the page was closed
        finally:
            self._board.feed.leave(listener)
        return response


class _File:
    """An asset, read once."""

    def __init__(self, name: str, kind: str) -> None:
        self._body = (ASSETS / name).read_bytes()
        self._kind = kind
        self._tag = hashlib.sha256(self._body).hexdigest()[:16]

    async def answer(self, request: web.Request) -> web.Response:
        """The file, or that it is the one that is known."""
        headers = {**HEADERS, "Cache-Control": "no-cache", "ETag": f'"{self._tag}"'}
        if any(known.value == self._tag for known in request.if_none_match or ()):
            return web.Response(status=304, headers=headers)
        return web.Response(
            body=self._body, headers=headers, content_type=self._kind, charset="utf-8"
        )


def _named(request: web.Request) -> tuple[str, str]:
    return request.query.get("namespace", ""), request.query.get("name", "")


def _found(request: web.Request, found: msgspec.Struct | None, kind: str) -> web.Response:
    if found is None:
        namespace, name = _named(request)
        return _refused(404, f"there is no {kind} {namespace}/{name}: give ?namespace=…&name=…")
    body = msgspec.json.encode(found)
    return web.Response(body=body, headers={**HEADERS, **FRESH}, content_type="application/json")


def _refused(status: int, why: str, more: dict[str, str] | None = None) -> web.Response:
    return web.json_response(
        {"error": why}, status=status, headers={**HEADERS, **FRESH, **(more or {})}
    )
