"""Watches an event stream on its way to the client: first token, errors, a good end.

Promises that what it lets through ends at an event boundary, so that an error event can be appended
at any moment, and that an event is judged the same however it was split. Up to the first content
every event is decoded; after it a chunk costs one substring search and a look at its last bytes. It
changes no byte, and it never sees HTTP framing.
"""

from __future__ import annotations

from nexus_proxy.http.events import Meaning, has_ended, is_done, meanings

_ENDS = (b"\n\n", b"\n\r\n")
MAX_EVENT_BYTES = 4 * 1024 * 1024


class Watcher:
    """One stream. `seen` events so far (the first decides about another attempt), `content`: the
    first token came, `failed`: an error event came, `failed_first`: before any other event.
    """

    __slots__ = ("_before", "_last", "_tail", "content", "failed", "failed_first", "opaque", "seen")

    def __init__(self, *, opaque: bool = False) -> None:
        self.seen = 0
        self.content = False
        self.failed = False
        self.failed_first = False
        self.opaque = opaque  # an encoded stream: nothing can be said about it
        self._tail = bytearray()
        self._last = b""
        self._before = b""

    def feed(self, data: bytes) -> bytes:
        """Take the next body bytes; the bytes to let through now: whole events only."""
        if self.opaque:
            return data
        if self._tail or not data.endswith(_ENDS):
            data = self._whole_events(data)
            if not data:
                return data
        if not self.content or b"error" in data:
            self._judge(data)
        self._before = self._last
        self._last = data
        return data

    def passes(self, events: bytes) -> bool:
        """`feed` for whole events that need not be judged; False if these are none: feed them.

        Framing around the events does no harm.
        """
        if not self.content or self._tail or self.opaque or b"error" in events:
            return False
        self._before = self._last
        self._last = events
        return True

    @property
    def waiting(self) -> bool:
        """Part of an event has come, and waits for the rest of it."""
        return bool(self._tail)

    def finish(self) -> bytes:
        """The message is complete: what stands after the last boundary may pass as it is."""
        rest = bytes(self._tail)
        if rest and not self.opaque:
            self._judge(rest)
        return rest

    def ended_well(self) -> bool:
        """A mark of a good end was among the last events (ask at the message's end)."""
        return self.opaque or has_ended(self._before + self._last + self._tail)

    def heard_out(self) -> bool:
        """A mark of a good end has been let through: many clients hang up at that word."""
        return not (self.opaque or self.failed) and has_ended(self._before + self._last)

    def done(self) -> bool:
        """`[DONE]` has been let through: the client has all there is."""
        return not self.opaque and is_done(self._before + self._last)

    def _judge(self, data: bytes) -> None:
        for meaning in meanings(data):
            if meaning is Meaning.ERROR:
                self.failed = True
                self.failed_first = self.failed_first or self.seen == 0
            elif meaning is Meaning.CONTENT:
                self.content = True
            self.seen += 1

    def _whole_events(self, data: bytes) -> bytes:
        tail = self._tail
        searched = max(0, len(tail) - 3)
        tail += data
        cut = max(tail.rfind(b"\n\n", searched) + 2, tail.rfind(b"\n\r\n", searched) + 3)
        if cut < 4:
            if len(tail) <= MAX_EVENT_BYTES:
                return b""
            self.opaque = True  # longer than any event known: no longer watched, only carried
            cut = len(tail)
        whole = bytes(tail[:cut])
        del tail[:cut]
        return whole
