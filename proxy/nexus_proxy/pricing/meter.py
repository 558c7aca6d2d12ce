"""The cost of one attempt on a backend with a price: by the usage that is stated, else estimated.

Promises a cost for every attempt that was answered with content, the price being that of the moment
the attempt began. An estimate takes a quarter of the prompt's bytes as its tokens; a stream's
output is as many tokens as it had content events, anything else a quarter of the body's bytes.
Attempts that failed before any content cost nothing. Backends without a price have no meter.
"""

from __future__ import annotations

from nexus_api.quantities import format_usd
from nexus_proxy.http.inspect import unpacked
from nexus_proxy.http.sse import Watcher
from nexus_proxy.pricing.usage import Usage, usage_in, usage_of_body
from nexus_proxy.routing.endpoint import Endpoint
from nexus_proxy.routing.request import Call, prompt_tokens

MILLION = 1_000_000
_TAIL_BYTES = 8 * 1024
_COMPACT, _SPACED = b'"usage":{', b'"usage": {'


class Meter:
    """One attempt. `price` is nano-USD per million tokens, in and out; `estimated`: the cost that
    was last asked for is no more than an estimate.
    """

    __slots__ = ("_bytes", "_call", "_events", "_tail", "_usage", "estimated", "price")

    def __init__(self, price: tuple[int, int], call: Call) -> None:
        self.price = price
        self.estimated = False
        self._call = call
        self._events = 0
        self._bytes = 0
        self._tail = b""
        self._usage: Usage | None = None

    def whole(self, body: bytes, encoded: bytes = b"") -> None:
        """The answer's complete body; `encoded` is its content coding."""
        plain = unpacked(body, encoded) if encoded else body
        self._bytes = len(plain or body)
        self._usage = usage_of_body(plain)

    def piece(self, data: bytes) -> None:
        """Some bytes of a body too long to be held."""
        self._bytes += len(data)
        self._tail = (self._tail + data)[-_TAIL_BYTES:]

    def events(self, data: bytes, *, content: bool) -> None:
        """Whole events of a stream; `content`: the first token came with them or before."""
        if content:
            self._events += data.count(b"\n\n") or data.count(b"\r\n\r\n")
        if _COMPACT in data or _SPACED in data:
            self._tail = data

    def opaque(self, data: bytes) -> None:
        """Some bytes of a stream that cannot be looked into."""
        self._bytes += len(data)

    def cost(self) -> int:
        """Nano-USD for what has come so far, 0 if nothing has."""
        usage = self._usage or (usage_in(self._tail) if self._tail else None)
        self.estimated = usage is None
        if usage is None:
            output = self._events or self._bytes // 4
            if not output:
                return 0
            usage = Usage(self._prompt(), self._output(output))
        return _priced(self.price, usage)

    def beforehand(self) -> int:
        """An estimate for a stream that has just begun: half as many tokens out as in."""
        tokens = self._prompt()
        return _priced(self.price, Usage(tokens, self._output(tokens // 2)))

    def line(self, nano_usd: int) -> bytes:
        """The header that tells a client."""
        return b"X-Nexus-Cost-Estimated: %b\r\n" % format_usd(nano_usd).encode()

    def _prompt(self) -> int:
        return prompt_tokens(self._call.body)

    def _output(self, tokens: int) -> int:
        return 0 if self._call.endpoint is Endpoint.EMBEDDINGS else tokens


class MeteredWatcher(Watcher):
    """A watcher that shows its meter every event it lets through."""

    __slots__ = ("_meter",)

    def __init__(self, meter: Meter, *, opaque: bool = False) -> None:
        super().__init__(opaque=opaque)
        self._meter = meter

    def feed(self, data: bytes) -> bytes:
        """Take the next body bytes; the bytes to let through now."""
        passed = super().feed(data)
        if self.opaque:
            self._meter.opaque(passed)
        elif passed:
            self._meter.events(passed, content=self.content)
        return passed

    def passes(self, events: bytes) -> bool:
        """`feed` for whole events that need not be judged."""
        if not super().passes(events):
            return False
        self._meter.events(events, content=True)
        return True

    def finish(self) -> bytes:
        """The message is complete."""
        rest = super().finish()
        if rest and not self.opaque:
            self._meter.events(rest, content=self.content)
        return rest


def _priced(price: tuple[int, int], usage: Usage) -> int:
    return (usage.input_tokens * price[0] + usage.output_tokens * price[1]) // MILLION
