"""What the backends of the stream benchmarks read and write: requests, and the head of a stream."""

from __future__ import annotations

STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncache-control: no-cache\r\n"
    b"transfer-encoding: chunked\r\n\r\n"
)


class RequestReader:
    """The requests of one connection, one at a time; a body must have a length."""

    def __init__(self) -> None:
        self._got = b""

    def feed(self, data: bytes) -> tuple[bytes, bytes] | None:
        """Head and body of the request, once it is complete."""
        self._got += data
        head, blank, content = self._got.partition(b"\r\n\r\n")
        _, found, size = head.lower().partition(b"content-length:")
        if not blank or (found and len(content) < int(size.split(b"\r\n", 1)[0])):
            return None
        self._got = b""
        return head, content
