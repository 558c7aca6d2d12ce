"""One request's journey: attempt after attempt until an answer may be sent, then that answer.

Promises that nothing is committed to the client before the answer is known to be final, that every
attempt ends in exactly one Outcome and frees its place, whatever path it took, and that a backend
is let go of the moment its client leaves. Who gets an attempt is the router's decision, bytes are
framed by `Delivery`, time is told by the gateway's tick.

What is held back before the commit, and for how long: a failing status and a JSON answer until they
are complete, a stream until its first event; at most `HOLD_BYTES` and about `HOLD_SECONDS`.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from nexus_proxy.http.answer_head import Answer, retry_after_seconds
from nexus_proxy.http.delivery import Delivery
from nexus_proxy.http.inspect import is_error_body
from nexus_proxy.http.pool import Pool, pool_of
from nexus_proxy.http.request_head import Request, upstream_head
from nexus_proxy.http.rewrite import with_model
from nexus_proxy.http.sse import Watcher
from nexus_proxy.routing.router import Rejection
from nexus_quality.outcome import Outcome, of_status

if TYPE_CHECKING:
    import asyncio

    from nexus_proxy.http.downstream import ClientConnection
    from nexus_proxy.http.gateway import Gateway
    from nexus_proxy.http.upstream import UpstreamConnection
    from nexus_proxy.routing.request import Call
    from nexus_proxy.routing.router import Choice
    from nexus_quality.subject import Attempt

HOLD_BYTES = 64 * 1024
HOLD_SECONDS = 2.0
QUICK_SECONDS = 1.0  # a failure this fast costs the client nothing: the first retry is free
CLIENT_STALL_SECONDS = 300.0


class Exchange:
    """One request between a client connection and the backends that are tried for it."""

    __slots__ = (
        "_alive",
        "_attempt",
        "_began",
        "_choice",
        "_client",
        "_connecting",
        "_deadline",
        "_delivery",
        "_first_byte",
        "_gateway",
        "_held",
        "_held_bytes",
        "_hold_until",
        "_request",
        "_saved",
        "_upstream",
        "_verdict",
        "_watcher",
        "call",
    )

    _choice: Choice

    def __init__(
        self, gateway: Gateway, client: ClientConnection, request: Request, call: Call
    ) -> None:
        self.call = call
        self._gateway = gateway
        self._client = client
        self._request = request
        self._attempt: Attempt | None = None
        self._began = 0.0
        self._connecting: asyncio.Task[None] | None = None
        self._upstream: UpstreamConnection | None = None
        self._delivery: Delivery | None = None  # set: the answer is committed
        self._watcher: Watcher | None = None
        self._verdict: Outcome | None = None  # what the head alone says
        self._held: list[bytes] = []
        self._held_bytes = 0
        self._hold_until = 0.0  # 0: nothing is held against the clock
        self._saved: tuple[Answer, Choice, bytes] | None = None
        self._first_byte = 0.0
        self._alive = False
        self._deadline = 0.0

    # Attempts

    def start(self, now: float) -> None:
        """Make the first attempt, or tell the client why there is none."""
        result = self._gateway.router.choose(self.call, now)
        if type(result) is Rejection:
            self._give_up(result)
        else:
            self._begin(result, now)  # type: ignore[arg-type]

    def _begin(self, choice: Choice, now: float) -> None:
        candidate = choice.candidate
        backend = candidate.backend
        self._choice = choice
        self._attempt = candidate.subject.begin(
            now, probe=choice.probe, last_resort=choice.last_resort
        )
        backend.in_flight += 1
        self._began = now
        pool = pool_of(backend, self._gateway)
        connection = pool.take(now)
        if connection is None:
            self._connect(pool, now)
        else:
            self._send(connection, now)

    def _connect(self, pool: Pool, now: float) -> None:
        self._deadline = now + self._choice.candidate.backend.timeouts.connect
        self._connecting = pool.connect(self)

    def connected(self, connection: UpstreamConnection) -> None:
        """A new connection stands."""
        self._connecting = None
        self._send(connection, self._gateway.clock())

    def connect_failed(self, why: str) -> None:
        """No connection came about."""
        self._connecting = None
        self._fail(Outcome.CONNECT_ERROR, why)

    def _send(self, connection: UpstreamConnection, now: float) -> None:
        self._upstream = connection
        call = self.call
        choice = self._choice
        backend = choice.candidate.backend
        origin = backend.origin
        body = call.body if choice.rewrite is None else with_model(call.body, choice.rewrite)
        head = upstream_head(
            self._request,
            target=origin.paths[call.endpoint],
            authority=origin.authority,
            credentials=backend.credentials,
            length=len(body),
            stream=call.stream,
        )
        connection.send(self, head, body)
        if self._attempt is not None:
            self._attempt.sent(now)
        timeouts = backend.timeouts
        self._deadline = now + (timeouts.first_token if call.stream else timeouts.response)

    def _end(self, outcome: Outcome, now: float) -> None:
        attempt = self._attempt
        if attempt is None:
            return
        self._attempt = None
        self._choice.candidate.backend.in_flight -= 1
        attempt.end(outcome, now)
        attempts = self._gateway.counters.attempts
        name = outcome.value
        attempts[name] = attempts.get(name, 0) + 1

    def _fail(self, outcome: Outcome, why: str, *, passable: bool = False) -> None:
        """The attempt failed before anything was committed: the next candidate, or the end.

        `passable`: the answer that is still coming in may be passed on if there is no other.
        """
        now = self._gateway.clock()
        self._end(outcome, now)
        tried = self.call.tried
        tried.append((self._choice, why))
        upstream = self._upstream
        answered = upstream is not None and upstream.headed
        if passable and upstream is not None and upstream.complete:
            self._saved = (upstream.answer, self._choice, b"".join(self._held))
            passable = False
        quick = outcome is Outcome.CONNECT_ERROR or (answered and now - self._began < QUICK_SECONDS)
        result = self._gateway.router.again(
            self.call, now, first_retry_free=quick and len(tried) == 1
        )
        if type(result) is not Rejection:
            self._let_go()
            self._gateway.counters.retries += 1
            self._begin(result, now)  # type: ignore[arg-type]
        elif passable and upstream is not None:
            self._commit(upstream, retries=len(tried) - 1)
        else:
            self._let_go()
            self._give_up(result)

    def _let_go(self) -> None:
        """Part with the connection of an attempt that is over, and forget what it said."""
        upstream, self._upstream = self._upstream, None
        if upstream is not None:
            if upstream.complete:
                upstream.release()
            else:
                upstream.abort()
        self._watcher = self._verdict = None
        self._held = []
        self._held_bytes = 0
        self._hold_until = 0.0

    def _give_up(self, rejection: Rejection) -> None:
        if self._saved is None:
            self._close_books(rejection.status)
            self._client.reject(rejection, retries=len(self.call.tried) - 1)
            return
        answer, choice, body = self._saved
        self._choice = choice
        delivery = Delivery(self._client, None)
        delivery.begin(answer, choice, body, retries=len(self.call.tried) - 1, end=True)
        self._close_books(answer.status)
        self._client.finished(close=delivery.close)

    # The answer, before the commit

    def received(self, upstream: UpstreamConnection) -> None:
        """A read has been taken in: its head, body bytes or end."""
        if self._delivery is not None:
            self._forward(self._delivery, upstream)
            return
        if self._verdict is None:
            self._judge_head(upstream.answer)
        data = upstream.take()
        watcher = self._watcher
        if watcher is not None:
            data = watcher.feed(data)
            if upstream.complete:
                data += watcher.finish()
        if data:
            self._held.append(data)
            self._held_bytes += len(data)
        if self._verdict is not Outcome.SUCCESS:
            self._consider_failure(upstream)
        elif watcher is not None:
            self._consider_stream(upstream, watcher)
        else:
            self._consider_body(upstream)

    def _judge_head(self, answer: Answer) -> None:
        call = self.call
        own_key = bool(self._choice.candidate.backend.credentials.header_line)
        self._verdict = verdict = of_status(
            answer.status, retry_after=answer.retry_after is not None, own_key=own_key
        )
        if verdict is not Outcome.SUCCESS:
            self._hold_until = self._gateway.now + HOLD_SECONDS
            return
        if answer.event_stream:
            self._watcher = Watcher(opaque=bool(answer.encoded))
            self._first_byte = self._gateway.clock()
        elif call.stream:  # asked for a stream, got a whole answer: that is timed as one
            response = self._choice.candidate.backend.timeouts.response
            self._deadline = self._began + response

    def _consider_failure(self, upstream: UpstreamConnection) -> None:
        verdict = self._verdict
        if verdict is Outcome.CLIENT_ERROR:
            self._commit(upstream, retries=len(self.call.tried))
        elif upstream.complete or self._held_bytes > HOLD_BYTES:
            self._fail_by_status()

    def _fail_by_status(self) -> None:
        upstream, verdict = self._upstream, self._verdict
        assert upstream is not None and verdict is not None
        answer = upstream.answer
        if verdict is Outcome.THROTTLED:
            asked = answer.retry_after
            seconds = None if asked is None else retry_after_seconds(asked, wall_time=time.time())
            self._choice.candidate.rest(self._gateway.clock(), seconds)
        elif verdict is Outcome.MODEL_MISSING:
            self._choice.candidate.lacks(self._gateway.clock(), self.call.endpoint)
        self._fail(verdict, f"HTTP {answer.status}", passable=True)

    def _consider_stream(self, upstream: UpstreamConnection, watcher: Watcher) -> None:
        if watcher.failed_first:
            self._fail(Outcome.STREAM_ERROR, "an error event", passable=True)
        elif watcher.seen or watcher.opaque or self._held_bytes > HOLD_BYTES:
            self._commit(upstream, retries=len(self.call.tried))
        elif upstream.complete:
            self._fail(Outcome.CUT, "a stream without an event")
        elif not self._hold_until and (self._held or watcher.waiting):
            self._hold_until = self._gateway.now + HOLD_SECONDS

    def _consider_body(self, upstream: UpstreamConnection) -> None:
        if upstream.complete:
            body = self._held[0] if len(self._held) == 1 else b"".join(self._held)
            if is_error_body(body, upstream.answer.encoded):
                self._fail(Outcome.ERROR_BODY, "an error object", passable=True)
            else:
                self._commit(upstream, retries=len(self.call.tried))
        elif self._held_bytes > HOLD_BYTES:
            self._commit(upstream, retries=len(self.call.tried))
        elif self._held and not self._hold_until:
            self._hold_until = self._gateway.now + HOLD_SECONDS

    # The answer, from the commit on

    def _commit(self, upstream: UpstreamConnection, *, retries: int) -> None:
        """This answer is the one: its head, and what was held of it, go to the client."""
        client = self._client
        watcher = self._watcher
        held = self._held
        data = held[0] if len(held) == 1 else b"".join(held)
        self._held = []
        self._hold_until = 0.0
        self._delivery = delivery = Delivery(client, watcher)
        ends = upstream.complete and not self._breaks_off(watcher)
        delivery.begin(upstream.answer, self._choice, data, retries=retries, end=ends)
        if watcher is not None:
            self._gateway.counters.active_streams += 1
            if watcher.content:
                self._first_token()
        if upstream.complete:
            self._complete(delivery, upstream, broken=not ends)
        elif client.paused:
            upstream.pause()

    def _forward(self, delivery: Delivery, upstream: UpstreamConnection) -> None:
        data = upstream.take()
        watcher = self._watcher
        if watcher is not None:
            self._alive = True
            had_content = watcher.content
            data = watcher.feed(data)
            if watcher.content and not had_content:
                self._first_token()
        if not upstream.complete:
            if data:
                delivery.more(data, end=False)
            return
        if watcher is not None:
            data += watcher.finish()
        ends = not self._breaks_off(watcher)
        delivery.more(data, end=ends)
        self._complete(delivery, upstream, broken=not ends)

    def _first_token(self) -> None:
        now = self._gateway.clock()
        if self._attempt is not None:
            self._attempt.content(now)
        self._deadline = now + self._choice.candidate.backend.timeouts.idle

    @staticmethod
    def _breaks_off(watcher: Watcher | None) -> bool:
        """A complete message whose stream is not: no sign of an end, and no error either."""
        return watcher is not None and not (watcher.failed or watcher.ended_well())

    def _complete(self, delivery: Delivery, upstream: UpstreamConnection, *, broken: bool) -> None:
        """The message has ended as HTTP sees it."""
        if broken:
            self._break(delivery, Outcome.CUT, "ended without finishing")
            return
        self._upstream = None
        now = self._gateway.clock()
        watcher = self._watcher
        outcome = self._verdict or Outcome.SUCCESS
        if watcher is not None:
            if watcher.failed:
                outcome = Outcome.STREAM_ERROR
            elif self._attempt is not None:
                waited = self._first_byte - self._began
                self._choice.candidate.backend.observe_latency(waited * 1000.0)
        self._end(outcome, now)
        upstream.release()
        self._close_books(delivery.status)
        self._client.finished(close=delivery.close)

    def _break(self, delivery: Delivery, outcome: Outcome, why: str) -> None:
        """The backend broke an answer that the client has begun to read."""
        watcher = self._watcher
        failed = watcher is not None and watcher.failed
        self._end(Outcome.STREAM_ERROR if failed else outcome, self._gateway.clock())
        name = self._choice.candidate.backend.name
        told = delivery.broken(f"backend {name} broke the stream: {why}")
        self._close_books(delivery.status)
        self._let_go()
        if told:
            self._client.finished(close=True)
        else:
            self._client.abort()

    def _close_books(self, status: int) -> None:
        gateway = self._gateway
        gateway.exchanges.discard(self)
        counters = gateway.counters
        if self._delivery is not None and self._watcher is not None:
            counters.active_streams -= 1
        counters.request(self.call.endpoint.value, status)

    # What can happen to it

    def lost(self, upstream: UpstreamConnection, *, malformed: bool) -> None:
        """The connection died before the answer's end, or the answer was no HTTP."""
        self._upstream = None
        delivery = self._delivery
        outcome = Outcome.MALFORMED if malformed else Outcome.CUT
        why = "not valid HTTP" if malformed else "closed before its end"
        if delivery is not None:
            self._break(delivery, outcome, why)
        elif upstream.used > 1 and not upstream.answered:
            # The server closed an idle connection while our request was on its way: nothing was
            # answered, so the attempt goes on, on a connection that cannot be stale.
            self._connect(upstream.pool, self._gateway.clock())
        else:
            verdict = self._verdict
            if verdict is not None and verdict is not Outcome.SUCCESS:
                outcome = verdict  # the head was there, and said enough
            self._fail(outcome, why)

    def client_left(self) -> None:
        """The client is gone: so is its request, everywhere, at once."""
        connecting, self._connecting = self._connecting, None
        if connecting is not None:
            connecting.cancel()
        upstream, self._upstream = self._upstream, None
        if upstream is not None:
            upstream.abort()
        self._end(Outcome.CLIENT_GONE, self._gateway.clock())
        self._gateway.counters.client_gone += 1
        self._close_books(499)

    def pause(self) -> None:
        """The client does not keep up: stop reading for it."""
        if self._upstream is not None and self._delivery is not None:
            self._upstream.pause()

    def resume(self) -> None:
        """The client keeps up again."""
        if self._upstream is not None and self._delivery is not None:
            self._upstream.resume()

    def check(self, now: float) -> None:
        """Once a tick: has any of the deadlines passed?"""
        client = self._client
        if client.paused and self._delivery is not None:
            self._alive = True  # the silence is the client's
            if now - client.paused_since > CLIENT_STALL_SECONDS:
                self.client_left()
                client.abort()
            return
        if self._alive:
            self._alive = False
            if self._watcher is not None and self._watcher.content:
                self._deadline = now + self._choice.candidate.backend.timeouts.idle
        if self._hold_until and now >= self._hold_until:
            self._stop_holding()
        elif now >= self._deadline:
            self._expire()

    def _stop_holding(self) -> None:
        upstream = self._upstream
        self._hold_until = 0.0
        if upstream is None:
            return
        if self._verdict is not Outcome.SUCCESS:
            self._fail_by_status()
        else:
            self._commit(upstream, retries=len(self.call.tried))

    def _expire(self) -> None:
        connecting, self._connecting = self._connecting, None
        if connecting is not None:
            connecting.cancel()
            self._fail(Outcome.CONNECT_ERROR, "no connection in time")
        elif self._delivery is not None:
            self._break(self._delivery, Outcome.TIMEOUT, "fell silent")
        elif self._upstream is not None:
            self._fail(Outcome.TIMEOUT, "no answer in time")
