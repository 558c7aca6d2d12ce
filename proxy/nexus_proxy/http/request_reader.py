"""From bytes to requests: the server side's use of llhttp.

Promises that every request it puts into the queue is complete and well-formed, or carries the
refusal to answer it with (the connection's last, then). It writes nothing and serves nothing.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import httptools

from nexus_proxy.http.heads import without
from nexus_proxy.http.known import KnownHead
from nexus_proxy.http.request_head import REQUEST_ROLES, Request
from nexus_proxy.routing.endpoint import ENDPOINTS

if TYPE_CHECKING:
    from nexus_proxy.http.client_keys import ClientKeys

MAX_HEAD_BYTES = 64 * 1024

# The request line nearly every request has: seen whole, it answers method and version at once.
_COMMON_LINES = {path: b"POST %b HTTP/1.1\r\n" % path for path in ENDPOINTS}
_DISCARDED = Request()
_HEAD_TOO_LARGE = (431, f"the head is larger than {MAX_HEAD_BYTES} bytes")
_NO_PARSER = httptools.HttpRequestParser(object())


class RequestReader:
    """Reads one connection; the queue gets each request's head with its body.

    `request` is the one llhttp is reading, `missing` the number of bytes still to come of a body
    that a known head announced: without both, nothing has begun.
    """

    __slots__ = (
        "_body",
        "_building",
        "_first",
        "_head_bytes",
        "_headed",
        "_keys",
        "_lines",
        "_max_body",
        "_overhead",
        "_parser",
        "_queue",
        "_size",
        "_stopped",
        "known",
        "missing",
        "request",
    )

    def __init__(
        self,
        queue: deque[tuple[Request, bytes]],
        *,
        max_body: int,
        keys: ClientKeys | None = None,
    ) -> None:
        self._queue = queue
        self._keys = keys
        self._max_body = max_body
        self._parser = httptools.HttpRequestParser(self)
        self.known: KnownHead[Request] = KnownHead()
        self.missing = 0
        self.request: Request | None = None
        self._building = _DISCARDED
        self._lines: list[bytes] = []
        self._body: list[bytes] = []
        self._size = 0
        self._headed = False
        self._head_bytes = 0
        self._overhead = 0  # bytes since the head that brought no body
        self._first = b""  # the read that began the request
        self._stopped = False

    @property
    def begun(self) -> bool:
        """A request has begun and is not complete."""
        return self.request is not None or self.missing > 0

    @property
    def body_bytes(self) -> int:
        """How much of the body of the request that has begun is here."""
        return self.known.length - self.missing if self.missing else self._size

    def expects_continue(self) -> bool:
        """The client waits for `100 Continue` before it sends the body; True once per request."""
        request = self.request
        if request is None or not self._headed or not request.expects:
            return False
        request.expects = False
        return self._size == 0

    def whole(self, data: bytes) -> bytes | None:
        """The body, if these next bytes are all of one request with the `known` head: what nearly
        all reads are. Then they need not be fed.
        """
        if self.request is not None or self.missing or self._stopped:
            return None
        known = self.known
        start = known.match(data)
        if start and len(data) == start + known.length and known.length <= self._max_body:
            return data[start:]
        return None

    def feed(self, data: bytes) -> None:
        """Take the next bytes; complete requests go into the queue."""
        if self.request is None:
            if self.missing:
                data = self._more_of_known(data)
            known = self.known
            start = known.match(data)
            if start and not self._stopped and known.length <= self._max_body:
                end = start + known.length
                if len(data) == end:
                    self._queue.append((known.meaning, data[start:]))
                    return
                data = self._part_of_known(known, data, start, end)
        if data and not self._stopped:
            self._parse(data)

    def discard(self) -> None:
        """The connection is gone."""
        self._stopped = True
        self.request = None
        self.missing = 0
        self._parser = _NO_PARSER  # ours refers to us
        self._queue.clear()

    # Known heads: llhttp stands at the end of a message all the while

    def _part_of_known(self, known: KnownHead[Request], data: bytes, start: int, end: int) -> bytes:
        """Take what there is of a request whose body goes from `start` to `end`; what is left."""
        if len(data) < end:
            self.missing = end - len(data)
            self._body = [data[start:]]
            return b""
        self._queue.append((known.meaning, data[start:end]))
        return data[end:]

    def _more_of_known(self, data: bytes) -> bytes:
        missing = self.missing
        self._body.append(data[:missing])
        if len(data) < missing:
            self.missing = missing - len(data)
            return b""
        self.missing = 0
        self._queue.append((self.known.meaning, b"".join(self._body)))
        self._body = []
        return data[missing:]

    # All others

    def _parse(self, data: bytes) -> None:
        begun = self.request
        size = self._size
        if begun is None:
            self._first = data
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._refuse(400, f"not a valid HTTP/1.1 request: {error}")
            return
        except httptools.HttpParserUpgrade:
            self._stopped = True  # queued with its refusal; what follows is another protocol
            return
        request = self.request
        if request is None:
            return
        if not self._headed:
            # The read that began it may hold other requests before it: that one counts nothing.
            self._head_bytes = self._head_bytes + len(data) if request is begun else 0
            if self._head_bytes > MAX_HEAD_BYTES:
                self._refuse(*_HEAD_TOO_LARGE)
        elif request.refusal is not None:
            self._refuse(*request.refusal)
        elif self._size > self._max_body:
            self._refuse(*self._too_large())
        elif self._size == size and request is begun:
            # Chunk sizes, their extensions, trailers: no body comes of this read.
            self._overhead += len(data)
            if self._overhead > MAX_HEAD_BYTES:
                self._refuse(*_HEAD_TOO_LARGE)

    def _refuse(self, status: int, message: str) -> None:
        request = self.request or Request()
        request.refusal = (status, message)
        request.keep_alive = False
        self.request = None
        self._stopped = True
        self._body = []
        self._queue.append((request, b""))

    def _too_large(self) -> tuple[int, str]:
        megabytes = self._max_body // (1024 * 1024)
        return 413, f"the body is larger than {megabytes} MB: send less in one request"

    # httptools callbacks

    def on_message_begin(self) -> None:
        self.request = self._building = Request()
        self._lines = []
        self._size = self._overhead = 0
        self._headed = False

    def on_url(self, url: bytes) -> None:
        self._building.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._headed:
            return  # a trailer
        role = REQUEST_ROLES[name]
        if role is None or role(self._building, value):
            self._lines += (name, b": ", value, b"\r\n")

    def on_headers_complete(self) -> None:
        request = self._building
        self._building = _DISCARDED
        self._headed = True
        lines = b"".join(self._lines)
        request.lines = lines if request.named is None else without(lines, request.named)
        common = _COMMON_LINES.get(request.url)
        usual = common is not None and self._first.startswith(common)
        if not usual:
            self._read_request_line(request)
        request.keep_alive = not request.http10 and self._parser.should_keep_alive()
        request.settle(upgrade=request.upgrades and self._parser.should_upgrade())
        if request.length is not None and request.length > self._max_body:
            request.refusal = self._too_large()
        if len(lines) + len(request.url) > MAX_HEAD_BYTES:
            request.refusal = _HEAD_TOO_LARGE
        if self._keys is not None and request.refusal is None:
            request.refusal = self._keys.refusal(request)  # before a body is taken of a stranger
        if request.refusal is not None:
            request.keep_alive = False
        elif usual and request.keep_alive and not request.expects:
            self.known.learn(self._first, request)

    def _read_request_line(self, request: Request) -> None:
        request.method = self._parser.get_method()
        version = self._parser.get_http_version()
        request.http10 = version == "1.0"
        if version not in ("1.0", "1.1"):
            request.refusal = (505, f"HTTP/{version} is not spoken here: use HTTP/1.1")

    def on_body(self, data: bytes) -> None:
        if self.request is not None:
            self._size += len(data)
            if self._size <= self._max_body:
                self._body.append(data)

    def on_message_complete(self) -> None:
        request = self.request
        if request is None:
            return
        body = self._body
        self._body = []
        if self._size > self._max_body:
            request.refusal = self._too_large()
            request.keep_alive = False
        self.request = None
        self._first = b""
        self._queue.append((request, body[0] if len(body) == 1 else b"".join(body)))
