"""OpenAI error envelopes: the JSON bodies of every answer this proxy gives in its own name.

Promises the shape the OpenAI clients raise from: `{"error": {"message", "type", "param", "code"}}`.
It knows nothing about connections, and never touches what a backend said.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from nexus_proxy.routing.router import Rejection

_encode = msgspec.json.Encoder().encode

TYPES: dict[int, str] = {
    401: "authentication_error",
    429: "rate_limit_error",
}


def error_type(status: int) -> str:
    """The OpenAI `error.type` that belongs to an HTTP status."""
    known = TYPES.get(status)
    if known is not None:
        return known
    return "server_error" if status >= 500 else "invalid_request_error"


def error_body(
    status: int,
    message: str,
    *,
    code: str | None = None,
    param: str | None = None,
    context: dict[str, Any] | None = None,
) -> bytes:
    """The envelope for `status`; `context` becomes `error.context`."""
    error: dict[str, Any] = {
        "message": message,
        "type": error_type(status),
        "param": param,
        "code": code,
    }
    if context is not None:
        error["context"] = context
    return _encode({"error": error})


def rejection_body(rejection: Rejection) -> bytes:
    """The envelope of a request that no backend could take, with a reason for each of them."""
    context: dict[str, Any] = {
        "rejection_reasons": [
            {
                "backend": reason.backend,
                "reconciler": reason.reconciler,
                "reason": reason.reason,
                "suggested_action": reason.suggested_action,
            }
            for reason in rejection.reasons
        ]
    }
    if rejection.retry_after is not None:
        context["retry_after_seconds"] = rejection.retry_after
    return error_body(
        rejection.status,
        rejection.message,
        code=rejection.code,
        param=rejection.param,
        context=context if rejection.reasons or rejection.status == 503 else None,
    )


def broken_stream_event(message: str) -> bytes:
    """The one event that is appended to a stream which its backend broke."""
    return b"data: " + error_body(502, message, code="stream_interrupted") + b"\n\n"
