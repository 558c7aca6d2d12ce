"""The tokens an answer says it used: found in whole bodies, in their ends, and in events.

Knows the three shapes of OpenAI's APIs (`prompt_tokens`, `input_tokens`; an embedding has no
output). What it cannot read is no usage: then the caller estimates.
"""

from __future__ import annotations

import json
import re
from typing import Any, NamedTuple

import msgspec

MOST_TOKENS = 10**9
_USAGE = re.compile(rb'"usage"\s*:\s*(?=\{)')
_decoder = json.JSONDecoder()


class Usage(NamedTuple):
    """Tokens in and out."""

    input_tokens: int
    output_tokens: int


class _Body(msgspec.Struct):
    usage: dict[str, Any] | None = None


_decode = msgspec.json.Decoder(_Body).decode


def usage_of_body(body: bytes) -> Usage | None:
    """The usage of a complete JSON answer."""
    if b'"usage"' not in body:
        return None
    try:
        found = _decode(body).usage
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    return None if found is None else _usage(found)


def usage_in(text: bytes) -> Usage | None:
    """The last usage in a piece of an answer: the end of a body, or some events."""
    places = [match.end() for match in _USAGE.finditer(text)]
    for place in reversed(places):
        try:
            found, _ = _decoder.raw_decode(text[place:].decode("utf-8", "replace"))
        except (ValueError, RecursionError):
            continue
        usage = _usage(found)
        if usage is not None:
            return usage
    return None


def _usage(found: dict[str, Any]) -> Usage | None:
    tokens_in = _number(found, "prompt_tokens", "input_tokens")
    tokens_out = _number(found, "completion_tokens", "output_tokens")
    if tokens_in is None and tokens_out is None:
        return None
    return Usage(tokens_in or 0, tokens_out or 0)


def _number(found: dict[str, Any], *names: str) -> int | None:
    for name in names:
        value = found.get(name)
        if type(value) is int and 0 <= value <= MOST_TOKENS:
            return value
    return None
