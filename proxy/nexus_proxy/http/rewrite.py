"""Replaces the value of the top-level `model` key of a JSON body, and not one byte more.

Promises linear time whatever the body holds. It expects a body that was already decoded once
(`analyze`), so it validates nothing.
"""

from __future__ import annotations

import re

import msgspec

# Strings whole, so that nothing inside one is mistaken for structure; then brackets and colons.
_TOKENS = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|[{}\[\]:,]', re.DOTALL)


def with_model(body: bytes, model: str) -> bytes:
    """`body` with every top-level `"model": <value>` naming `model` (clients and servers disagree
    on which of two duplicates counts, so both are replaced).
    """
    value = msgspec.json.encode(model)
    parts: list[bytes] = []
    done = 0
    for start, end in _model_values(body):
        parts += (body[done:start], value)
        done = end
    parts.append(body[done:])
    return b"".join(parts)


def _model_values(body: bytes) -> list[tuple[int, int]]:
    """Where the values of top-level `model` keys start and end."""
    found: list[tuple[int, int]] = []
    depth = 0
    key: bytes | None = None  # the last string at depth 1 that may be a key
    awaiting: int | None = None  # the end of the colon after a `model` key
    for token in _TOKENS.finditer(body):
        text = token.group()
        first = text[0]
        if first in b"{[":
            depth += 1
            awaiting = None
        elif first in b"}]":
            depth -= 1
        elif depth != 1:
            continue
        elif first == 0x22:
            if awaiting is not None:
                found.append(token.span())
                awaiting = None
            key = text
        elif first == 0x3A:
            awaiting = token.end() if key is not None and _is_model(key) else None
        else:
            key = awaiting = None
    return found


def _is_model(key: bytes) -> bool:
    if b"\\" in key:
        return bool(msgspec.json.decode(key) == "model")
    return key == b'"model"'
