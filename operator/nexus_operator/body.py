"""The body of a report: read within bounds of size, time and memory, and unpacked on the way.

Promises that what unpacks to more than the limit is refused at the limit, that all bodies in
memory together have a bound, and that a sender that is slow, cut off or lying about its encoding
gets a reason. It does not know what the bytes mean, nor who sent them.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from aiohttp import ClientError, web
from aiohttp.http import HttpProcessingError

from nexus_quality.report import MAX_BYTES

BODY_SECONDS: Final = 10.0
ALL_BYTES: Final = 8 * MAX_BYTES
MAX_MEMBERS: Final = 16
GZIP: Final = frozenset({"gzip", "x-gzip"})
PLAIN: Final = frozenset({"", "identity"})
_GZIP_FORMAT = 16 + zlib.MAX_WBITS

TOO_LARGE: Final = "TooLarge"
TOO_SLOW: Final = "TooSlow"
BUSY: Final = "Busy"
MALFORMED: Final = "Malformed"
UNKNOWN_ENCODING: Final = "UnknownEncoding"


class Refused(Exception):
    """A request that is not taken. `status`: of the answer; `retry_after`: seconds, if any help."""

    def __init__(
        self, status: int, reason: str, message: str, *, retry_after: float | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.reason, self.message = status, reason, message
        self.retry_after = retry_after


class Room:
    """How many bytes of bodies are in memory: of each reporter, and of all together."""

    def __init__(self, *, each: int = MAX_BYTES, together: int = ALL_BYTES) -> None:
        self._each, self._together = each, together
        self._held: dict[str, int] = {}
        self.bytes = 0

    @contextmanager
    def hold(self, reporter: str) -> Iterator[Hold]:
        """Room for one body, given back at the end."""
        hold = Hold(self, reporter)
        try:
            yield hold
        finally:
            self._add(reporter, -hold.bytes)

    def grow(self, reporter: str, more: int) -> None:
        """Take `more` bytes; raises `Refused` if there is no room."""
        if self._held.get(reporter, 0) + more > self._each or self.bytes + more > self._together:
            raise Refused(503, BUSY, "too many reports are being read: try again", retry_after=1.0)
        self._add(reporter, more)

    def _add(self, reporter: str, more: int) -> None:
        self.bytes += more
        left = self._held.get(reporter, 0) + more
        if left:
            self._held[reporter] = left
        else:
            self._held.pop(reporter, None)


class Hold:
    """The room that one body has."""

    def __init__(self, room: Room, reporter: str) -> None:
        self._room, self._reporter = room, reporter
        self.bytes = 0

    def grow(self, more: int) -> None:
        """Take `more` bytes; raises `Refused` if there is no room."""
        self._room.grow(self._reporter, more)
        self.bytes += more


class Unpacker:
    """Puts the pieces of a body together; raises `Refused` as soon as it cannot become one."""

    def __init__(self, hold: Hold, *, packed: bool, limit: int = MAX_BYTES) -> None:
        self._hold, self._limit = hold, limit
        self._unzip = zlib.decompressobj(_GZIP_FORMAT) if packed else None
        self._members = 1
        self._received = 0
        self.body = bytearray()

    def feed(self, piece: bytes) -> None:
        """Take the next piece as it came."""
        self._received += len(piece)
        if self._received > self._limit:
            raise too_large(self._limit)
        while piece:
            piece = self._take(piece)

    def finish(self) -> bytes:
        """The whole body."""
        if self._unzip is not None and not self._unzip.eof:
            raise Refused(400, MALFORMED, "the gzip body is cut short")
        return bytes(self.body)

    def _take(self, piece: bytes) -> bytes:
        """Take what one gzip member has of a piece; returns what is left of it."""
        if self._unzip is None:
            self._append(piece)
            return b""
        if self._unzip.eof:
            self._members += 1
            if self._members > MAX_MEMBERS:
                message = f"a gzip body has at most {MAX_MEMBERS} members"
                raise Refused(400, MALFORMED, message)
            self._unzip = zlib.decompressobj(_GZIP_FORMAT)
        try:
            self._append(self._unzip.decompress(piece, self._limit + 1 - len(self.body)))
        except zlib.error:
            raise Refused(400, MALFORMED, "the body is no gzip") from None
        return self._unzip.unused_data or self._unzip.unconsumed_tail

    def _append(self, plain: bytes) -> None:
        if len(self.body) + len(plain) > self._limit:
            raise too_large(self._limit)
        self._hold.grow(len(plain))
        self.body += plain


async def read(request: web.Request, hold: Hold) -> bytes:
    """The body of a request, unpacked. Raises `Refused`."""
    packed = is_packed(request.headers.get("Content-Encoding", ""))
    if (request.content_length or 0) > MAX_BYTES:
        raise too_large(MAX_BYTES)
    unpacker = Unpacker(hold, packed=packed)
    try:
        async with asyncio.timeout(BODY_SECONDS):
            await go_on(request)
            while piece := await request.content.readany():
                unpacker.feed(piece)
    except TimeoutError:
        message = f"a report has to arrive within {BODY_SECONDS:.0f} s"
        raise Refused(408, TOO_SLOW, message) from None
    except (HttpProcessingError, ClientError, web.RequestPayloadError, OSError) as error:
        detail = " ".join(str(error).split()) or type(error).__name__
        raise Refused(400, MALFORMED, f"the body did not arrive whole: {detail[:200]}") from None
    return unpacker.finish()


def is_packed(encoding: str) -> bool:
    """Whether a Content-Encoding is gzip; raises `Refused` if it is neither that nor none."""
    encoding = encoding.strip().lower()
    if encoding in GZIP:
        return True
    if encoding in PLAIN:
        return False
    message = "send the report plain, or with Content-Encoding: gzip"
    raise Refused(415, UNKNOWN_ENCODING, message)


async def go_on(request: web.Request) -> None:
    """Asks a client that waits to be asked for its body."""
    if request.headers.get("Expect", "").lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        # The head of the answer itself is still to be written.
        request.writer.output_size = 0


async def expected(_: web.Request) -> None:
    """aiohttp's hook for `Expect`: nothing yet, `read` asks once it is known who sends."""


def too_large(limit: int) -> Refused:
    """The refusal of a body over the limit."""
    return Refused(413, TOO_LARGE, f"a report has at most {limit} bytes, unpacked")
