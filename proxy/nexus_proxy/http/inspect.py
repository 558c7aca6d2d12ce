"""Looks into complete JSON answers for what their status does not say.

Promises to look only where one substring search gives a hint, to unpack no more than a bounded
number of bytes, and to hold for harmless what it cannot read (br and zstd codings, other media
types). It changes nothing: the client gets the bytes as they came.
"""

from __future__ import annotations

import zlib

import msgspec

from nexus_proxy.http.events import is_error

MAX_UNPACKED_BYTES = 1024 * 1024
_WINDOW_BITS = {b"gzip": 31, b"x-gzip": 31, b"deflate": 15}

_decode = msgspec.json.Decoder().decode


def is_error_body(body: bytes, encoded: bytes = b"") -> bool:
    """The body of a 2xx is a JSON error object; `encoded` is its content coding in lower case."""
    if encoded:
        body = unpacked(body, encoded)
    if b'"error"' not in body:
        return False
    try:
        message = _decode(body)
    except (msgspec.DecodeError, RecursionError):
        return False
    return isinstance(message, dict) and is_error(message)


def blames_request(body: bytes, encoded: bytes = b"") -> bool:
    """The body of a 404 says that something else than the model or the endpoint was not found: a
    file or an earlier response that the request named.
    """
    try:
        message = _decode(unpacked(body, encoded) if encoded else body)
    except (msgspec.DecodeError, RecursionError):
        return False
    error = message.get("error") if isinstance(message, dict) else None
    if not isinstance(error, dict) or error.get("type") != "invalid_request_error":
        return False
    return "model" not in f"{error.get('code')} {error.get('param')} {error.get('message')}".lower()


def unpacked(body: bytes, encoded: bytes) -> bytes:
    """The plain bytes, or none where the coding is unknown, broken or hides too much."""
    bits = _WINDOW_BITS.get(encoded)
    if bits is None:
        return b""
    unpacker = zlib.decompressobj(bits)
    try:
        return unpacker.decompress(body, MAX_UNPACKED_BYTES)
    except zlib.error:
        return b""
