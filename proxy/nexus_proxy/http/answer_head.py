"""One answer's head as its backend sent it, and the head that the client gets in its place.

Promises the backend's status and headers, minus what belongs to the backend's connection, plus the
`X-Nexus-*` lines. How the body is framed for the client is decided by `Framing`, from the answer
and the client's HTTP version.
"""

from __future__ import annotations

import enum
import re
import time
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import TYPE_CHECKING

from nexus_proxy.http.heads import Roles, header_text, named_by_connection, without

if TYPE_CHECKING:
    from nexus_proxy.routing.router import Choice

STATUS_LINES: dict[int, bytes] = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus
}
BODILESS = frozenset((204, 304))
_TIMEOUT = re.compile(rb"(?:^|[,;\s])timeout=(\d{1,6})(?!\d)", re.IGNORECASE)


class Answer:
    """A backend's answer up to its body; `lines` are the header lines to pass on, `retry_after` the
    header's value, `encoded` the content coding (`b""`: none), `length` the Content-Length. A
    settled head may stand for many that are equal but for their length, which travels beside it.
    `closes`: the backend says that it will use the connection no more; `idle_seconds`: how long it
    lets one idle (-1: it does not say).

    `plain`: a success of known length, no stream and not encoded: its body speaks for itself.
    """

    __slots__ = (
        "_rendered",
        "chunked",
        "closes",
        "encoded",
        "event_stream",
        "framed_by_length",
        "idle_seconds",
        "length",
        "lines",
        "malformed",
        "named",
        "plain",
        "retry_after",
        "status",
    )

    def __init__(self) -> None:
        self.status = 0
        self.lines = b""
        self.length: bytes | None = None
        self.chunked = False
        self.closes = False
        self.idle_seconds = -1.0
        self.event_stream = False
        self.framed_by_length = False
        self.encoded = b""
        self.plain = False
        self.retry_after: bytes | None = None
        self.named: frozenset[bytes] | None = None
        self.malformed = False
        self._rendered: tuple[Choice, bytes, bytes] | None = None

    def settle(self, status: int, lines: bytes) -> None:
        """All headers are there."""
        self.status = status
        self.lines = lines if self.named is None else without(lines, self.named)
        self.framed_by_length = (
            self.length is not None and not self.event_stream and status not in BODILESS
        )
        self.plain = self.framed_by_length and status == 200 and not self.encoded

    @property
    def until_eof(self) -> bool:
        """No length and no chunks: the body ends with the connection."""
        return not self.chunked and self.length is None and self.status not in BODILESS

    def rendered(self, choice: Choice) -> bytes:
        """The head for a client, up to what depends on the client or on the length: what is
        `framed_by_length` ends with `content-length: `.
        """
        own = choice.candidate.backend.answer_headers
        known = self._rendered
        if known is not None and known[0] is choice and known[1] is own:
            return known[2]
        status = self.status
        head = b"".join(
            (
                STATUS_LINES.get(status) or b"HTTP/1.1 %d Unassigned\r\n" % status,
                self.lines,
                own,
                b"X-Nexus-Route-Reason: %b\r\n" % header_text(choice.reason),
                b""
                if choice.fallback_model is None
                else b"X-Nexus-Fallback-Model: %b\r\n" % header_text(choice.fallback_model),
                b"content-length: " if self.framed_by_length else b"",
            )
        )
        self._rendered = (choice, own, head)
        return head


class Framing(enum.Enum):
    """How the client learns where the body ends."""

    NONE = 0
    LENGTH = 1
    CHUNKED = 2
    CLOSE = 3


def framing_of(answer: Answer, *, http10: bool) -> Framing:
    """A stream is never given a length, so that an error event can still be appended to it."""
    if answer.framed_by_length:
        return Framing.LENGTH
    if answer.status in BODILESS:
        return Framing.NONE
    return Framing.CLOSE if http10 else Framing.CHUNKED


def client_head(
    answer: Answer,
    choice: Choice,
    length: bytes,
    *,
    retries: int,
    framing: Framing,
    close: bool,
    lines: bytes = b"",
) -> bytes:
    """The head for the client, with its last empty line; `lines` are further header lines."""
    head = answer.rendered(choice)
    if framing is Framing.LENGTH:
        head += length + b"\r\n"
    elif framing is Framing.CHUNKED:
        head += b"transfer-encoding: chunked\r\n"
    if retries:
        head += b"X-Nexus-Retries: %d\r\n" % retries
    return head + lines + (b"connection: close\r\n\r\n" if close else b"\r\n")


def _length(answer: Answer, value: bytes) -> bool:
    answer.length = value.strip()
    return False


def _connection(answer: Answer, value: bytes) -> bool:
    # llhttp forgets a close beside a keep-alive where the answer is an HTTP/1.0 one.
    answer.closes = answer.closes or b"close" in value.lower()
    named = named_by_connection(value)
    if named:
        answer.named = named | (answer.named or frozenset())
    return False


def _keep_alive(answer: Answer, value: bytes) -> bool:
    found = _TIMEOUT.search(value)
    if found is not None:
        answer.idle_seconds = float(found[1])
    return False


def _transfer_encoding(answer: Answer, value: bytes) -> bool:
    if value.strip().lower() == b"chunked" and not answer.chunked:
        answer.chunked = True
    else:
        answer.malformed = True  # a transfer coding nobody asked for: its end cannot be seen
    return False


def _content_encoding(answer: Answer, value: bytes) -> bool:
    coding = value.strip().lower()
    answer.encoded = b"" if coding == b"identity" else coding
    return True


def _content_type(answer: Answer, value: bytes) -> bool:
    answer.event_stream = value.lstrip()[:17].lower() == b"text/event-stream"
    return True


def _retry_after(answer: Answer, value: bytes) -> bool:
    answer.retry_after = value.strip()
    return True


ANSWER_ROLES: Roles[Answer] = Roles(
    {
        b"content-length": _length,
        b"content-type": _content_type,
        b"content-encoding": _content_encoding,
        b"connection": _connection,
        b"keep-alive": _keep_alive,
        b"retry-after": _retry_after,
        b"transfer-encoding": _transfer_encoding,
    }
)


def retry_after_seconds(
    value: bytes, *, wall_time: Callable[[], float] = time.time
) -> float | None:
    """Seconds to wait by a `Retry-After` value, a number or an HTTP date; None if unreadable."""
    text = value.decode("latin-1")
    if text.isdecimal():
        return float(text[:9])
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - wall_time())
    except (ValueError, OverflowError):
        return None
