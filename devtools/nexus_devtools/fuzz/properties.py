"""What must hold for any bytes: no disagreement with h11 that is not meant, no matter of splitting.

The differences that are meant stand in two tables, each with its reason. All but the last few make
us refuse what h11 takes: it joins, repairs and prefers where RFC 9112 allows a refusal.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from nexus_devtools.fuzz.verdict import (
    REFUSED,
    VALID,
    Verdict,
    h11_answer,
    h11_request,
    our_answer,
    our_request,
    our_requests,
)
from nexus_proxy.http.request_head import Request

Meant = Callable[[bytes, Verdict], bool]

LONE_LF = re.compile(rb"(?<!\r)\n")
FOLD = re.compile(rb"\r?\n[ \t]")
# What llhttp knows; h11 takes any token.
METHODS = frozenset(b"POST GET HEAD OPTIONS CONNECT M-SEARCH PUT DELETE TRACE PATCH".split())


def _count(verdict: Verdict, name: bytes) -> int:
    return sum(key == name for key, _ in verdict.headers)


def _values(verdict: Verdict, name: bytes) -> bytes:
    return b",".join(value.lower() for key, value in verdict.headers if key == name)


ODD_EXTENSION = re.compile(rb"\r\n[0-9a-fA-F]+(?!;[\w.-]+(?:=[\w.-]+)?\r\n)[ \t;][^\n]*")
CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")


def _control_in_a_value(_: bytes, h11: Verdict) -> bool:
    return any(CONTROL.search(value) for _, value in h11.headers)


STRICTER_WITH_REQUESTS: dict[str, Meant] = {
    "a bare LF ends no line": lambda data, _: LONE_LF.search(data) is not None,
    "a folded line is refused": lambda data, _: FOLD.search(data) is not None,
    "both framings": lambda data, _: (
        b"content-length" in data.lower() and b"transfer-encoding" in data.lower()
    ),
    "a repeated length, even the same": lambda data, _: (
        data.lower().count(b"content-length") > 1 or b"3, 3" in data
    ),
    "a chunk extension out of its grammar": lambda data, _: ODD_EXTENSION.search(data) is not None,
    "a control character in a value": _control_in_a_value,
    "an unknown method": lambda _, h11: h11.start.split()[0] not in METHODS,
    "versions other than 1.0 and 1.1": lambda _, h11: h11.version not in (b"1.0", b"1.1"),
    "no single Host": lambda _, h11: _count(h11, b"host") > 1,
    "CONNECT": lambda _, h11: h11.start.startswith(b"CONNECT "),
    "Upgrade": lambda _, h11: _count(h11, b"upgrade") > 0,
    "an unknown expectation": lambda _, h11: _count(h11, b"expect") > 0,
    "a target that is none": lambda _, h11: h11.start.split()[1][:1] not in (b"/", b"*", b"h"),
    "an unknown transfer coding": lambda _, h11: (
        _values(h11, b"transfer-encoding") not in (b"", b"chunked")
    ),
}
STRICTER_WITH_ANSWERS: dict[str, Meant] = {
    "a bare LF ends no line": STRICTER_WITH_REQUESTS["a bare LF ends no line"],
    "a folded line is refused": STRICTER_WITH_REQUESTS["a folded line is refused"],
    "both framings": STRICTER_WITH_REQUESTS["both framings"],
    "a repeated length, even the same": STRICTER_WITH_REQUESTS["a repeated length, even the same"],
    "a chunk extension out of its grammar": (
        STRICTER_WITH_REQUESTS["a chunk extension out of its grammar"]
    ),
    "a control character in a value": _control_in_a_value,
    "a version that does not exist": lambda _, h11: h11.version not in (b"1.0", b"1.1", b"2.0"),
    "101 that nobody asked for": lambda data, _: b" 101" in data,
    "an unknown transfer coding": STRICTER_WITH_REQUESTS["an unknown transfer coding"],
}
# Trailers are dropped unread here, and end with their empty line whatever they say.
TRAILERS = "framing headers in trailers"
BEFORE_ANSWER = re.compile(rb"(?:^|\r\n\r\n)[\r\n]")


def _frames_in_trailers(data: bytes, _: Verdict) -> bool:
    after = data.lower().partition(b"\r\n0")[2]
    return b"transfer-encoding" in after or b"content-length" in after


LAXER_WITH_REQUESTS: dict[str, Meant] = {
    # RFC 9112 §3 lets a recipient take a run of spaces for one; a backend gets a line of our own.
    "two spaces in the request line": lambda data, _: b"  " in data.partition(b"\r\n")[0],
    # Nothing stands before it: there is nothing to smuggle.
    "CR or LF before a request": lambda data, _: data[:1] in (b"\r", b"\n"),
    TRAILERS: _frames_in_trailers,
}
LAXER_WITH_ANSWERS: dict[str, Meant] = {
    "CR or LF before an answer": lambda data, _: BEFORE_ANSWER.search(data) is not None,
    TRAILERS: _frames_in_trailers,
}


def kept_as_of_old(h11: Verdict) -> bool:
    """RFC 9112 §9.3: HTTP/1.0 with keep-alive and without close persists after an answer, also for
    a proxy. h11 knows no such connections.
    """
    options = {option.strip() for option in _values(h11, b"connection").split(b",")}
    return h11.version == b"1.0" and b"keep-alive" in options and b"close" not in options


def meant(table: dict[str, Meant], data: bytes, h11: Verdict) -> bool:
    """One of the table's reasons holds."""
    return any(reason(data, h11) for reason in table.values())


