"""One answer as it comes in, read by read: held until it is worth a commit, then passed on.

Promises that nothing is committed to the client before the answer is known to be the one, and that
how an answer is split into reads changes nothing about what it is taken for.

What is held, and for how long: a failing status and a JSON answer until they are complete, a stream
until its first event; at most `HOLD_BYTES`, and about `HOLD_SECONDS` from the first byte held.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nexus_proxy.http.delivery import Delivery
from nexus_proxy.http.inspect import blames_request, is_error_body
from nexus_proxy.http.sse import Watcher
from nexus_proxy.pricing.meter import MeteredWatcher
from nexus_quality.outcome import Outcome, of_status

if TYPE_CHECKING:
    from nexus_proxy.http.answer_head import Answer
    from nexus_proxy.http.exchange import Exchange
    from nexus_proxy.http.upstream import UpstreamConnection
    from nexus_proxy.pricing.meter import Meter

HOLD_BYTES = 64 * 1024
HOLD_SECONDS = 2.0
TICK_SECONDS = 1.0  # how far behind the gateway's time may be


class Incoming:
    """The answer to one attempt; `heard`: when something of its stream came last, by the ticks."""

    __slots__ = (
        "_delivery",
        "_exchange",
        "_first_byte",
        "_held",
        "_held_bytes",
        "_hold_until",
        "_verdict",
        "_watcher",
        "heard",
    )

    def __init__(self, exchange: Exchange, answer: Answer) -> None:
        """Take the head of an answer."""
        self._exchange = exchange
        self._delivery: Delivery | None = None  # set: the answer is committed
        self._watcher: Watcher | None = None
        self._held: list[bytes] = []
        self._held_bytes = 0
        self._hold_until = 0.0  # 0: nothing is held against the clock
        self._first_byte = 0.0
        self.heard = 0.0
        backend = exchange.backend
        self._verdict = of_status(
            answer.status,
            retry_after=answer.retry_after is not None,
            own_key=bool(backend.credentials.header_line),
        )
        if self._verdict is not Outcome.SUCCESS:
            self._hold()
        elif answer.event_stream:
            meter, opaque = exchange.meter, bool(answer.encoded)
            if meter is None:
                self._watcher = Watcher(opaque=opaque)
            else:
                self._watcher = MeteredWatcher(meter, opaque=opaque)
            self._first_byte = exchange.gateway.clock()
        elif exchange.call.stream:  # asked for a stream, got a whole answer: timed as one
            exchange.expect(exchange.began + backend.timeouts.response)

    @property
    def committed(self) -> bool:
        return self._delivery is not None

    def received(self, upstream: UpstreamConnection, data: bytes) -> None:
        """Take what a read brought."""
        delivery = self._delivery
        watcher = self._watcher
        if delivery is not None:
            self._forward(delivery, watcher, upstream, data)
            return
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

    # Before the commit

    def _consider_failure(self, upstream: UpstreamConnection) -> None:
        if self._verdict is Outcome.CLIENT_ERROR:
            self._accept(upstream)
        elif upstream.complete or self._held_bytes > HOLD_BYTES:
            if self._verdict is Outcome.MODEL_MISSING and blames_request(
                self._body(), upstream.answer.encoded
            ):
                self._verdict = Outcome.CLIENT_ERROR
                self._accept(upstream)
            else:
                self._fail_by_status(upstream)

    def _fail_by_status(self, upstream: UpstreamConnection) -> None:
        why = f"HTTP {upstream.answer.status}"
        # A refusal of our own key is not about the client, and may quote the key.
        own = self._verdict is Outcome.CREDENTIALS_REFUSED
        self._exchange.fail(self._verdict, why, passable=None if own else self._body())

    def _consider_stream(self, upstream: UpstreamConnection, watcher: Watcher) -> None:
        if watcher.failed_first:
            self._exchange.fail(Outcome.STREAM_ERROR, "an error event", passable=self._body())
        elif watcher.seen or watcher.opaque or self._held_bytes > HOLD_BYTES:
            self._accept(upstream)
        elif upstream.complete:
            self._exchange.fail(Outcome.CUT, "a stream without an event")
        elif not self._hold_until and (self._held or watcher.waiting):
            self._hold()

    def _consider_body(self, upstream: UpstreamConnection) -> None:
        if upstream.complete:
            body = self._body()
            if is_error_body(body, upstream.answer.encoded):
                self._exchange.fail(Outcome.ERROR_BODY, "an error object", passable=body)
            else:
                self._accept(upstream)
        elif self._held_bytes > HOLD_BYTES:
            self._accept(upstream)
        elif self._held and not self._hold_until:
            self._hold()

    def _hold(self) -> None:
        """From here on what comes is held for so long at most."""
        exchange = self._exchange
        self._hold_until = until = exchange.gateway.now + HOLD_SECONDS
        exchange.client.look_by(until)

    def _body(self) -> bytes:
        """What is held, in one piece."""
        if len(self._held) != 1:
            self._held = [b"".join(self._held)]
        return self._held[0]

    def _accept(self, upstream: UpstreamConnection) -> None:
        self.commit(upstream, retries=len(self._exchange.call.tried))

    def commit(self, upstream: UpstreamConnection, *, retries: int) -> None:
        """This answer is the one: its head, and what was held of it, go to the client."""
        exchange = self._exchange
        watcher = self._watcher
        body = self._body()
        self._held = []
        self._hold_until = 0.0
        self._delivery = delivery = Delivery(exchange.client, watcher)
        ends = upstream.complete and not _breaks_off(watcher)
        delivery.begin(
            upstream.answer,
            exchange.choice,
            upstream.length,
            body,
            retries=retries,
            end=ends,
            lines=b""
            if exchange.meter is None
            else self._cost_line(exchange.meter, upstream, body),
        )
        if watcher is not None:
            exchange.gateway.counters.active_streams += 1
            if watcher.content:
                self._first_token()
        if upstream.complete:
            self._complete(delivery, ends=ends)

    def _cost_line(self, meter: Meter, upstream: UpstreamConnection, body: bytes) -> bytes:
        """What the client is told of the cost: all of it, or what is expected."""
        if self._verdict is not Outcome.SUCCESS:
            return b""
        if self._watcher is None:
            if upstream.complete:
                meter.whole(body, upstream.answer.encoded)
                return meter.line(meter.cost())
            meter.piece(body)
        return meter.line(meter.beforehand())

    # From the commit on

    def _forward(
        self,
        delivery: Delivery,
        watcher: Watcher | None,
        upstream: UpstreamConnection,
        data: bytes,
    ) -> None:
        if watcher is not None:
            self.heard = self._exchange.gateway.now
            had_content = watcher.content
            data = watcher.feed(data)
            if not had_content and watcher.content:
                self._first_token()
        elif self._exchange.meter is not None and self._verdict is Outcome.SUCCESS:
            self._exchange.meter.piece(data)
        if not upstream.complete:
            if data:
                delivery.more(data, end=False)
            if watcher is not None and watcher.content:
                upstream.relay = self._relay
            return
        if watcher is not None:
            data += watcher.finish()
        ends = not _breaks_off(watcher)
        delivery.more(data, end=ends)
        self._complete(delivery, ends=ends)

    def _relay(self, read: bytes) -> bool:
        """Nearly every read of a stream, once it runs, is a chunk with an event in it."""
        delivery = self._delivery
        if delivery is None or not delivery.relay(read):
            return False
        self.heard = self._exchange.gateway.now
        return True

    def _first_token(self) -> None:
        exchange = self._exchange
        now = exchange.gateway.clock()
        exchange.first_token(now)
        exchange.expect(now + exchange.backend.timeouts.idle)

    def _complete(self, delivery: Delivery, *, ends: bool) -> None:
        """The message has ended as HTTP sees it; `ends`: its stream as well."""
        if not ends:
            self.broken_off(Outcome.CUT, "ended without finishing")
            return
        exchange = self._exchange
        watcher = self._watcher
        failed = watcher is not None and watcher.failed
        outcome = Outcome.STREAM_ERROR if failed else self._verdict
        ended = exchange.end(outcome, exchange.gateway.clock())
        if ended and watcher is not None and not failed:
            exchange.backend.observe_latency((self._first_byte - exchange.began) * 1000.0)
        self.forget()
        exchange.finish(delivery)

    def broken_off(self, outcome: Outcome, why: str, *, by: str | None = None) -> None:
        """No more will come, and it was not all; `by` whom, if not by the backend."""
        exchange = self._exchange
        delivery = self._delivery
        if delivery is None:
            if self._verdict is not Outcome.SUCCESS:
                outcome = self._verdict  # the head was there, and said enough
            exchange.fail(outcome, why)
            return
        failed = self._watcher is not None and self._watcher.failed
        exchange.end(Outcome.STREAM_ERROR if failed else outcome, exchange.gateway.clock())
        self.forget()
        breaker = by or f"backend {exchange.backend.name}"
        if delivery.broken(f"{breaker} broke the stream: {why}"):
            exchange.finish(delivery)
        else:
            exchange.cut(delivery.status)

    def left(self) -> Outcome:
        """What the attempt is worth when its client leaves now: with all of a stream that reached
        its end, a success.
        """
        watcher = self._watcher
        heard = self._delivery is not None and watcher is not None and watcher.heard_out()
        return self._verdict if heard else Outcome.CLIENT_GONE

    def forget(self) -> None:
        """It is over, one way or another: leave the gauge of running streams."""
        if self._delivery is not None and self._watcher is not None:
            self._exchange.gateway.counters.active_streams -= 1

    # Time

    def check(self, now: float, upstream: UpstreamConnection | None) -> bool:
        """True: something was done, look no further."""
        exchange = self._exchange
        if self.heard and self._watcher is not None and self._watcher.content:
            last = self.heard + TICK_SECONDS  # no earlier than that
            exchange.deadline = max(exchange.deadline, last + exchange.backend.timeouts.idle)
        if not self._hold_until or upstream is None:
            return False
        if now < self._hold_until:
            exchange.client.look_by(self._hold_until)
            return False
        self._hold_until = 0.0
        if self._verdict is Outcome.SUCCESS:
            self._accept(upstream)
        else:
            self._fail_by_status(upstream)
        return True

    def expired(self) -> None:
        """The deadline has passed."""
        if self.committed:
            self.broken_off(Outcome.TIMEOUT, "fell silent")
        else:
            self._exchange.fail(Outcome.TIMEOUT, "no answer in time")


def _breaks_off(watcher: Watcher | None) -> bool:
    """A complete message whose stream is not: no sign of an end, and no error either."""
    return watcher is not None and not (watcher.failed or watcher.ended_well())
