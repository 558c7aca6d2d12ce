"""Puts an answer on the wire at the scripted pace, or fails in the scripted way.

Promises: a table from kind of fault to a small function; every stream event is written on its own.
It is NOT where faults are drawn (``script.Dice``) or counted (``ledger``).
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import msgspec
from aiohttp import web

from nexus_devtools.backends import answers
from nexus_devtools.backends.answers import Json
from nexus_devtools.backends.events import Stream, data_event
from nexus_devtools.backends.script import Fault, FaultKind, Script

SERVER = "nexus-simulated"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One answer and how it is to go: ``stream`` if it was asked for, else ``whole``."""

    script: Script
    fault: Fault | None
    whole: Json
    stream: Stream | None


def json_response(
    payload: Json, *, status: int = 200, retry_after: str | None = None
) -> web.Response:
    """A JSON response that says who it is from."""
    headers = {"Server": SERVER}
    if retry_after is not None:
        headers["Retry-After"] = retry_after
    body = msgspec.json.encode(payload)
    return web.Response(body=body, status=status, headers=headers, content_type="application/json")


async def deliver(request: web.Request, plan: Plan) -> web.StreamResponse:
    """Answer the request as planned; returns when the last byte is written or the fault is done."""
    fault = plan.fault
    instead = None if fault is None else _INSTEAD.get(fault.kind)
    if fault is not None and instead is not None:
        await _pause(plan.script.headers_seconds)
        return await instead(fault)
    if fault is not None and fault.kind is FaultKind.SLOW:
        await _pause(fault.delay_seconds)
    if plan.stream is None:
        return await _whole(request, plan)
    return await _stream(request, plan, plan.stream)


async def _whole(request: web.Request, plan: Plan) -> web.StreamResponse:
    script, fault = plan.script, plan.fault
    await _pause(
        script.headers_seconds + script.first_token_seconds + script.token_seconds * script.tokens
    )
    breaking = None if fault is None else _BREAKS.get(fault.kind)
    if fault is None or breaking is None:
        return json_response(plan.whole)
    body = msgspec.json.encode(plan.whole)
    response = web.StreamResponse(headers={"Server": SERVER, "Content-Type": "application/json"})
    if fault.kind in (FaultKind.CUT, FaultKind.RESET, FaultKind.HANG_STREAM):
        response.content_length = len(body)
    await response.prepare(request)
    await response.write(body[: len(body) // 2])
    await breaking(request, response)
    return response


async def _stream(request: web.Request, plan: Plan, stream: Stream) -> web.StreamResponse:
    script, fault = plan.script, plan.fault
    breaking = None if fault is None else _BREAKS.get(fault.kind)
    await _pause(script.headers_seconds)
    response = web.StreamResponse(
        headers={
            "Server": SERVER,
            "Content-Type": "text/event-stream; charset=utf-8",
            "Cache-Control": "no-cache",
        }
    )
    await response.prepare(request)
    for event in stream.preamble:
        await response.write(event)
    content = stream.content
    if fault is not None and breaking is not None:
        content = content[: fault.after_chunks]
    for index, event in enumerate(content):
        await _pause(script.token_seconds if index else script.first_token_seconds)
        await response.write(event)
    if breaking is not None:
        await breaking(request, response)
        return response
    for event in stream.ending:
        await response.write(event)
    return response


async def _pause(seconds: float) -> None:
    if seconds > 0:
        await asyncio.sleep(seconds)


async def _status(fault: Fault) -> web.StreamResponse:
    text = f"simulated fault: status {fault.status}"
    kind = "rate_limit_error" if fault.status == 429 else "server_error"
    return json_response(
        answers.error(text, kind=kind, code="simulated_fault"),
        status=fault.status,
        retry_after=fault.retry_after,
    )


async def _error_body(_fault: Fault) -> web.StreamResponse:
    return json_response(_ERROR)


async def _hang_headers(_fault: Fault) -> web.StreamResponse:
    await _forever()
    raise AssertionError("unreachable")


async def _forever() -> None:
    """Waits until the client leaves or the backend stops: both cancel the handler."""
    await asyncio.get_running_loop().create_future()


async def _hang(_request: web.Request, _response: web.StreamResponse) -> None:
    await _forever()


async def _cut(request: web.Request, _response: web.StreamResponse) -> None:
    if request.transport is not None:
        request.transport.close()


async def _reset(request: web.Request, _response: web.StreamResponse) -> None:
    if request.transport is None:
        return
    # With a zero linger time the kernel sends RST instead of FIN.
    raw = request.transport.get_extra_info("socket")
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    request.transport.abort()


async def _truncate(_request: web.Request, _response: web.StreamResponse) -> None:
    """Nothing more is said: the body ends as if it were complete."""


async def _malformed(_request: web.Request, response: web.StreamResponse) -> None:
    await response.write(b'data: {"simulated": malformed\n\n')


async def _stream_error(_request: web.Request, response: web.StreamResponse) -> None:
    await response.write(data_event(_ERROR))


_ERROR = answers.error("simulated fault: the engine died", code="simulated_fault")

_INSTEAD: dict[FaultKind, Callable[[Fault], Awaitable[web.StreamResponse]]] = {
    FaultKind.STATUS: _status,
    FaultKind.ERROR_BODY: _error_body,
    FaultKind.HANG_HEADERS: _hang_headers,
}
"""Faults that replace the answer."""

_BREAKS: dict[FaultKind, Callable[[web.Request, web.StreamResponse], Awaitable[None]]] = {
    FaultKind.HANG_STREAM: _hang,
    FaultKind.CUT: _cut,
    FaultKind.RESET: _reset,
    FaultKind.TRUNCATE: _truncate,
    FaultKind.MALFORMED: _malformed,
    FaultKind.STREAM_ERROR: _stream_error,
}
"""Faults in the middle of an answer; what was sent before is good."""