def compare(
    ours: Verdict,
    theirs: Verdict,
    data: bytes,
    stricter: dict[str, Meant],
    laxer: dict[str, Meant],
) -> None:
    """Raise AssertionError on a disagreement that nobody meant."""
    what = f"{data!r}\nours:  {ours}\nh11's: {theirs}"
    if ours.kind == VALID == theirs.kind:
        same = (ours.start, ours.body) == (theirs.start, theirs.body)
        assert same or meant(laxer, data, theirs), f"read differently: {what}"
        allowed = theirs.keeps or kept_as_of_old(theirs) or meant(laxer, data, theirs)
        assert allowed or not ours.keeps, f"kept: {what}"
    elif ours.kind == VALID:
        assert meant(laxer, data, theirs), f"taken by us alone: {what}"
    elif theirs.kind == VALID:
        assert meant(stricter, data, theirs), f"taken by h11 alone: {what}"
    # Refused by one and not yet complete for the other: one looks sooner.


def requests_agree(data: bytes, cut: list[bytes]) -> None:
    """Our reader and h11 on the first request."""
    ours = our_request(cut)
    compare(ours, h11_request(data), data, STRICTER_WITH_REQUESTS, LAXER_WITH_REQUESTS)


def answers_agree(data: bytes, cut: list[bytes], *, eof: bool) -> None:
    """Our connection to a backend and h11 on an answer."""
    ours = our_answer(cut, eof=eof)
    theirs = h11_answer(data, eof=eof)
    compare(ours, theirs, data, STRICTER_WITH_ANSWERS, LAXER_WITH_ANSWERS)


def splitting_requests_is_no_matter(data: bytes, cut: list[bytes]) -> None:
    """The same requests, however they come."""
    whole, split = _meanings([data]), _meanings(cut)
    assert whole == split, f"{data!r} in {cut!r}\nwhole: {whole}\nsplit: {split}"


def _meanings(cut: list[bytes]) -> list[tuple[object, ...]]:
    """Up to the last request that is served or refused on the connection."""
    found: list[tuple[object, ...]] = []
    for request, body in our_requests(cut):
        found.append(_meaning(request, body))
        if not request.keep_alive:
            break
    return found


def splitting_answers_is_no_matter(data: bytes, cut: list[bytes], *, eof: bool) -> None:
    """The same answer, however it comes."""
    whole, split = our_answer([data], eof=eof), our_answer(cut, eof=eof)
    # Bytes beyond the end are seen at once or never; only then may a connection not be kept.
    same = (whole.kind, whole.start, whole.body) == (split.kind, split.start, split.body)
    assert same, f"{data!r} in {cut!r}\nwhole: {whole}\nsplit: {split}"


def _meaning(request: Request, body: bytes) -> tuple[object, ...]:
    if request.refusal is not None:
        return (REFUSED,)
    names = ("method", "url", "lines", "credentials", "keep_alive", "expects", "http10")
    return (*(getattr(request, name) for name in names), body)
