"""One request as its client sent it, and the head this proxy sends to a backend in its place.

Promises that nothing which belongs to the client's connection, to the client's credentials (unless
the backend takes them) or to this proxy's own vocabulary reaches a backend. Bodies are none of its
business.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nexus_proxy.http.heads import Role, Roles, dropped, named_by_connection, without
from nexus_proxy.routing.endpoint import ENDPOINTS, Endpoint

if TYPE_CHECKING:
    from nexus_proxy.routing.candidate import Credentials

# Kept apart while a request is read: whether they are forwarded is the chosen backend's matter.
CREDENTIAL_HEADERS = frozenset((b"authorization", b"x-api-key", b"api-key", b"x-goog-api-key"))


class Request:
    """A request's head in the making, and then made; its body travels beside it.

    `lines` are the header lines to forward, `length` the declared body length in bytes (None:
    chunked or none), `endpoint` what a POST to its path asks for. `refusal` is `(status, message)`
    once it is clear that it cannot be served, `admitted` the client keys that let it in. A settled
    head may stand for many equal requests.
    """

    __slots__ = (
        "_middle",
        "accept_encoding",
        "admitted",
        "credentials",
        "endpoint",
        "expects",
        "flexible",
        "high_priority",
        "hosts",
        "http10",
        "keep_alive",
        "length",
        "lines",
        "method",
        "named",
        "path",
        "refusal",
        "upgrades",
        "url",
    )

    def __init__(self) -> None:
        self.url = b""
        self.path = b""
        self.method = b"POST"
        self.endpoint: Endpoint | None = None
        self.lines = b""
        self.length: int | None = None
        self.hosts = 0
        self.http10 = False
        self.keep_alive = True
        self.expects = False
        self.upgrades = False
        self.flexible = False
        self.high_priority = False
        self.accept_encoding = b""
        self.credentials: tuple[tuple[bytes, bytes], ...] = ()
        self.named: frozenset[bytes] | None = None
        self.refusal: tuple[int, str] | None = None
        self.admitted: object = None
        self._middle: tuple[frozenset[bytes], bool, bytes] | None = None

    def settle(self, *, upgrade: bool) -> None:
        """All headers are there: what is asked for, and whether it can be."""
        path = self.url.partition(b"?")[0]
        if path[:1] != b"/":
            path = _path_of_absolute(path)
        self.path = path
        if self.method == b"POST":
            self.endpoint = ENDPOINTS.get(path)
        if self.hosts != 1 and (self.hosts or not self.http10):
            self.refusal = (400, "exactly one Host header is needed")
        if self.method == b"CONNECT":
            self.refusal = (400, "CONNECT is not supported here: this is no forward proxy")
        elif upgrade:
            self.refusal = (400, "Upgrade is not supported here: send plain HTTP/1.1 requests")

    def head(self, start: bytes, credentials: Credentials, *, length: int, stream: bool) -> bytes:
        """The head of the request to a backend, with its last empty line; `start` is the origin's,
        `length` the body's.
        """
        strip = credentials.strip
        middle = self._middle
        if (
            middle is None
            or middle[1] is not stream
            or (middle[0] is not strip and middle[0] != strip)
        ):
            middle = self._middle = (strip, stream, self._lines_for(strip, stream=stream))
        return b"%b%b%bcontent-length: %d\r\n\r\n" % (
            start,
            middle[2],
            credentials.header_line,
            length,
        )

    def _lines_for(self, strip: frozenset[bytes], *, stream: bool) -> bytes:
        """The lines that go to every backend which `strip`s the same headers.

        Answers to a stream must come unencoded, so that events can be seen in them; for all others
        the client's own `Accept-Encoding` holds.
        """
        lines = self.lines if strip <= CREDENTIAL_HEADERS else without(self.lines, strip)
        lines += b"accept-encoding: identity\r\n" if stream else self.accept_encoding
        return lines + b"".join(line for name, line in self.credentials if name not in strip)


def _path_of_absolute(target: bytes) -> bytes:
    """The path of an absolute-form target, which every server must understand (RFC 9112 §3.2.2);
    other targets stay as they are.
    """
    scheme, found, rest = target.partition(b"://")
    if not found or scheme.lower() not in (b"http", b"https"):
        return target
    return b"/" + rest.partition(b"/")[2]


def _host(request: Request, _value: bytes) -> bool:
    request.hosts += 1
    return False


def _length(request: Request, value: bytes) -> bool:
    request.length = int(value)  # digits only: llhttp has checked
    return False


def _connection(request: Request, value: bytes) -> bool:
    named = named_by_connection(value)
    if named:
        request.named = named | (request.named or frozenset())
    return False


def _encoding(request: Request, value: bytes) -> bool:
    if value.strip().lower() != b"chunked":
        request.refusal = (501, "the only Transfer-Encoding understood here is chunked")
    return False


def _expect(request: Request, value: bytes) -> bool:
    if value.strip().lower() == b"100-continue":
        request.expects = True
    else:
        request.refusal = (417, "the only Expect understood here is 100-continue")
    return False


def _upgrade(request: Request, _value: bytes) -> bool:
    request.upgrades = True
    return False


def _accept_encoding(request: Request, value: bytes) -> bool:
    request.accept_encoding += b"accept-encoding: %b\r\n" % value
    return False


def _flexible(request: Request, value: bytes) -> bool:
    request.flexible = value.strip().lower() in (b"true", b"1", b"yes", b"")
    return False


def _priority(request: Request, value: bytes) -> bool:
    request.high_priority = value.strip().lower() == b"high"
    return False


def _credential(name: bytes) -> Role[Request]:
    def keep_apart(request: Request, value: bytes) -> bool:
        request.credentials += ((name, b"%b: %b\r\n" % (name, value)),)
        return False

    return keep_apart


REQUEST_ROLES: Roles[Request] = Roles(
    {
        b"host": _host,
        b"content-length": _length,
        b"connection": _connection,
        b"transfer-encoding": _encoding,
        b"expect": _expect,
        b"upgrade": _upgrade,
        b"accept-encoding": _accept_encoding,
        b"x-nexus-flexible": _flexible,
        b"x-nexus-priority": _priority,
        b"x-nexus-strict": dropped,
        **{name: _credential(name) for name in sorted(CREDENTIAL_HEADERS)},
    }
)
