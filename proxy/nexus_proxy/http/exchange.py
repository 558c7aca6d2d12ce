"""One request's journey: attempt after attempt until an answer may be sent, then that answer.

Promises that every attempt ends in exactly one Outcome and frees its place, whatever path it took;
that nothing is tried once an answer is committed to the client; and that a backend is let go of the
moment its client leaves. Who gets an attempt is the router's decision, what an answer is worth that
comes in pieces is judged by `Incoming`, time is told by the gateway's tick.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nexus_proxy.http.answer_head import Answer, Framing, client_head, retry_after_seconds
from nexus_proxy.http.delivery import Delivery
from nexus_proxy.http.incoming import Incoming
from nexus_proxy.http.inspect import is_error_body
from nexus_proxy.http.pool import Pool, pool_of
from nexus_proxy.http.request_head import Request
from nexus_proxy.http.rewrite import with_model
from nexus_proxy.pricing.meter import Meter
from nexus_proxy.routing.router import Rejection
from nexus_proxy.routing.wait import Wait
from nexus_quality.outcome import Outcome

if TYPE_CHECKING:
    import asyncio

    from nexus_proxy.http.downstream import ClientConnection
    from nexus_proxy.http.gateway import Gateway
    from nexus_proxy.http.upstream import UpstreamConnection
    from nexus_proxy.routing.candidate import Attempted, Backend
    from nexus_proxy.routing.request import Call
    from nexus_proxy.routing.router import Choice

QUICK_SECONDS = 1.0  # a failure this fast costs the client nothing: the first retry is free
CLIENT_STALL_SECONDS = 300.0
LOOK_AGAIN_SECONDS = 1.0
INFINITY = float("inf")
STOPPING = "this proxy is stopping: ask again"


class Exchange:
    """One request between a client connection and the backends that are tried for it."""

    __slots__ = (
        "_attempt",
        "_connecting",
        "_incoming",
        "_request",
        "_saved",
        "_upstream",
        "began",
        "call",
        "choice",
        "client",
        "deadline",
        "gateway",
        "meter",
    )

    choice: Choice

    def __init__(
        self, gateway: Gateway, client: ClientConnection, request: Request, call: Call
    ) -> None:
        self.gateway = gateway
        self.client = client
        self.call = call
        self.began = self.deadline = 0.0
        self.meter: Meter | None = None  # set: the backend has a price
        self._request = request
        self._attempt: Attempted | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._upstream: UpstreamConnection | None = None
        self._incoming: Incoming | None = None  # an answer that did not come in one piece
        self._saved: tuple[Answer, Choice, bytes, bytes] | None = None  # the last failing answer

    @property
    def unanswered(self) -> bool:
        """Nothing of an answer to this attempt has been handed over yet."""
        return self._incoming is None

    @property
    def backend(self) -> Backend:
        return self.choice.candidate.backend

    # Attempts

    def start(self, now: float) -> None:
        """Make the first attempt, or tell the client why there is none."""
        gateway = self.gateway
        queue = gateway.queue
        if queue is not None and queue.depth:
            result = queue.arrive(self, now)
        else:
            result = gateway.router.choose(self.call, now)
        if isinstance(result, Rejection):
            self._give_up(result)
        elif isinstance(result, Wait):
            self._wait(result, now)
        else:
            self._begin(result, now)

    def _wait(self, wait: Wait, now: float) -> None:
        queue = self.gateway.queue
        assert queue is not None, "a router that makes requests wait needs a queue"
        self.deadline = INFINITY  # the queue keeps the time until then
        refusal = queue.enter(self, wait, now)
        if refusal is not None:
            self._give_up(refusal)

    def proceed(self, choice: Choice, now: float) -> None:
        """The wait is over: make this attempt."""
        try:
            self.gateway.counters.retries += bool(self.call.tried)
            self._begin(choice, now)
        except Exception as error:
            self.client.crashed(error)

    def turn_away(self, rejection: Rejection) -> None:
        """The wait was in vain."""
        try:
            self._give_up(rejection)
        except Exception as error:
            self.client.crashed(error)

    def _begin(self, choice: Choice, now: float) -> None:
        candidate = choice.candidate
        backend = candidate.backend
        self.choice = choice
        price = candidate.traits.price
        self.meter = None if price is None else Meter(price, self.call)
        self._attempt = candidate.subject.begin(
            now, probe=choice.probe, last_resort=choice.last_resort
        )
        backend.enter()
        self.began = now
        pool = backend.pool
        if pool is None or pool.origin is not backend.origin:
            pool = pool_of(backend, self.gateway)
        connection = pool.take(now)
        if connection is None:
            self._connect(pool, now)
        else:
            self._send(connection, now)

    def _connect(self, pool: Pool, now: float) -> None:
        self.expect(now + self.backend.timeouts.connect)
        self._connecting = pool.connect(self)

    def connected(self, connection: UpstreamConnection) -> None:
        """A new connection stands."""
        self._connecting = None
        now = self.gateway.clock()
        self._send(connection, now)
        if self._attempt is not None:
            self._attempt.sent(now)

    def connect_failed(self, why: str) -> None:
        """No connection came about."""
        self._connecting = None
        self.fail(Outcome.CONNECT_ERROR, why)

    def _send(self, connection: UpstreamConnection, now: float) -> None:
        self._upstream = connection
        call = self.call
        choice = self.choice
        backend = choice.candidate.backend
        body = call.body if choice.rewrite is None else with_model(call.body, choice.rewrite)
        stream = call.stream
        start = backend.origin.starts[call.endpoint]
        head = self._request.head(start, backend.credentials, length=len(body), stream=stream)
        connection.send(self, head, body)
        timeouts = backend.timeouts
        self.deadline = deadline = now + (timeouts.first_token if stream else timeouts.response)
        client = self.client
        if deadline < client.due:
            client.look_by(deadline)

    def expect(self, deadline: float) -> None:
        """What is waited for must come by then."""
        self.deadline = deadline
        if deadline < self.client.due:
            self.client.look_by(deadline)

    def first_token(self, now: float) -> None:
        """The first content event came."""
        if self._attempt is not None:
            self._attempt.content(now)

    def end(self, outcome: Outcome, now: float) -> bool:
        """End the attempt, if it has not ended yet: whether it had not."""
        attempt = self._attempt
        if attempt is None:
            return False
        self._attempt = None
        backend = self.choice.candidate.backend
        backend.leave()
        if self.meter is None:
            attempt.end(outcome, now)
        else:
            cost = self.meter.cost()
            attempt.end(outcome, now, cost_nano_usd=cost)
            if cost:
                self.gateway.charge(backend, cost, now, estimated=self.meter.estimated)
        queue = self.gateway.queue
        if queue is not None and queue.depth:
            queue.freed(backend)
        attempts = self.gateway.counters.attempts
        name = outcome._value_
        attempts[name] = attempts.get(name, 0) + 1
        return True

    def fail(self, outcome: Outcome, why: str, *, passable: bytes | None = None) -> None:
        """The attempt failed before anything was committed: the next candidate, or the end.

        `passable`: what has come of a body that may be passed on, if there is nothing better.
        """
        now = self.gateway.clock()
        self.end(outcome, now)
        if self.choice.probe:
            passable = None  # that the backend is still out is known, and better said in our words
        tried = self.call.tried
        tried.append((self.choice, why))
        upstream = self._upstream
        answered = upstream is not None and upstream.headed
        if outcome is Outcome.THROTTLED and upstream is not None:
            asked = upstream.answer.retry_after
            self.choice.candidate.rest(now, None if asked is None else retry_after_seconds(asked))
        elif outcome is Outcome.MODEL_MISSING:
            self.choice.candidate.lacks(now, self.call.endpoint)
        if passable is not None and upstream is not None and upstream.complete:
            self._saved = (upstream.answer, self.choice, upstream.length, passable)
            passable = None
        quick = outcome is Outcome.CONNECT_ERROR or (answered and now - self.began < QUICK_SECONDS)
        result = self.gateway.router.again(
            self.call, now, first_retry_free=quick and len(tried) == 1
        )
        if isinstance(result, Wait):
            self._let_go()
            self._wait(result, now)
        elif not isinstance(result, Rejection):
            self._let_go()
            self.gateway.counters.retries += 1
            self._begin(result, now)
        elif passable is not None and self._incoming is not None and upstream is not None:
            self._incoming.commit(upstream, retries=len(tried) - 1)
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
        self._incoming = None

    def _give_up(self, rejection: Rejection) -> None:
        retries = len(self.call.tried) - 1
        if self._saved is None:
            self._close_books(rejection.status)
            self.client.reject(rejection, retries=retries)
            return
        answer, choice, length, body = self._saved
        delivery = Delivery(self.client)
        delivery.begin(answer, choice, length, body, retries=retries, end=True)
        self.finish(delivery)

    # Answers

    def answered(self, upstream: UpstreamConnection, body: bytes) -> None:
        """A whole answer came in one read: what nearly all that are no streams do."""
        answer = upstream.answer
        if not answer.plain or (b'"error"' in body and is_error_body(body)):
            self._incoming = incoming = Incoming(self, answer)
            incoming.received(upstream, body)
            return
        client = self.client
        close = client.closes_after_answer()
        meter = self.meter
        if close or self.call.tried or meter is not None:
            retries = len(self.call.tried)
            framing = Framing.LENGTH
            lines = b""
            if meter is not None:
                meter.whole(body)
                lines = meter.line(meter.cost())
            head = client_head(
                answer,
                self.choice,
                upstream.length,
                retries=retries,
                framing=framing,
                close=close,
                lines=lines,
            )
            client.write(head + body)
        else:
            client.write(b"%b%b\r\n\r\n%b" % (answer.rendered(self.choice), upstream.length, body))
        self.end(Outcome.SUCCESS, self.gateway.clock())
        self._upstream = None
        upstream.release()
        self._close_books(200)
        client.finished(close=close)

    def received(self, upstream: UpstreamConnection) -> None:
        """A read has been taken in: a head, body bytes or an end."""
        incoming = self._incoming
        if incoming is None:
            self._incoming = incoming = Incoming(self, upstream.answer)
        incoming.received(upstream, upstream.take())

    def finish(self, delivery: Delivery) -> None:
        """The client has its answer."""
        self._let_go()
        self._close_books(delivery.status)
        self.client.finished(close=delivery.close)

    def cut(self, status: int) -> None:
        """The client has part of an answer, and must not take it for a whole one."""
        self._let_go()
        self._close_books(status)
        self.client.abort()

    def _close_books(self, status: int) -> None:
        gateway = self.gateway
        gateway.exchanges.discard(self)
        requests = gateway.counters.requests
        key = (self.call.endpoint._value_, status)
        requests[key] = requests.get(key, 0) + 1

    # What can happen to it

    def lost(self, upstream: UpstreamConnection, *, malformed: bool) -> None:
        """The connection died before the answer's end, or the answer was no HTTP."""
        self._upstream = None
        outcome = Outcome.MALFORMED if malformed else Outcome.CUT
        why = "not valid HTTP" if malformed else "closed before its end"
        if self._incoming is not None:
            self._incoming.broken_off(outcome, why)
        elif upstream.used > 1 and not upstream.answered:
            # The server closed an idle connection while our request was on its way: nothing was
            # answered, so the attempt goes on, on a connection that cannot be stale.
            self._connect(pool_of(self.backend, self.gateway), self.gateway.clock())
        else:
            self.fail(outcome, why)

    def client_left(self) -> None:
        """The client is gone: so is its request, everywhere, at once."""
        outcome = self._free()
        self.end(outcome, self.gateway.clock())
        if outcome is Outcome.CLIENT_GONE:
            self.gateway.counters.client_gone += 1
            self._close_books(499)
        else:
            self._close_books(200)

    def crashed(self) -> None:
        """This proxy itself failed on it: nobody else is to blame, and nothing may stay held."""
        if self not in self.gateway.exchanges:
            return  # it was over already
        self._free()
        try:
            self.end(Outcome.CLIENT_GONE, self.gateway.clock())
        finally:
            self._close_books(500)

    def cut_short(self) -> None:
        """The proxy stops before the answer is complete: say so, as far as that can be done."""
        incoming = self._incoming
        if incoming is not None and incoming.committed:
            incoming.broken_off(Outcome.CLIENT_GONE, STOPPING, by="the proxy")
            return
        self._free()
        self.end(Outcome.CLIENT_GONE, self.gateway.clock())
        self._close_books(503)
        self.client.reject(Rejection(503, "shutting_down", STOPPING, retry_after=1), retries=0)

    def _free(self) -> Outcome:
        """Let go of all but the attempt's place: what the attempt is worth if it ends here."""
        connecting, self._connecting = self._connecting, None
        if connecting is not None:
            connecting.cancel()
        if self.call.waiter is not None and self.gateway.queue is not None:
            self.gateway.queue.leave(self.call)
        incoming, self._incoming = self._incoming, None
        upstream, self._upstream = self._upstream, None
        if upstream is not None:
            upstream.abort()
        if incoming is None:
            return Outcome.CLIENT_GONE
        outcome = incoming.left()
        incoming.forget()
        return outcome

    def pause(self) -> None:
        """The client does not keep up: stop reading for it, once it is being answered."""
        if self._upstream is not None and self._incoming is not None:
            self._upstream.pause()

    def resume(self) -> None:
        """The client keeps up again."""
        if self._upstream is not None:
            self._upstream.resume()

    def check(self, now: float) -> float:
        """Has any of the deadlines passed? The time for the next look."""
        incoming = self._incoming
        if incoming is not None:
            client = self.client
            if client.paused and incoming.committed:
                incoming.heard = now  # the silence is the client's
                if now - client.paused_since > CLIENT_STALL_SECONDS:
                    self.client_left()
                    client.abort()
                return now + LOOK_AGAIN_SECONDS
            if incoming.check(now, self._upstream):
                return now + LOOK_AGAIN_SECONDS
        if now >= self.deadline:
            self._expire()
            return now + LOOK_AGAIN_SECONDS
        return self.deadline

    def _expire(self) -> None:
        connecting, self._connecting = self._connecting, None
        if connecting is not None:
            connecting.cancel()
            self.fail(Outcome.CONNECT_ERROR, self.backend.pool.late)
        elif self._incoming is not None:
            self._incoming.expired()
        elif self._upstream is not None:
            self.fail(Outcome.TIMEOUT, "no answer in time")
