"""One client connection: requests in, in order, and the bytes of their answers out.

Promises that only well-formed HTTP/1.1 (or 1.0) requests become exchanges, one at a time, and that
their answers leave in the order they were asked for. While one is served, little more than
`MAX_PENDING` further bytes are read ahead. A client that closes its writing side counts as gone, as
with nginx: that is how most clients leave, and a backend must not go on generating for them.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, cast
from urllib.parse import unquote_to_bytes

from nexus_proxy.http import client_keys
from nexus_proxy.http.exchange import Exchange
from nexus_proxy.http.local import (
    MODEL_PREFIX,
    MODELS_PATH,
    TURNED_AWAY,
    error_answer,
    json_answer,
    misdirected_answer,
    one_model,
    rejection_answer,
)
from nexus_proxy.http.request_reader import RequestReader
from nexus_proxy.http.wheel import NEVER
from nexus_proxy.routing.endpoint import ENDPOINTS
from nexus_proxy.routing.reason import Rejection
from nexus_proxy.routing.refusal import model_not_listed, not_ready
from nexus_proxy.routing.request import BadRequest, analyze

if TYPE_CHECKING:
    from nexus_proxy.http.gateway import Gateway
    from nexus_proxy.http.request_head import Request

MAX_PENDING = 64 * 1024
IDLE_SECONDS = 75.0
# A request has so long from its first byte to its last, and as long again for each 64 KB of body.
REQUEST_SECONDS = 60.0
MIN_PROGRESS_BYTES = 64 * 1024
INTERNAL = "internal_error"
LINGER_SECONDS = 5.0
CLOSE_SECONDS = 60.0
PARTING_SECONDS = 2.0  # how long an idle connection is still open for a request when a drain begins
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class ClientConnection(asyncio.Protocol):
    """`paused`: the client does not take what is written, since about `paused_since`; `http10`: the
    request being served is an HTTP/1.0 one; `due` is the wheel's.
    """

    __slots__ = (
        "_answering",
        "_arrival_deadline",
        "_arrived",
        "_closing",
        "_counters",
        "_deadline",
        "_exchange",
        "_gateway",
        "_keys",
        "_lingering",
        "_pending",
        "_pending_bytes",
        "_pumping",
        "_queue",
        "_reader",
        "_serving",
        "due",
        "http10",
        "paused",
        "paused_since",
        "transport",
    )

    transport: asyncio.Transport

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._counters = gateway.counters
        self._queue: deque[tuple[Request, bytes]] = deque()
        self._keys = gateway.listener.keys
        self._reader = RequestReader(self._queue, max_body=gateway.max_body_bytes, keys=self._keys)
        self._pending: list[bytes] = []  # read ahead, not parsed
        self._pending_bytes = 0
        self._exchange: Exchange | None = None
        self._serving: Request | None = None
        self._pumping = False
        self._answering = False  # bytes of the answer have been written
        self._arrival_deadline = 0.0  # the deadline, while a request comes in
        self._arrived = 0  # its body bytes when that was set
        self._closing = False  # nothing more is read as a request
        self._lingering = False  # the last answer is out; what still comes in is thrown away
        self._deadline = gateway.now + IDLE_SECONDS
        self.due = NEVER
        self.http10 = False
        self.paused = False
        self.paused_since = 0.0

    # What exchanges use

    def write(self, data: bytes) -> None:
        """Send bytes of an answer."""
        self._counters.bytes_sent += len(data)
        self._answering = True
        self.transport.write(data)

    def closes_after_answer(self) -> bool:
        """The answer about to begin is the connection's last."""
        serving = self._serving
        return serving is None or not serving.keep_alive or self._gateway.draining

    def finished(self, *, close: bool) -> None:
        """The answer is complete."""
        self._exchange = self._serving = None
        self._answering = False
        if close or self._gateway.draining:
            self._close()
            return
        self._deadline = deadline = self._gateway.now + IDLE_SECONDS
        if deadline < self.due:
            self.look_by(deadline)
        if self._queue or self._pending or self._reader.request is not None:
            self._pump()

    def reject(self, rejection: Rejection, *, retries: int) -> None:
        """Answer with a rejection instead."""
        close = self.closes_after_answer()
        self._write_local(rejection_answer(rejection, retries=retries, close=close))
        self.finished(close=close)

    def abort(self) -> None:
        """End the connection in a way that cannot be taken for the answer's end."""
        self._exchange = self._serving = None
        self._closing = True
        self.transport.abort()

    def crashed(self, error: Exception) -> None:
        """This proxy failed on the request being served: the client hears of it if it still can."""
        gateway = self._gateway
        gateway.report_crash(error)
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            try:
                exchange.crashed()
            except Exception as again:
                gateway.report_crash(again)
        if self.transport.is_closing():
            return
        if self._answering:
            self.abort()
        else:
            self._refuse(500, "the proxy failed on this request; its log says how", INTERNAL)

    # What the gateway uses

    def drain(self) -> None:
        """Close after the answer being given; if idle, after one more, or soon without a request.

        Closed at once, it would cut off a request that is on its way: no client could know whether
        that was served, and few ask again.
        """
        if self._serving is None and not self._closing and not self._reader.begun:
            self._deadline = min(self._deadline, self._gateway.now + PARTING_SECONDS)
            self.look_by(self._deadline)

    def cut_short(self) -> None:
        """End what is under way, with a word where one can be said."""
        if self._exchange is not None:
            self._exchange.cut_short()

    def look_by(self, when: float) -> None:
        """Something must be looked at by then; what comes later is found out in time."""
        self._gateway.wheel.by(self, when)

    def check(self, now: float) -> float:
        """Close a connection that nobody uses, or that does not get on, and end what has waited too
        long on it; the time for the next look.
        """
        exchange = self._exchange
        if exchange is not None:
            return exchange.check(now)
        if self._serving is None and now >= self._deadline:
            if self._closing or not self._reader.begun:
                self.transport.abort()
                return now
            arrived = self._reader.body_bytes
            if arrived - self._arrived < MIN_PROGRESS_BYTES:
                self._refuse(408, "the request did not arrive in time")
            else:
                self._arrived = arrived
                self._deadline = self._arrival_deadline = now + REQUEST_SECONDS
        return self._deadline

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        gateway = self._gateway
        gateway.clients.add(self)
        self.look_by(self._deadline)
        self._counters.active_downstreams += 1
        if gateway.draining:
            self._close()
        elif len(gateway.clients) > gateway.max_clients:
            # Before it asks: descriptors are what is short, and one more would take a backend's.
            self._counters.turned_away += 1
            self.write(TURNED_AWAY)
            self._close()

    def data_received(self, data: bytes) -> None:
        self._counters.bytes_received += len(data)
        if self._closing:
            return
        if self._serving is None:
            try:
                reader = self._reader
                body = None if self.paused or self._queue else reader.whole(data)
                if body is not None:
                    self._serve(reader.known.meaning, body)
                else:
                    reader.feed(data)
                    self._pump()
            except Exception as error:
                self.crashed(error)
            return
        self._pending.append(data)
        self._pending_bytes += len(data)
        if self._pending_bytes > MAX_PENDING:
            self.transport.pause_reading()

    def eof_received(self) -> bool:
        if self._serving is not None:
            self.transport.abort()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        exchange, self._exchange = self._exchange, None
        self._closing = True
        if exchange is not None:
            try:
                exchange.client_left()
            except Exception as error:
                self._gateway.report_crash(error)
        self._serving = None
        self._reader.discard()
        self._gateway.forget(self)

    def pause_writing(self) -> None:
        self.paused = True
        self.paused_since = self._gateway.now
        if self._exchange is not None:
            self._exchange.pause()

    def resume_writing(self) -> None:
        self.paused = False
        if self._exchange is not None:
            self._exchange.resume()
        elif self._serving is None:
            self._pump()

    # Requests, one after another

    def _pump(self) -> None:
        """Serve what is complete, then read on; answers given at once come back here, in a loop."""
        if self._pumping:
            return
        self._pumping = True
        while self._serving is None and not self._closing and not self.paused:
            if self._queue:
                self._serve(*self._queue.popleft())
            elif self._pending:
                self._reader.feed(self._read_ahead())
            else:
                self._await_more()
                break
        self._pumping = False

    def _await_more(self) -> None:
        """Nothing is complete: a request has begun at most."""
        if self._reader.begun:
            if self._deadline != self._arrival_deadline:
                self._arrived = 0
                self._deadline = self._arrival_deadline = self._gateway.now + REQUEST_SECONDS
                self.look_by(self._deadline)
            if self._reader.expects_continue():
                self.transport.write(_CONTINUE)

    def _read_ahead(self) -> bytes:
        data = b"".join(self._pending)
        self._pending = []
        if self._pending_bytes > MAX_PENDING:
            self.transport.resume_reading()
        self._pending_bytes = 0
        return data

    def _serve(self, request: Request, body: bytes) -> None:
        self._serving = request
        self.http10 = request.http10
        endpoint = request.endpoint
        refusal = request.refusal
        keys = self._keys
        if keys is not None and refusal is None and request.admitted is not keys.current:
            refusal = keys.refusal(request)  # its head is older than the keys
        if refusal is not None:
            self._refuse(*refusal)
            return
        if endpoint is None:
            self._answer_locally(request)
            return
        try:
            call = analyze(
                endpoint, body, flexible=request.flexible, high_priority=request.high_priority
            )
        except BadRequest as bad:
            self._counters.request(endpoint.value, 400)
            self._bad_request(bad)
            return
        gateway = self._gateway
        self._exchange = exchange = Exchange(gateway, self, request, call)
        gateway.exchanges.add(exchange)
        exchange.start(gateway.clock())

    def _answer_locally(self, request: Request) -> None:
        close = self.closes_after_answer()
        path = request.path
        of_models = path == MODELS_PATH or path.startswith(MODEL_PREFIX)
        if of_models and request.method in (b"GET", b"HEAD"):
            found = self._models(path)
            if isinstance(found, Rejection):
                self.reject(found, retries=0)
                return
            answer = json_answer(200, found, close=close)
        else:
            allowed = b"POST" if path in ENDPOINTS else b"GET" if of_models else None
            answer = misdirected_answer(request.method, path, allowed, close=close)
        self._write_local(answer)
        self.finished(close=close)

    def _models(self, path: bytes) -> bytes | Rejection:
        """The list, or the one model whose name ends the path."""
        router = self._gateway.router
        if not router.ready:
            return not_ready()  # an empty list would be believed, and kept
        models = router.models()
        if path == MODELS_PATH:
            return models
        name = unquote_to_bytes(path.removeprefix(MODEL_PREFIX)).decode(errors="replace")
        return one_model(models, name) or model_not_listed(name)

    def _write_local(self, answer: bytes) -> None:
        """Send an answer of our own, to HEAD without its body."""
        serving = self._serving
        if serving is not None and serving.method == b"HEAD":
            answer = answer[: answer.index(b"\r\n\r\n") + 4]
        self.write(answer)

    def _bad_request(self, bad: BadRequest) -> None:
        close = self.closes_after_answer()
        self.write(error_answer(400, bad.message, close=close, param=bad.param, code=bad.code))
        self.finished(close=close)

    def _refuse(self, status: int, message: str, code: str = "bad_request") -> None:
        """Answer what is no request, too much of one or a stranger's, and read no further."""
        lines = b""
        if status == client_keys.STATUS:
            code, lines = client_keys.CODE, client_keys.CHALLENGE
            endpoint = self._serving.endpoint if self._serving is not None else None
            self._counters.request(endpoint.value if endpoint is not None else "other", status)
        self._write_local(error_answer(status, message, close=True, code=code, lines=lines))
        self._closing = self._lingering = True
        self._serving = None
        # Bytes may still be coming in: closing now would reset the connection and could take the
        # answer with it. So end our side only, and throw theirs away for a while.
        self._deadline = self._gateway.now + LINGER_SECONDS
        self.look_by(self._deadline)
        if self.transport.can_write_eof():
            self.transport.write_eof()
        else:
            self.transport.close()  # TLS: says its end, and throws away what comes until the peer's
        if self._pending_bytes > MAX_PENDING:
            self.transport.resume_reading()

    def _close(self) -> None:
        self._closing = True
        self._deadline = self._gateway.now + CLOSE_SECONDS
        self.look_by(self._deadline)
        self.transport.close()
