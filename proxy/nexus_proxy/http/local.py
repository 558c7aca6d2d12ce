"""Answers this proxy gives in its own name: errors, rejections and the models.

Promises complete messages ready to write, with a length and the JSON media type. Nothing here reads
or keeps state.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from nexus_proxy.envelope import error_body, rejection_body
from nexus_proxy.http.answer_head import STATUS_LINES

if TYPE_CHECKING:
    from nexus_proxy.routing.router import Rejection

MODELS_PATH = b"/v1/models"
MODEL_PREFIX = MODELS_PATH + b"/"


def json_answer(status: int, body: bytes, *, close: bool, lines: bytes = b"") -> bytes:
    """A whole answer; `lines` are further header lines, each ending in CRLF."""
    return b"".join(
        (
            STATUS_LINES[status],
            b"content-type: application/json\r\ncontent-length: %d\r\n" % len(body),
            lines,
            b"connection: close\r\n\r\n" if close else b"\r\n",
            body,
        )
    )


def error_answer(
    status: int,
    message: str,
    *,
    close: bool,
    code: str | None = None,
    param: str | None = None,
    lines: bytes = b"",
) -> bytes:
    """An OpenAI error envelope as a whole answer."""
    body = error_body(status, message, code=code, param=param)
    return json_answer(status, body, close=close, lines=lines)


def rejection_answer(rejection: Rejection, *, retries: int, close: bool) -> bytes:
    """The answer to a request that no backend could take."""
    lines = b""
    if rejection.retry_after is not None:
        lines += b"retry-after: %d\r\n" % rejection.retry_after
    if retries > 0:
        lines += b"X-Nexus-Retries: %d\r\n" % retries
    return json_answer(rejection.status, rejection_body(rejection), close=close, lines=lines)


def one_model(models: bytes, name: str) -> bytes | None:
    """The entry of a model in the body of GET /v1/models, None if it is not there."""
    entries = msgspec.json.decode(models)["data"]
    return next((msgspec.json.encode(each) for each in entries if each["id"] == name), None)


def misdirected_answer(method: bytes, path: bytes, allowed: bytes | None, *, close: bool) -> bytes:
    """404 for a path that is not served here; 405 for one that is, by the `allowed` method."""
    where = path.decode("latin-1")[:200]
    if allowed is None:
        return error_answer(
            404, f"nothing is served at {where}: see /v1/models", close=close, code="not_found"
        )
    return error_answer(
        405,
        f"{where} takes {allowed.decode()}, not {method.decode('latin-1')}",
        close=close,
        code="method_not_allowed",
        lines=b"allow: %b\r\n" % allowed,
    )


TURNED_AWAY = error_answer(
    503,
    "this proxy holds as many connections as its limit of open files allows",
    close=True,
    code="too_many_connections",
    lines=b"retry-after: 1\r\n",
)
"""What a connection over the limit is told."""
